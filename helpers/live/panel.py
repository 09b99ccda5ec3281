"""The notebook's live panel: ipywidgets round a `LiveSession`."""

from __future__ import annotations

import html
import threading
import time
import weakref
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import cv2
import ipywidgets as widgets
import numpy as np

from helpers.action.classifier import ActionClassifier
from helpers.action.motion import halve_large
from helpers.data.outputs import OutputFile, free_name
from helpers.emotion.classifier import EmotionClassifier
from helpers.errors import OutputError
from helpers.live.browser import ASK_EVERY_S, BROWSER, BrowserCamera
from helpers.live.own_actions import OwnActions
from helpers.live.pipeline import Pipeline
from helpers.live.results import UNSURE, FaceResult, FrameResult
from helpers.live.session import LiveSession
from helpers.live.sources import Source, open_source

FRAMES_PER_S = 15  # shown at most; the pipeline itself is not slowed down
JPEG_QUALITY = 75
LARGEST_WIDTH = 960  # pixels sent to the browser
ANOTHER = "another"
ABANDONED = "No page showed this panel any more; press Start to go on."


# Okabe & Ito (2008): blue and orange differ for every reader.
ACTION_COLOUR, EMOTION_COLOUR = "#0072B2", "#E69F00"


class LivePanel(widgets.VBox):
    """Source, Start, Pause, Stop, Record, Snapshot, settings; the image, the probabilities and
    how it goes.

    pipeline: `live.Pipeline`, used by this panel only. folder: where recordings and snapshots are
        written.
    session: the `live.LiveSession` that works. camera: the `browser.BrowserCamera`; it also tells
        when the last page with the panel is gone, and then the session ends.
    Only one panel is alive: making another (running the cell again) closes the one before and its
    camera.
    """

    _current: weakref.ref | None = None

    def __init__(self, pipeline: Pipeline, folder: Path | str = "recordings"):
        previous = LivePanel._current() if LivePanel._current else None
        if previous is not None:
            previous.close()
        self.camera = BrowserCamera()
        self.session = LiveSession(pipeline, opener=self._open)
        self.folder = Path(folder)
        self._lock, self._shower = threading.Lock(), None
        self._is_watched, self._ask_due = False, 0.0
        self._shown = None
        self._given, self._chosen_models = pipeline, ("", "")
        self._make_controls(pipeline)
        self._make_displays()
        self.own_actions = OwnActions(self.session, begin=self.begin, use=self._use_model)
        self._connect()
        super().__init__(
            [
                _row([self.source, self.address]),
                _row([self.start, self.pause, self.stop, self.record, self.snapshot]),
                _row([self.threshold, self.smoothing, self.mirror, self.skeleton]),
                _row([self.action_model, self.emotion_model]),
                _row([self.image, widgets.VBox([self.action_bars, self.emotion_bars])]),
                self.speed,
                self.camera,
                self.status,
                widgets.Accordion([self.own_actions], titles=["Own actions"]),
            ]
        )
        self._show_bars(None)
        self._show_state()
        LivePanel._current = weakref.ref(self)

    def __repr__(self) -> str:
        return "LivePanel()"  # the default one prints every child

    def _repr_mimebundle_(self, **options):
        """With an image for those who show no widgets (GitHub) or none of a kernel that is gone."""
        bundle = super()._repr_mimebundle_(**options)
        return {**bundle, "image/png": _to_png(_empty_image("Live panel: run this cell")[180:300])}

    def close(self) -> None:
        """Stop, give the camera back, take the panel off the page; safe to call again."""
        self.own_actions.stop_training()
        self.session.stop()
        shower = self._shower
        if shower is not None and shower is not threading.current_thread():
            shower.join(2.0)
        for part in _parts(self):
            part.close()
        super().close()

    # --- what it is made of

    def _make_controls(self, pipeline: Pipeline) -> None:
        self.source = widgets.Dropdown(
            description="Source",
            value="demo",
            options=[
                ("Demo clip", "demo"),
                ("This browser's camera", BROWSER),
                ("Camera 0", "0"),
                ("Camera 1", "1"),
                ("File, folder or address", ANOTHER),
            ],
        )
        self.address = widgets.Text(
            placeholder="video.mp4, a folder, rtsp://… or http://…",
            disabled=True,
            tooltip="Of the computer on which Python runs",
            layout=widgets.Layout(width="24em"),
        )
        self.action_model = _model_field("Action model", pipeline.action)
        self.emotion_model = _model_field("Emotion model", pipeline.emotion)
        self.start = _button("Start", "play", "Open the source and begin", "success")
        self.stop = _button("Stop", "stop", "End and give the camera back", "danger")
        self.snapshot = _button("Snapshot", "camera", "Save the image shown as PNG")
        self.pause = _toggle("Pause", "pause", "Hold the answer")
        self.record = _toggle("Record", "circle", "Write annotated video and timeline")
        settings = pipeline.settings
        threshold = settings.threshold
        if threshold is None:
            threshold = pipeline.action.threshold if pipeline.action else 0.5
        self.threshold = _slider("Threshold", threshold, 1, 0.01, "An action less likely than this is shown as –")
        self.smoothing = _slider(
            "Smoothing s", settings.smoothing_s, 2, 0.1, "Seconds over which actions are smoothed; emotions: half"
        )
        self.mirror = widgets.Checkbox(
            value=False,
            description="Mirror",
            indent=False,
            tooltip="Turn the image left to right, but not the text",
            layout=widgets.Layout(width="7.5em"),
        )
        self.skeleton = widgets.Checkbox(
            value=settings.skeleton,
            description="Skeleton",
            indent=False,
            tooltip="Draw where the limbs are seen",
            layout=widgets.Layout(width="7.5em"),
        )

    def _make_displays(self) -> None:
        self.image = widgets.Image(
            value=to_jpeg(_empty_image("Press Start")),
            format="jpeg",
            layout=widgets.Layout(  # smaller where the page is narrow, so that the bars stay beside it
                flex="1 1 24em", min_width="0", max_width="640px", align_self="flex-start"
            ),
        )
        self.action_bars = widgets.HTML(layout=widgets.Layout(width="22em"))
        self.emotion_bars = widgets.HTML(layout=widgets.Layout(width="22em"))
        self.speed, self.status = widgets.HTML("–"), widgets.HTML()

    def _connect(self) -> None:
        self.source.observe(self._on_source, "value")
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.session.stop(wait=False))
        self.snapshot.on_click(lambda _: self.save_snapshot())
        self.pause.observe(lambda change: self.session.pause(change.new), "value")
        self.record.observe(self._on_record, "value")
        for control in (self.threshold, self.smoothing):
            control.observe(self._on_settings, "value")
        self.skeleton.observe(self._on_settings, "value")
        self.mirror.observe(lambda change: setattr(self.session, "mirror", change.new), "value")

    def _open(self, source: str) -> Source:
        self._load_models()
        if source == BROWSER:
            return self.camera.source(self.session.stopping, self._say)
        return open_source(source)

    def _load_models(self) -> None:
        """Those of the two fields, where they have changed since; an empty one means what the panel was made with."""
        chosen = self.action_model.value.strip(), self.emotion_model.value.strip()
        if chosen == self._chosen_models:
            return
        self._say("Loading the models …")
        action, emotion = chosen
        pipeline = Pipeline(
            ActionClassifier.load(Path(action).expanduser()) if action else self._given.action,
            EmotionClassifier.load(Path(emotion).expanduser()) if emotion else self._given.emotion,
            self._given.finder,
            settings=replace(self.session.pipeline.settings, threshold=None),
        )
        self.session.pipeline, self._chosen_models = pipeline, chosen
        if pipeline.action:
            self.threshold.value = pipeline.action.threshold

    def _say(self, words: str) -> None:
        self.session.status = words

    # --- what a person does

    def begin(self) -> None:
        """What the Start button does: open the chosen source and return at once."""
        chosen = self.address.value if self.source.value == ANOTHER else self.source.value
        with self._lock:
            if self.session.start(chosen):
                self._is_watched = chosen != BROWSER  # that camera is where the page is, and ends with it
                self.camera.forget_pages()
                self._ask_due = 0.0
            if self._shower is None:
                self._shower = threading.Thread(target=self._show_while_running, name="live-panel", daemon=True)
                self._shower.start()

    def save_snapshot(self) -> Path | None:
        """Write the newest annotated image as PNG into `folder`; None when there is none."""
        latest = self.session.latest
        if latest is None:
            self.session.status = "No image to save yet: press Start first."
            path = None
        else:
            path = self._new_name().with_suffix(".png")
            self.session.status = _save_png(path, latest.image)
        self._show_state()
        return path

    def _use_model(self, folder: Path) -> None:
        """Choose an action model and, when the session runs, begin again with it."""
        self.action_model.value = str(folder)
        if self.session.running:
            self.session.stop()
            self.begin()

    def _on_source(self, change) -> None:
        self.address.disabled = change.new != ANOTHER

    def _on_settings(self, _) -> None:
        pipeline = self.session.pipeline
        pipeline.settings = replace(
            pipeline.settings,
            threshold=self.threshold.value,
            smoothing_s=self.smoothing.value,
            skeleton=self.skeleton.value,
        )

    def _on_record(self, change) -> None:
        if not change.new:
            self.session.stop_recording()
        else:
            name = self._new_name()
            if not self.session.record(name.with_suffix(".mp4"), name.with_suffix(".csv")):
                self.record.value = False
        self._show_state()

    def _new_name(self) -> Path:
        """In `folder`, without its suffix; nothing of this second has it."""
        return self.folder / free_name(self.folder, f"live-{datetime.now():%Y%m%d-%H%M%S}", ".png", ".mp4", ".csv")

    # --- what a person sees

    def _show_while_running(self) -> None:
        while True:
            with self._lock:
                if not self.session.running:
                    self._shower = None
                    break
                self._end_when_abandoned()
            self._show_latest()
            self._show_state()
            self.own_actions.show()
            time.sleep(1 / FRAMES_PER_S)
        self._show_latest()  # the last image and its numbers stay
        self.pause.value = self.record.value = False
        self.own_actions.show()
        self._show_state()

    def _end_when_abandoned(self) -> None:
        """Give a camera of the kernel back when the pages with this panel were closed or reloaded."""
        if self._is_watched and time.monotonic() >= self._ask_due:
            self._ask_due = time.monotonic() + ASK_EVERY_S
            self.camera.ask_pages()
        if self._is_watched and self.camera.abandoned:
            self.session.stop(wait=False, why=ABANDONED)

    def _show_latest(self) -> None:
        latest = self.session.latest
        if latest is None or latest is self._shown:
            return
        self._shown, faces = latest, len(latest.result.faces)
        self.image.value = to_jpeg(latest.image)
        self.speed.value = (
            f"{latest.fps:.0f} frames a second · {latest.latency_ms:.0f} ms from frame to answer · "
            f"{faces} face{'s' if faces != 1 else ''}"
        )
        self._show_bars(latest.result)

    def _show_bars(self, result: FrameResult | None) -> None:
        pipeline, none = self.session.pipeline, np.zeros(0)
        action_bars = emotion_bars = ""
        if pipeline.action:
            action_bars = bars(
                f"Action: {result.action if result else UNSURE}",
                pipeline.action.labels,
                result.action_probabilities if result else none,
                colour=ACTION_COLOUR,
            )
        if pipeline.emotion:
            faces = result.faces if result else ()
            face = max(faces, key=lambda face: face.box[2], default=None)
            emotion_bars = bars(
                f"{_face_name(face)}: {face.emotion}" if face else f"Face: {UNSURE}",
                pipeline.emotion.labels,
                face.probabilities if face else none,
                colour=EMOTION_COLOUR,
            )
        self.action_bars.value, self.emotion_bars.value = action_bars, emotion_bars

    def _show_state(self) -> None:
        session, running = self.session, self.session.running
        self.start.disabled = running
        for control in (self.stop, self.pause, self.record):
            control.disabled = not running
        mark = "border-left:4px solid #D55E00;padding-left:.5em" if session.state == "failed" else ""
        self.status.value = (
            f'<div role="status" style="{mark}">{html.escape(session.status)}</div>'  # text keeps the theme's contrast
        )


