"""The panel's section for actions of one's own: records labelled clips and trains a model on them."""

from __future__ import annotations

import html
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import ipywidgets as widgets

from helpers.data.files import visible_entries
from helpers.data.paths import REPOSITORY
from helpers.errors import DataError
from helpers.live.capture import ClipCapture
from helpers.live.session import LiveSession


class OwnActions(widgets.VBox):
    """Label, person, seconds and count; Record clips; the number of clips so far; Train.

    session: whose frames are recorded. begin: starts the session where it does not run. use: called with the folder of
    a finished model. Training is a process of its own, `python -m helpers.train`; pressing Train again ends it, and the
    next press goes on where it was.
    """

    def __init__(self, session: LiveSession, begin: Callable[[], None], use: Callable[[Path], None]):
        self.session, self.use, self._begin = session, use, begin
        self._process: subprocess.Popen | None = None
        self._follower: threading.Thread | None = None
        self.data = _text("Folder", "own_actions", "Where the clips go, a folder per label")
        self.label = _text("Label", "", "What is shown: wave, clap, …; none for what is none of the actions")
        self.person = _text("Person", "", "Who shows it: people are kept apart when the model is tested")
        self.seconds = widgets.BoundedFloatText(description="Seconds", value=3.0, min=0.5, max=60.0, step=0.5)
        self.count = widgets.BoundedIntText(description="Clips", value=10, min=1, max=1000)
        self.record = _toggle("Record clips", "circle", "Count down and record, again and again, from the source above")
        self.train = _toggle("Train", "cogs", "Train an action model on all clips in the folder")
        self.progress, self.training = widgets.HTML(), widgets.HTML()
        super().__init__(
            [
                _row([self.data, self.label, self.person]),
                _row([self.seconds, self.count, self.record, self.train]),
                self.progress,
                self.training,
            ]
        )
        self.record.observe(self._on_record, "value")
        self.train.observe(self._on_train, "value")
        self.data.observe(lambda _: self.show_clips(), "value")
        self.show_clips()

    def show(self) -> None:
        """Show what is being recorded; give the button back when that is over. Called again and again."""
        capture = self.session.capture
        if capture is not None and not capture.done and self.session.running:
            self._say(self.progress, capture.says)
        elif self.record.value:
            self.record.value = False

    def show_clips(self) -> None:
        """Show how many clips there are."""
        clips = {folder.name: len(visible_entries(folder)) for folder in self._class_folders()}
        self._say(self.progress, "Clips so far: " + (", ".join(f"{k} {n}" for k, n in clips.items()) or "none"))

    def stop_training(self) -> None:
        """End the training, if one runs, and wait for it."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        if self._follower is not None and self._follower is not threading.current_thread():
            self._follower.join(10.0)

    # --- what a person does

    def _on_record(self, change) -> None:
        if not change.new:
            self.session.capture = None
            self.show_clips()
            return
        try:
            capture = ClipCapture(
                self.data.value, self.label.value, self.person.value, count=self.count.value, seconds=self.seconds.value
            )
        except DataError as error:
            self.record.value = False
            self._say(self.progress, str(error))
            return
        self._begin()
        self.session.capture = capture

    def _on_train(self, change) -> None:
        if not change.new:
            self.stop_training()
            return
        folder = Path(self.data.value).expanduser().resolve()
        output = next(path for path in _model_folders(folder) if not (path / "report.md").is_file())
        command = [sys.executable, "-m", "helpers.train", "action", str(folder), "--output", str(output)]
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,  # a progress bar's \r ends a line, too
            errors="replace",
        )
        self._say(self.training, "Training begins …")
        self._follower = threading.Thread(
            target=self._follow, args=(self._process, output), name="live-training", daemon=True
        )
        self._follower.start()

    def _follow(self, process: subprocess.Popen, output: Path) -> None:
        last = ""
        for line in process.stdout:
            if line.strip():
                last = line.strip()
                self._say(self.training, last)
        process.stdout.close()
        if process.wait() == 0:
            self._say(self.training, f"The model is in {output} and chosen; its test is in report.md there.")
            self.use(output)
        elif process.returncode in (130, -15):
            self._say(self.training, "Training stopped; Train goes on where it was.")
        else:
            self._say(self.training, last or f"Training ended with {process.returncode}.")
        self.train.value = False

    # --- what a person sees

    def _class_folders(self) -> list[Path]:
        folder = Path(self.data.value).expanduser()
        with suppress(OSError, ValueError):
            return [path for path in visible_entries(folder) if path.is_dir()]
        return []

    def _say(self, place: widgets.HTML, words: str) -> None:
        place.value = f'<div aria-live="polite">{html.escape(words)}</div>'


def _model_folders(data: Path) -> Iterator[Path]:
    """own_actions-model, own_actions-model-2, …"""
    yield data.with_name(f"{data.name}-model")
    number = 1
    while True:
        number += 1
        yield data.with_name(f"{data.name}-model-{number}")


def _row(parts: list[widgets.Widget]) -> widgets.HBox:
    return widgets.HBox(parts, layout=widgets.Layout(flex_flow="row wrap"))


def _text(text: str, value: str, tooltip: str) -> widgets.Text:
    return widgets.Text(description=text, value=value, tooltip=tooltip, layout=widgets.Layout(width="20em"))


def _toggle(text: str, icon: str, tooltip: str) -> widgets.ToggleButton:
    return widgets.ToggleButton(description=text, icon=icon, tooltip=tooltip, layout=widgets.Layout(width="9.5em"))