def _face_name(face: FaceResult) -> str:
    return "Face" if face.face_id is None else f"Face {face.face_id}"


def bars(title: str, labels: tuple[str, ...], probabilities: np.ndarray, *, colour: str) -> str:
    """HTML with a bar per label; probabilities (C,) in 0..1, or empty while there is no answer
    yet.
    """
    rows = []
    for index, label in enumerate(labels):
        share = f"{float(probabilities[index]) if len(probabilities) else 0.0:.0%}"
        rows.append(
            f"<span>{html.escape(label.replace('_', ' '))}</span>"
            f'<span style="background:#8883"><span style="display:block;height:1em;'
            f'width:{share};background:{colour}"></span></span>'
            f'<span style="text-align:right">{share}</span>'
        )
    return (
        f'<b>{html.escape(title.replace("_", " "))}</b><div style="display:grid;line-height:1.3;'
        f'grid-template-columns:9em 1fr 3em;gap:2px 6px;align-items:center">{"".join(rows)}</div>'
    )


def to_jpeg(image: np.ndarray) -> bytes:
    """A uint8 BGR image as JPEG, reduced to at most 960 pixels width."""
    image, _ = halve_large(image)  # 4K: quicker than in one go
    if image.shape[1] > LARGEST_WIDTH:
        scale = LARGEST_WIDTH / image.shape[1]
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _to_png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _empty_image(text: str) -> np.ndarray:
    image = np.full((480, 640, 3), 40, np.uint8)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 1
    (width, height), _ = cv2.getTextSize(text, font, size, 2)
    place = ((640 - width) // 2, (480 + height) // 2)
    return cv2.putText(image, text, place, font, size, (200, 200, 200), 2, cv2.LINE_AA)


def _save_png(path: Path, image: np.ndarray) -> str:
    """What happened, in words."""
    try:
        with OutputFile(path) as file:
            file.write(_to_png(image))
            file.publish()
    except OutputError as error:
        return str(error)
    return f"Saved {path}."


def _parts(box: widgets.Box) -> list[widgets.Widget]:
    """Everything inside a box, at any depth."""
    inner = [part for child in box.children if isinstance(child, widgets.Box) for part in _parts(child)]
    return [*box.children, *inner]


def _row(parts: list[widgets.Widget]) -> widgets.HBox:
    """Side by side where there is room, below each other on a narrow page."""
    return widgets.HBox(parts, layout=widgets.Layout(flex_flow="row wrap"))


def _model_field(text: str, given: object) -> widgets.Text:
    return widgets.Text(
        description=text,
        placeholder="the one of this panel" if given else "none",
        tooltip="Folder or file of another model; it is loaded at the next Start",
        style={"description_width": "initial"},
        layout=widgets.Layout(width="24em"),
    )


def _button(text: str, icon: str, tooltip: str, style: str = "") -> widgets.Button:
    return widgets.Button(
        description=text, icon=icon, tooltip=tooltip, button_style=style, layout=widgets.Layout(width="8.5em")
    )


def _toggle(text: str, icon: str, tooltip: str) -> widgets.ToggleButton:
    return widgets.ToggleButton(description=text, icon=icon, tooltip=tooltip, layout=widgets.Layout(width="8.5em"))


def _slider(text: str, value: float, most: float, step: float, tooltip: str) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value=value,
        min=0,
        max=most,
        step=step,
        description=text,
        tooltip=tooltip,
        style={"description_width": "initial"},
    )
