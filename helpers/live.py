"""The live system: frames in, one action and an emotion per face out, drawn, written to a file or handed to a panel.

    python -m helpers.live --source demo --output out.mp4 --csv out.csv --headless

Every new frame is encoded once into a ring of features and only the small LSTM sees the window again; faces are detected
now and then and followed by their landmarks in between. Nothing here knows about notebooks or widgets.
"""
from __future__ import annotations

import os

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg complains on stderr about files we report ourselves

import argparse
import atexit
import csv
import hashlib
import math
import re
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from helpers.clips import Stepper, read_frames
from helpers.datasets import IMAGE_SUFFIXES, REPOSITORY, DataError, read_image
from helpers.faces import Face, FaceFinder, landmark_box

cv2.utils.logging.setLogLevel(0)  # and so does OpenCV itself

UNSURE = "–"  # shown instead of an action when the window is not full or no action is likely enough
DEFAULT_FPS = 25.0  # where a source does not say, or says something no camera does
STALL_S = 5.0  # a stream that shows nothing new for so long is given up


class SourceError(DataError):
    """A camera, file or stream that gives no (more) pictures. The message says what to do."""


class OutputError(DataError):
    """A recording that cannot be written. The message names the path."""


# --- sources -----------------------------------------------------------------------------------------------------


class Source:
    """Frames from one place: iterate for (frame uint8 BGR (H, W, 3), time in seconds), close it or use `with`.

    The first frame is read when the source is made, so that a camera or file that gives nothing fails there.

    name: for messages. fps: frames per second it claims. count: frames it claims to have, None when unknown.
    is_live: frames come when they come (camera, stream) and late ones are worthless. closed: it was given back.
    skipped: (path, reason) of the images of a folder that could not be read.
    """

    def __init__(self, name: str, frames: Iterator, release: Callable[[], None], fps: float = DEFAULT_FPS,
                 count: int | None = None, is_live: bool = False, skipped: list | None = None):
        self.name, self.fps, self.count, self.is_live = name, fps, count, is_live
        self.skipped = [] if skipped is None else skipped
        self.closed = False
        self._frames, self._release = frames, release
        try:
            self._first = next(frames, None)
            if self._first is None:
                raise SourceError(f"{name} gives no picture.")
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        if self._first is not None:
            first, self._first = self._first, None
            yield to_bgr(first[0]), first[1]
        for frame, time_s in self._frames:
            yield to_bgr(frame), time_s

    def close(self) -> None:
        """Give the camera or file back; safe to call again. Only when no other thread is reading: join first."""
        if not self.closed:
            self._release()
            self.closed = True

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def to_bgr(frame: np.ndarray) -> np.ndarray:
    """Any picture a camera may deliver to uint8 BGR (H, W, 3).

    Gray (H, W) or (H, W, 1), BGR, and BGRA (alpha is dropped); uint8, or uint16 whose full range is scaled down.
    """
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    channels = 1 if frame.ndim == 2 else frame.shape[2] if frame.ndim == 3 else 0
    if frame.size == 0 or channels not in (1, 3, 4) or frame.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"A frame of shape {frame.shape} and type {frame.dtype} is not a gray or colour picture.")
    if frame.dtype == np.uint16:
        frame = cv2.convertScaleAbs(frame, alpha=1 / 257)
    if channels == 1:
        return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
    return frame if channels == 3 else cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)


def open_source(source: str | int | Path) -> Source:
    """A `Source` from a webcam index (0, "0"), "demo", an RTSP/HTTP address, a video file or a folder of images.

    A file and a folder keep their own time (a folder 25 images a second, in the order of the names); cameras and
    streams run by the clock. Raises SourceError (or another DataError) that says what to do.
    """
    text = str(source).strip()
    if not text:
        raise SourceError("No source given: use a camera number such as 0, a video file, a folder, an address or demo.")
    if text.isdigit():
        return _open_camera(int(text))
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://", text):
        return _open_stream(text)
    if text == "demo":
        return _open_file(demo_clip(), name="the demo clip")
    path = Path(text).expanduser()
    return _open_folder(path) if path.is_dir() else _open_file(path, path.name)


def demo_clip() -> Path:
    """The clip that the project draws itself, made on first use. A change of the generator makes a new one."""
    from helpers import samples

    version = hashlib.sha256(Path(samples.__file__).read_bytes()).hexdigest()[:8]
    folder = REPOSITORY / ".cache"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:  # a read-only installation
        folder = Path(tempfile.gettempdir())
    path = folder / f"demo-{version}.mp4"
    if not path.exists():
        unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
        samples.write_demo_clip(unfinished)
        unfinished.replace(path)  # all or nothing: another process never sees half a clip
    return path


def _open_camera(index: int) -> Source:
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        capture.release()
        raise SourceError(_no_camera(index))
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old pictures are worthless
    return Source(f"camera {index}", _read_live(capture, f"camera {index}", _no_camera(index)), capture.release,
                  _sane_fps(capture), is_live=True)


def _no_camera(index: int) -> str:
    if sys.platform == "linux" and not Path(f"/dev/video{index}").exists():
        return (f"No camera {index} on the computer where Python runs. Plug one in, try another number, or use a video "
                "file or the demo clip.")
    return (f"Camera {index} gives no picture. Close other programs that use it (video calls, another notebook), allow "
            "Python to use the camera, or try another number.")


def _open_stream(address: str) -> Source:
    limit_ms = int(STALL_S * 1000)
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms,
                                                         cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms])
    nothing = f"{address} gives no video. Check the address, the network and that the camera is on."
    if not capture.isOpened():
        capture.release()
        raise SourceError(nothing)
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:  # a film that lies on a server, not a camera
        return Source(address, _read_film(capture), capture.release, _sane_fps(capture), _count(capture))
    return Source(address, _read_live(capture, address, nothing), capture.release, _sane_fps(capture), is_live=True)


def _open_file(path: Path, name: str) -> Source:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder. Check the spelling; a camera is a number, such as 0.")
    capture = cv2.VideoCapture(str(path))
    fps, count = _sane_fps(capture), _count(capture)
    capture.release()
    frames = read_frames(path)
    return Source(name, frames, frames.close, fps, count)


def _open_folder(folder: Path) -> Source:
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise SourceError(f"{folder}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    skipped = []
    frames = _read_images(paths, skipped)
    return Source(f"{folder.name}/", frames, frames.close, DEFAULT_FPS, len(paths), skipped=skipped)


def _read_images(paths: list[Path], skipped: list[tuple[Path, str]]) -> Iterator[tuple[np.ndarray, float]]:
    for number, path in enumerate(paths):
        try:
            yield read_image(path), number / DEFAULT_FPS
        except DataError as error:
            skipped.append((path, str(error)))


def _read_film(capture: cv2.VideoCapture) -> Iterator[tuple[np.ndarray, float]]:
    fps, number = _sane_fps(capture), 0
    while True:
        ok, frame = capture.read()
        if not ok:
            return
        yield frame, number / fps
        number += 1


def _read_live(capture: cv2.VideoCapture, name: str, nothing: str) -> Iterator[tuple[np.ndarray, float]]:
    """Frames with the time since the first; ends only by an error: `nothing` before the first frame, then how it ended."""
    start = None
    while True:
        asked = time.monotonic()
        ok, frame = capture.read()
        now = time.monotonic()
        if not ok and start is None:
            raise SourceError(nothing)
        if not ok and now - asked > 0.9 * STALL_S:
            raise SourceError(f"{name} stalled: no picture for {now - asked:.0f} s. Check the camera and the network.")
        if not ok:
            raise SourceError(f"{name} stopped delivering pictures: unplugged, switched off, or taken by another program?")
        start = now if start is None else start
        yield frame, now - start


def _sane_fps(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 1 <= fps <= 240 else DEFAULT_FPS  # also false for nan


def _count(capture: cv2.VideoCapture) -> int | None:
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e8 else None


# --- results -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FaceResult:
    """One face of one frame.

    face_id: the same for as long as the face stays in view, never used again. box: (x, y, width, height) in pixels, may
    reach outside. landmarks: float32 (68, 2) pixels. emotion: label, or "–" without an emotion model.
    confidence and probabilities (C,): smoothed over time, 0..1.
    """

    face_id: int
    box: tuple[int, int, int, int]
    landmarks: np.ndarray
    emotion: str
    confidence: float
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class FrameResult:
    """Everything known after one frame.

    action: label, or "–" when the window is not full or no action is likely enough. action_confidence: of that label,
    of the likeliest one for "–". action_probabilities: (C,) smoothed, empty until the window is full.
    latency_ms: from the frame's arrival to this result. stage_ms: milliseconds by stage, only the stages that ran.
    """

    frame_index: int
    time_s: float
    action: str
    action_confidence: float
    action_probabilities: np.ndarray
    faces: tuple[FaceResult, ...]
    latency_ms: float
    stage_ms: dict[str, float]


@dataclass(frozen=True)
class LiveSettings:
    """The knobs of the live answer.

    threshold: an action below this smoothed probability is not shown; None takes the model's own.
    hysteresis: a shown label leaves only when it falls so far below the threshold or another leads by so much.
    smoothing_s: time constant of the exponential smoothing of all probabilities, in seconds; 0 turns it off.
    detect_every_s: time between two looks for faces while all faces in view are confirmed.
    search_every_s: the same while there is no face or one was not seen again.
    patience_s: how long a face that the detector no longer sees is kept.
    """

    threshold: float | None = None
    hysteresis: float = 0.1
    smoothing_s: float = 0.4
    detect_every_s: float = 0.4
    search_every_s: float = 0.12
    patience_s: float = 0.8

    def __post_init__(self):
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in 0..1, got {self.threshold}")
        for name in ("hysteresis", "smoothing_s", "detect_every_s", "search_every_s", "patience_s"):
            if not 0 <= getattr(self, name) <= 60:
                raise ValueError(f"{name} must be in 0..60, got {getattr(self, name)}")


# --- one frame ---------------------------------------------------------------------------------------------------


class SteadyAnswer:
    """Probabilities smoothed over time and a label that does not flicker."""

    def __init__(self):
        self.probabilities: np.ndarray | None = None
        self.index: int | None = None
        self._time_s = 0.0

    def update(self, probabilities: np.ndarray, time_s: float, threshold: float, settings: LiveSettings) -> None:
        """Take in probabilities (C,) of time `time_s`; `index` is the label to show, None below `threshold`."""
        if self.probabilities is None or settings.smoothing_s == 0:
            self.probabilities = np.asarray(probabilities, np.float32)
        else:
            weight = 1 - math.exp(-(time_s - self._time_s) / settings.smoothing_s)
            self.probabilities = self.probabilities + weight * (probabilities - self.probabilities)
        self._time_s = time_s
        self.index = self._choose(threshold, settings.hysteresis)

    def _choose(self, threshold: float, margin: float) -> int | None:
        best = int(self.probabilities.argmax())
        if self.index is not None:
            shown = self.probabilities[self.index]
            if shown >= threshold - margin and self.probabilities[best] - shown < margin:
                return self.index
        return best if self.probabilities[best] >= threshold else None


class FaceTrack:
    """One face in view: where it is and what it has looked like so far."""

    def __init__(self, face_id: int, landmarks: np.ndarray, time_s: float):
        self.face_id, self.landmarks, self.confirmed_s = face_id, landmarks, time_s
        self.answer = SteadyAnswer()

    @property
    def box(self) -> tuple[int, int, int, int]:
        return landmark_box(self.landmarks)

    def move(self, landmarks: np.ndarray) -> None:
        """Follow to new landmarks (68, 2): at once when the face moves, calmly when only the predictor trembles."""
        moved = np.linalg.norm(landmarks - self.landmarks, axis=1).mean() / self.box[2]
        self.landmarks = self.landmarks + np.float32(np.clip(moved / 0.04, 0.3, 1.0)) * (landmarks - self.landmarks)


class FaceTracker:
    """Detects faces now and then, follows them by their landmarks on every frame, gives each a lasting number."""

    def __init__(self, finder: FaceFinder):
        self.finder = finder
        self.tracks: list[FaceTrack] = []
        self._next_id, self._detected_s = 1, -math.inf

    def update(self, gray: np.ndarray, time_s: float, settings: LiveSettings, stage) -> list[FaceTrack]:
        """The faces of a uint8 gray (H, W) frame. stage: context manager that books time under a name."""
        if self._detection_is_due(time_s, settings):
            with stage("detect"):
                found = self.finder.detect(gray)
            self._detected_s = time_s
            with stage("landmarks"):
                self._associate(gray, found, time_s)
        else:
            with stage("landmarks"):
                for track in self.tracks:
                    track.move(self.finder.landmarks(gray, track.box))
        self.tracks = [track for track in self.tracks if self._stays(track, gray.shape, time_s, settings)]
        return self.tracks

    def _detection_is_due(self, time_s: float, settings: LiveSettings) -> bool:
        calm = self.tracks and all(track.confirmed_s == self._detected_s for track in self.tracks)
        wait = settings.detect_every_s if calm else settings.search_every_s
        return time_s - self._detected_s >= wait - 1e-6

    def _associate(self, gray: np.ndarray, boxes: list[tuple[int, int, int, int]], time_s: float) -> None:
        """Best overlaps first: each box confirms at most one track; a box without a track starts one."""
        pairs = sorted(((overlap(track.box, box), t, b) for t, track in enumerate(self.tracks)
                        for b, box in enumerate(boxes)), reverse=True)
        tracks, free = dict(enumerate(self.tracks)), dict(enumerate(boxes))
        for share, t, b in pairs:
            if share >= 0.3 and t in tracks and b in free:
                track = tracks.pop(t)
                track.move(self.finder.landmarks(gray, free.pop(b)))
                track.confirmed_s = time_s
        for track in tracks.values():
            track.move(self.finder.landmarks(gray, track.box))
        for box in free.values():
            self.tracks.append(FaceTrack(self._next_id, self.finder.landmarks(gray, box), time_s))
            self._next_id += 1

    @staticmethod
    def _stays(track: FaceTrack, shape: tuple[int, int], time_s: float, settings: LiveSettings) -> bool:
        x, y, width, height = track.box
        inside = 0 <= x + width / 2 < shape[1] and 0 <= y + height / 2 < shape[0]
        return inside and time_s - track.confirmed_s <= settings.patience_s


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (x, y, width, height), 0..1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


_MODELS_LOCK = threading.Lock()  # the interpreters inside the models serve one caller at a time, whoever it is


class Pipeline:
    """Frame in, action and emotions out. Keeps the history that the answer needs; use one for each video.

    action, emotion: `artifacts.ActionClassifier`, `artifacts.EmotionClassifier`, or None to leave that half out.
    finder: `faces.FaceFinder`; None leaves faces out. settings: may be replaced at any time.
    """

    def __init__(self, action, emotion, finder: FaceFinder | None, settings: LiveSettings = LiveSettings()):
        self.action, self.emotion, self.finder, self.settings = action, emotion, finder, settings
        self.reset()

    @classmethod
    def load(cls, action_model: Path | None = None, emotion_model: Path | None = None,
             settings: LiveSettings = LiveSettings()) -> Pipeline:
        """The pipeline with the models of two artifact folders, by default the committed ones."""
        from helpers import artifacts  # TensorFlow: not before it is needed

        action = artifacts.ActionClassifier.load(action_model or artifacts.DEFAULT_ACTION)
        emotion = artifacts.EmotionClassifier.load(emotion_model or artifacts.DEFAULT_EMOTION)
        return cls(action, emotion, FaceFinder(detect_width=480), settings)

    def reset(self) -> None:
        """Forget everything: the next frame is the first of another video."""
        self._frame_index = 0
        self._forget()

    def _forget(self) -> None:
        self._shape, self._time_s = None, None
        self._tracker = FaceTracker(self.finder) if self.finder else None
        self._answer = SteadyAnswer()
        if self.action:
            self._stepper = Stepper(self.action.spec)
            self._ring = deque(maxlen=self.action.spec.length)

    def step(self, frame: np.ndarray, time_s: float, waited_ms: float = 0.0) -> FrameResult:
        """The result after `frame` (uint8 BGR (H, W, 3)) of time `time_s` (seconds, rising).

        A change of the frame's size, a step back in time or a gap longer than the action window starts afresh.
        waited_ms: how long the frame waited before this call; counts as latency.
        """
        with _MODELS_LOCK:
            started = time.perf_counter()
            stages = StageTimes()
            if self._is_a_cut(frame, time_s):
                self._forget()
            self._shape, self._time_s = frame.shape, time_s
            self._step_action(frame, time_s, stages)
            faces = self._step_faces(frame, time_s, stages)
            latency_ms = (time.perf_counter() - started) * 1e3 + waited_ms
            result = FrameResult(self._frame_index, time_s, *self._action_now(), faces, latency_ms, stages.ms)
            self._frame_index += 1
            return result

    def _is_a_cut(self, frame: np.ndarray, time_s: float) -> bool:
        if self._shape is None:
            return False
        longest = self.action.spec.window_s if self.action else 2.0
        return frame.shape != self._shape or not 0 <= time_s - self._time_s <= longest

    def _step_action(self, frame: np.ndarray, time_s: float, stages: StageTimes) -> None:
        if self.action is None:
            return
        with stages("clip step"):
            step = self._stepper.push(frame, time_s)
        if step is None:
            return
        with stages("encode"):
            self._ring.append(self.action.encode(step[None])[0])
        if len(self._ring) == self._ring.maxlen:
            with stages("lstm"):
                probabilities = self.action.classify(np.stack(self._ring)[None])[0]
            threshold = self.settings.threshold
            self._answer.update(probabilities, time_s, self.action.threshold if threshold is None else threshold,
                                self.settings)

    def _action_now(self) -> tuple[str, float, np.ndarray]:
        answer = self._answer
        if answer.probabilities is None:
            return UNSURE, 0.0, np.zeros(0, np.float32)
        if answer.index is None:
            return UNSURE, float(answer.probabilities.max()), answer.probabilities
        return self.action.labels[answer.index], float(answer.probabilities[answer.index]), answer.probabilities

    def _step_faces(self, frame: np.ndarray, time_s: float, stages: StageTimes) -> tuple[FaceResult, ...]:
        if self._tracker is None:
            return ()
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        tracks = self._tracker.update(gray, time_s, self.settings, stages)
        if tracks and self.emotion:
            with stages("align"):
                preprocessor = self.emotion.preprocessor
                crops = preprocessor.normalise(np.stack([preprocessor.crop(gray, t.landmarks) for t in tracks]))
            with stages("emotion"):
                predicted = self.emotion.predict(crops)
            for track, probabilities in zip(tracks, predicted):
                track.answer.update(probabilities, time_s, 0.0, self.settings)
        return tuple(self._face_result(track) for track in tracks)

    def _face_result(self, track: FaceTrack) -> FaceResult:
        answer = track.answer
        if answer.index is None:
            return FaceResult(track.face_id, track.box, track.landmarks, UNSURE, 0.0, np.zeros(0, np.float32))
        return FaceResult(track.face_id, track.box, track.landmarks, self.emotion.labels[answer.index],
                          float(answer.probabilities[answer.index]), answer.probabilities)


class StageTimes:
    """Books milliseconds under names: `with stages("encode"): ...`; `ms` holds the sums."""

    def __init__(self):
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str):
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3


class FrameRate:
    """Frames per second over about the last second."""

    def __init__(self):
        self._times: deque[float] = deque(maxlen=60)

    def tick(self) -> float:
        """Count a frame now; the rate, 0.0 until there are two."""
        now = time.perf_counter()
        self._times.append(now)
        while now - self._times[0] > 1.5 and len(self._times) > 2:
            self._times.popleft()
        span = now - self._times[0]
        return (len(self._times) - 1) / span if span > 0 else 0.0


# --- drawing -----------------------------------------------------------------------------------------------------

# Okabe & Ito (2008): colours that colour-blind readers can tell apart, here as BGR.
WHITE, ORANGE, SKY, GREEN = (255, 255, 255), (0, 159, 230), (233, 180, 86), (115, 158, 0)
YELLOW, BLUE, VERMILION, PURPLE = (66, 228, 240), (178, 114, 0), (0, 94, 213), (167, 121, 204)
EMOTION_COLOURS = {"angry": VERMILION, "disgust": GREEN, "fear": PURPLE, "happy": YELLOW, "neutral": WHITE,
                   "sad": BLUE, "surprise": SKY}
# Chains of the 68 points (first, last + 1, closed): jaw, brows, nose, eyes, lips.
FACE_LINES = ((0, 17, False), (17, 22, False), (22, 27, False), (27, 31, False), (31, 36, False), (36, 42, True),
              (42, 48, True), (48, 60, True), (60, 68, True))
# Pixels: a frame with a smaller side is enlarged before drawing, or no word would fit; but not beyond the second.
SMALLEST_PICTURE, LARGEST_ENLARGED = 240, 960


def draw_overlay(frame: np.ndarray, result: FrameResult, fps: float | None = None, mirror: bool = False) -> np.ndarray:
    """A new uint8 BGR picture: the frame with action, faces, emotions, frame rate and latency drawn on it.

    mirror: turn the picture left to right, as in a mirror, but not the text. The picture is as large as the frame; a
    frame less than 240 pixels wide or high is enlarged a whole number of times.
    """
    shorter, longer = sorted(frame.shape[:2])
    factor = max(1, min(math.ceil(SMALLEST_PICTURE / shorter), LARGEST_ENLARGED // longer))
    picture = cv2.flip(frame, 1) if mirror else frame.copy()
    if factor > 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    unit = min(picture.shape[:2]) / 480  # everything is drawn in this unit, so it looks the same at any size
    for face in result.faces:
        landmarks, box = face.landmarks * factor, tuple(v * factor for v in face.box)
        if mirror:
            landmarks = landmarks * (-1, 1) + (picture.shape[1] - 1, 0)
            box = (picture.shape[1] - 1 - box[0] - box[2], *box[1:])
        _draw_face(picture, face, box, landmarks, unit)
    _draw_bar(picture, result, fps, unit)
    return picture


def _draw_face(picture: np.ndarray, face: FaceResult, box: tuple, landmarks: np.ndarray, unit: float) -> None:
    colour = EMOTION_COLOURS.get(face.emotion, ORANGE)
    thickness = max(1, round(1.5 * unit))
    for first, last, closed in FACE_LINES:
        line = np.round(landmarks[first:last] * 8).astype(np.int32)  # 3 fractional bits: drawn without trembling
        cv2.polylines(picture, [line], closed, colour, max(1, round(unit)), cv2.LINE_AA, shift=3)
    x, y, width, height = box
    cv2.rectangle(picture, (x, y), (x + width, y + height), (0, 0, 0), 2 * thickness + 1)
    cv2.rectangle(picture, (x, y), (x + width, y + height), colour, thickness)
    text = f"{face.emotion} {face.confidence:.0%}" if face.probabilities.size else "face"
    bar, line_height = _bar_height(unit), round(26 * unit)
    top = y - line_height if y - line_height >= bar else min(y + height, picture.shape[0] - line_height)
    _label(picture, text, x, top, line_height)


def _draw_bar(picture: np.ndarray, result: FrameResult, fps: float | None, unit: float) -> None:
    height = _bar_height(unit)
    numbers = f"{result.latency_ms:.0f} ms" if fps is None else f"{fps:.0f} FPS  {result.latency_ms:.0f} ms"
    action = result.action.replace("_", " ")
    if result.action != UNSURE:
        action += f" {result.action_confidence:.0%}"
    _darken(picture, 0, 0, picture.shape[1], height)
    pad = round(10 * unit)
    room = picture.shape[1] - 3 * pad - _text(picture, numbers, picture.shape[1] - pad, height, 0.6 * unit, WHITE, True)
    _text(picture, action, pad, height, 0.9 * unit, ORANGE if result.action != UNSURE else WHITE, room=room)


def _bar_height(unit: float) -> int:
    return round(40 * unit)


def _label(picture: np.ndarray, text: str, x: int, top: int, height: int) -> None:
    """White text on its own dark plate, kept inside the picture."""
    scale = height / 34
    width = _text_width(text, scale) + height // 2
    x = max(0, min(x, picture.shape[1] - width))
    _darken(picture, x, top, width, height)
    _text(picture, text, x + height // 4, 2 * top + height, scale, WHITE)


def _darken(picture: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    part = picture[max(0, y):y + height, max(0, x):x + width]
    if part.size:
        part[:] = cv2.convertScaleAbs(part, alpha=0.3)


def _text(picture: np.ndarray, text: str, x: int, twice_middle: int, scale: float, colour: tuple, right: bool = False,
          room: int | None = None) -> int:
    """Draw text centred on the row `twice_middle / 2`, ending (right) or starting at x; its width in pixels."""
    text = text.replace(UNSURE, "-")  # OpenCV's fonts have no dash
    width = _text_width(text, scale)
    if room is not None and width > room > 0:
        scale, width = scale * room / width, room
    origin = (x - width if right else x, round(twice_middle / 2 + 10.5 * scale))
    thickness = max(1, round(1.8 * scale))
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return width


def _text_width(text: str, scale: float) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, round(1.8 * scale)))[0][0]


# --- recording ---------------------------------------------------------------------------------------------------

CSV_COLUMNS = ("frame", "time_s", "action", "action_confidence", "face_id", "x", "y", "w", "h", "emotion",
               "emotion_confidence", "latency_ms")
LARGEST_FILM = 4096  # pixels; larger pictures are reduced, players give up beyond
KEEP_FREE_BYTES = 50_000_000  # recording ends while the file can still be finished


def _claim(path: Path | str) -> Path:
    """Make the folder and an empty file, so that a path that cannot be written fails before anything else starts."""
    path = Path(path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("wb").close()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from None
    return path


class VideoWriter:
    """An mp4 of constant rate from frames of any rate; a context manager, playable also after an exception.

    MPEG-4 part 2 ("mp4v"): the one mp4 codec that every OpenCV wheel encodes, at 1 ms a frame (VP9 takes 126 ms, H.264
    is left out for its licence). Players show it, most browsers do not.

    path: an existing file is replaced. fps: frames per second of the file.
    Raises OutputError naming the path when it cannot be written or the disk is nearly full.
    """

    def __init__(self, path: Path | str, fps: float = DEFAULT_FPS, keep_free: int = KEEP_FREE_BYTES):
        self.path, self.fps, self.keep_free = _claim(path), fps, keep_free
        self.frames = 0
        self._writer = self._size = self._start_s = None

    def write(self, picture: np.ndarray, time_s: float | None = None) -> None:
        """Add a uint8 BGR picture. With its time, it is repeated or left out so that the film runs at true speed.

        Pictures of another size than the first are fitted into that one.
        """
        if self._writer is None:
            self._open(picture)
        if self.frames % 25 == 0 and shutil.disk_usage(self.path.parent).free < self.keep_free:
            raise OutputError(f"{self.path}: the disk is nearly full, recording ended. What was recorded plays.")
        fitted = _fit(picture, self._size)
        for _ in range(self._copies(time_s)):
            self._writer.write(fitted)
            self.frames += 1

    def _open(self, picture: np.ndarray) -> None:
        scale = min(1.0, LARGEST_FILM / max(picture.shape[:2]))
        sides = (max(2, math.ceil(side * scale)) for side in picture.shape[1::-1])
        self._size = tuple(side + side % 2 for side in sides)  # the codec wants even ones
        self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*"mp4v"), self.fps, self._size)
        if not self._writer.isOpened():
            raise OutputError(f"{self.path}: OpenCV cannot write such a video. Use a name that ends in .mp4.")

    def _copies(self, time_s: float | None) -> int:
        if time_s is None:
            return 1
        if self._start_s is None:
            self._start_s = time_s
        due = round((time_s - self._start_s) * self.fps) + 1 - self.frames
        if not 0 <= due <= 2 * self.fps:  # another clip or a long pause: carry on from here
            self._start_s = time_s - self.frames / self.fps
            return 1
        return due

    def close(self) -> None:
        """Finish the file; safe to call again. Without any frame no file is left."""
        if self._writer is not None:
            self._writer.release()
        if self.frames == 0:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture inside size (width, height), not distorted, the rest black."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    scale = min(size[0] / width, size[1] / height)
    if not 1 <= scale < 1.1:  # up to 1.1: only padded to even sides
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    right, bottom = size[0] - width, size[1] - height
    return cv2.copyMakeBorder(picture, bottom // 2, bottom - bottom // 2, right // 2, right - right // 2,
                              cv2.BORDER_CONSTANT)


class TimelineWriter:
    """The timeline as csv (`CSV_COLUMNS`): a row per face, or one with empty face columns; a context manager.

    Rows reach the file at once. Raises OutputError naming the path.
    """

    def __init__(self, path: Path | str):
        self.path = _claim(path)
        self._file = self.path.open("w", newline="", encoding="utf-8", buffering=1)
        self._rows = csv.writer(self._file)
        self._rows.writerow(CSV_COLUMNS)

    def write(self, result: FrameResult) -> None:
        start = (result.frame_index, f"{result.time_s:.3f}", result.action, f"{result.action_confidence:.4f}")
        end = f"{result.latency_ms:.2f}"
        faces = [(f.face_id, *f.box, f.emotion, f"{f.confidence:.4f}") for f in result.faces] or [("",) * 7]
        try:
            self._rows.writerows((*start, *face, end) for face in faces)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written any more ({error.strerror}).") from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full: what fitted is there
            pass

    def __enter__(self) -> TimelineWriter:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Recorder:
    """Video and timeline together, either may be None; a context manager."""

    def __init__(self, output: Path | str | None, csv_path: Path | str | None, fps: float):
        with ExitStack() as stack:  # when the second cannot be opened, the first is closed
            self.video = stack.enter_context(VideoWriter(output, fps)) if output else None
            self.timeline = stack.enter_context(TimelineWriter(csv_path)) if csv_path else None
            self._open = stack.pop_all()

    def write(self, picture: np.ndarray | None, result: FrameResult) -> None:
        if self.timeline:
            self.timeline.write(result)
        if self.video:
            self.video.write(picture, result.time_s)

    def close(self) -> None:
        """Finish the files; safe to call again."""
        self._open.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()


# --- a whole video -----------------------------------------------------------------------------------------------


@dataclass
class Summary:
    """What a run over one source came to; `line()` is one line that a machine can read.

    frames; seconds: wall time; latencies_ms: of the last 20,000 frames; frames_with_face; media_s: seconds of video;
    action_seconds, emotion_seconds: seconds by label; stage_ms: total milliseconds by stage; skipped: images that could
    not be read; interrupted: ended by Ctrl-C or the notebook's stop button; broken: how a camera or stream ended by
    itself, empty when it did not.
    """

    frames: int = 0
    seconds: float = 0.0
    frames_with_face: int = 0
    media_s: float = 0.0
    latencies_ms: deque = field(default_factory=lambda: deque(maxlen=20_000), repr=False)
    action_seconds: dict[str, float] = field(default_factory=dict)
    emotion_seconds: dict[str, float] = field(default_factory=dict)
    stage_ms: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    interrupted: bool = False
    broken: str = ""

    def add(self, result: FrameResult, stage_ms: dict[str, float]) -> None:
        """Count one frame; stage_ms: the stages outside the pipeline (decode, draw, write)."""
        duration = max(0.0, result.time_s - self.media_s)
        self.frames += 1
        self.frames_with_face += bool(result.faces)
        self.media_s = max(self.media_s, result.time_s)
        self.latencies_ms.append(result.latency_ms)
        self.action_seconds[result.action] = self.action_seconds.get(result.action, 0.0) + duration
        for face in result.faces:
            self.emotion_seconds[face.emotion] = self.emotion_seconds.get(face.emotion, 0.0) + duration
        for name, ms in (*result.stage_ms.items(), *stage_ms.items()):
            self.stage_ms[name] = self.stage_ms.get(name, 0.0) + ms

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def latency_mean_ms(self) -> float:
        return float(np.mean(self.latencies_ms)) if self.latencies_ms else 0.0

    @property
    def latency_p95_ms(self) -> float:
        return float(np.percentile(self.latencies_ms, 95)) if self.latencies_ms else 0.0

    @property
    def face_share(self) -> float:
        return self.frames_with_face / self.frames if self.frames else 0.0

    def line(self) -> str:
        text = (f"frames={self.frames} seconds={self.seconds:.1f} fps={self.fps:.1f} "
                f"latency_ms={self.latency_mean_ms:.1f} latency_p95_ms={self.latency_p95_ms:.1f} "
                f"frames_with_face={self.face_share:.3f}")
        return text + (f" skipped={self.skipped}" if self.skipped else "")

    def __str__(self) -> str:
        lines = [self.line()]
        for title, seconds in (("action", self.action_seconds), ("emotion", self.emotion_seconds)):
            shown = sorted(seconds.items(), key=lambda item: -item[1])
            lines.append(f"{title}: " + (", ".join(f"{label} {s:.1f} s" for label, s in shown) or "none"))
        return "\n".join(lines)


def run(source: str | int | Path, pipeline: Pipeline, output: Path | str | None = None,
        csv_path: Path | str | None = None, max_frames: int | None = None, show: bool = False,
        progress: bool = False) -> Summary:
    """Run the pipeline over a source to its end (or `max_frames`), as fast as it goes; the summary of it.

    output: annotated mp4. csv_path: timeline. show: a window, `q` ends it. progress: a bar on stderr.
    Ctrl-C, the notebook's stop button and a camera that goes away end it early with the files finished and are told in
    the summary. The source is always given back.
    Raises SourceError, OutputError or another DataError in plain words.
    """
    _refuse_overwriting(source, output, csv_path)
    summary, rate = Summary(), FrameRate()
    pipeline.reset()
    started = time.perf_counter()
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source))
        recorder = stack.enter_context(Recorder(output, csv_path, frames.fps))
        bar = stack.enter_context(_progress_bar(frames, max_frames)) if progress else None
        window = stack.enter_context(_window(frames.name)) if show else None
        try:
            for frame, time_s, stages in _timed(frames, max_frames):
                result = pipeline.step(frame, time_s)
                picture, fps = None, rate.tick()
                if output or show:
                    with stages("draw"):
                        picture = draw_overlay(frame, result, fps)
                with stages("write"):
                    recorder.write(picture, result)
                summary.add(result, stages.ms)
                if bar:
                    bar.update()
                if window and not window(picture):
                    break
        except KeyboardInterrupt:
            summary.interrupted = True
        except SourceError as error:
            if not frames.is_live:
                raise
            summary.broken = str(error)
        summary.skipped = len(frames.skipped)
    summary.seconds = time.perf_counter() - started
    return summary


def _refuse_overwriting(source, output, csv_path) -> None:
    taken = Path(str(source)).resolve()
    for path in (output, csv_path):
        if path and Path(path).resolve() == taken:
            raise OutputError(f"{path}: is the source itself and would be overwritten. Choose another name.")
    if output and csv_path and Path(output).resolve() == Path(csv_path).resolve():
        raise OutputError(f"{output}: video and timeline need two different files.")


def _timed(frames: Source, max_frames: int | None) -> Iterator[tuple[np.ndarray, float, StageTimes]]:
    """The source's frames, each with a fresh StageTimes that holds how long reading it took."""
    iterator, number = iter(frames), 0
    while max_frames is None or number < max_frames:
        stages = StageTimes()
        with stages("decode"):
            item = next(iterator, None)
        if item is None:
            return
        yield *item, stages
        number += 1


def _progress_bar(frames: Source, max_frames: int | None):
    from tqdm import tqdm

    total = min((n for n in (frames.count, max_frames) if n is not None), default=None)
    return tqdm(total=total, unit="frame", desc=frames.name)


def has_window() -> bool:
    """Whether this OpenCV and this computer can open a window."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        cv2.namedWindow("probe")
        cv2.destroyWindow("probe")
    except cv2.error:  # the headless wheel
        return False
    return True


@contextmanager
def _window(title: str):
    """A function that shows a picture and is false once `q` was pressed or the window was closed."""

    def show(picture: np.ndarray) -> bool:
        cv2.imshow(title, picture)
        key = cv2.waitKey(1) & 0xFF
        return key != ord("q") and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1

    try:
        yield show
    finally:
        cv2.destroyAllWindows()


# --- in the background -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LivePicture:
    """The newest answer of a session: annotated picture (uint8 BGR), result, frames per second, running number."""

    picture: np.ndarray
    result: FrameResult
    fps: float
    number: int


class LiveSession:
    """Runs a pipeline over a source in the background, one source at a time, and always gives the source back.

    One thread owns the source: it opens, reads and closes it. For a camera a second thread only keeps the newest frame,
    so that a slow model drops frames instead of falling behind. Every error ends up in `status`, in plain words; no
    method raises or waits for a model or a camera, except `stop(wait=True)`.

    status: a sentence for people. state: "ready", "starting", "running", "paused", "stopped" or "failed".
    latest: the newest LivePicture, None before the first. mirror: turn pictures left to right.
    opener: makes the source, by default `open_source`.
    """

    def __init__(self, pipeline: Pipeline, opener: Callable[[str], Source] = open_source, stall_s: float = STALL_S):
        self.pipeline, self.mirror, self.stall_s = pipeline, False, stall_s
        self.latest: LivePicture | None = None
        self.state, self.status = "ready", "Ready. Press Start."
        self._opener, self._lock, self._job = opener, threading.Lock(), None
        self._paused = threading.Event()
        _sessions.add(self)

    @property
    def running(self) -> bool:
        """Whether a source is open, being opened or being closed."""
        return self._job is not None and self._job.thread.is_alive()

    @property
    def recording(self) -> bool:
        return self._job is not None and self._job.recorder is not None

    def start(self, source: str | int | Path, paced: bool = True) -> bool:
        """Begin with `source`. False, and nothing happens, when it is running already.

        paced: play a file by its own clock instead of as fast as it goes.
        """
        with self._lock:
            if self.running and not self._job.stop.is_set():
                return False
            self._paused.clear()
            job = _Job(source, paced, previous=self._job.thread if self._job else None)
            job.thread = threading.Thread(target=self._work, args=(job,), name="live-session", daemon=True)
            self._job = job
            self._say(job, "starting", f"Opening {source} …")
            job.thread.start()
            return True

    def stop(self, wait: bool = True, timeout_s: float = 15.0) -> bool:
        """End; with `wait`, return when the source is given back. False when that took longer than `timeout_s`."""
        job = self._job
        if job is None:
            return True
        job.stop.set()
        if wait and job.thread is not threading.current_thread():
            job.thread.join(timeout_s)
        return not job.thread.is_alive()

    def pause(self, on: bool = True) -> None:
        """Hold the answer. A file waits; a camera goes on and what it sees meanwhile is not looked at."""
        job = self._job
        if job is None or not self.running:
            return
        (self._paused.set if on else self._paused.clear)()
        self._say(job, *("paused", "Paused.") if on else ("running", f"Running: {job.name}."))

    def record(self, output: Path | str | None, csv_path: Path | str | None = None) -> bool:
        """Write what follows to an annotated mp4 and a csv, until `stop_recording` or the end. False when not possible."""
        job = self._job
        if job is None or not self.running or job.stop.is_set():
            self.status = "Nothing to record: press Start first."
            return False
        try:
            recorder = Recorder(output, csv_path, min(job.fps, 30.0))
        except DataError as error:
            self._say(job, self.state, str(error))
            return False
        job.close_recorder()
        if not job.attach(recorder):
            return False
        self._say(job, self.state, f"Recording {output or csv_path}.")
        return True

    def stop_recording(self) -> None:
        """Finish the files; does nothing when not recording."""
        if self.recording:
            self._job.close_recorder()
            self._say(self._job, self.state, "The recording is saved.")

    def _say(self, job: _Job, state: str, status: str) -> None:
        if job is self._job:  # an old job that is still closing has no say
            self.state, self.status = state, status

    def _work(self, job: _Job) -> None:
        if job.previous is not None:
            job.previous.join()
            job.previous = None
        try:
            self._play(job)
            self._say(job, "stopped", f"Stopped; {job.name} is closed.")
        except DataError as error:
            self._say(job, "failed", str(error))
        except Exception as error:  # a model's bug, too little memory: the panel must say so and stay usable
            self._say(job, "failed", f"Stopped by an unexpected error, {type(error).__name__}: {error}")
        finally:
            job.close_recorder(for_good=True)

    def _play(self, job: _Job) -> None:
        if job.stop.is_set():
            return
        rate = FrameRate()
        self.pipeline.reset()
        with ExitStack() as stack:
            source = stack.enter_context(self._opener(job.source))
            frames = self._newest(source, job.stop) if source.is_live else self._in_order(source, job)
            stack.enter_context(closing(frames))  # ends the reader before the source is released, whatever happens
            job.name, job.fps = source.name, source.fps
            self._say(job, "running", f"Running: {source.name}.")
            for number, (frame, time_s, waited_ms) in enumerate(frames):
                if self._paused.is_set():
                    continue
                result = self.pipeline.step(frame, time_s, waited_ms)
                fps = rate.tick()
                picture = draw_overlay(frame, result, fps, self.mirror)
                self._record(job, picture, result)
                if job is self._job:
                    self.latest = LivePicture(picture, result, fps, number)

    def _record(self, job: _Job, picture: np.ndarray, result: FrameResult) -> None:
        try:
            with job.recorder_lock:
                if job.recorder is not None:
                    job.recorder.write(picture, result)
        except OutputError as error:
            job.close_recorder()
            self._say(job, self.state, str(error))

    def _in_order(self, source: Source, job: _Job) -> Iterator[tuple[np.ndarray, float, float]]:
        """Every frame, not before its time when paced; while paused none is read."""
        start = time.monotonic()
        for frame, time_s in source:
            delay = start + time_s - time.monotonic() if job.paced else 0.0
            if job.stop.wait(max(0.0, delay)):
                return
            while self._paused.is_set() and not job.stop.is_set():
                job.stop.wait(0.05)
                start = time.monotonic() - time_s
            if job.stop.is_set():
                return
            yield frame, time_s, 0.0

    def _newest(self, source: Source, stop: threading.Event) -> Iterator[tuple[np.ndarray, float, float]]:
        """The newest frame whenever asked; a reader thread throws away the others. Raises what the reader raised."""
        newest, ended, arrived = deque(maxlen=1), threading.Event(), threading.Event()
        failures: list[BaseException] = []
        done = threading.Event()
        reader = threading.Thread(target=_keep_newest, args=(source, newest, arrived, ended, done, failures),
                                  name="live-reader", daemon=True)
        reader.start()
        try:
            last = time.monotonic()
            while not stop.is_set():
                if arrived.wait(0.05):
                    arrived.clear()
                while newest:
                    frame, time_s, came = newest.popleft()
                    last = time.monotonic()
                    yield frame, time_s, (time.perf_counter() - came) * 1e3
                if ended.is_set() and not newest:
                    if failures:
                        raise failures[0]
                    return
                if time.monotonic() - last > self.stall_s:
                    raise SourceError(f"{source.name} stalled: no picture for {self.stall_s:.0f} s. Check the camera and "
                                      "the network, then press Start.")
        finally:
            done.set()
            reader.join()  # only then may the source be released


def _keep_newest(source, newest, arrived, ended, done, failures) -> None:
    try:
        for frame, time_s in source:
            newest.append((frame, time_s, time.perf_counter()))
            arrived.set()
            if done.is_set():
                return
    except Exception as error:
        failures.append(error)
    finally:
        ended.set()
        arrived.set()


class _Job:
    """One Start: its source, its thread, its way to be stopped and what it records."""

    def __init__(self, source, paced: bool, previous: threading.Thread | None):
        self.source, self.paced, self.previous = source, paced, previous
        self.name, self.fps = str(source), DEFAULT_FPS
        self.stop, self.thread = threading.Event(), None
        self.recorder, self.recorder_lock, self.ended = None, threading.Lock(), False

    def attach(self, recorder: Recorder) -> bool:
        """Record from now on; False when the job ended meanwhile (the recorder is closed then)."""
        with self.recorder_lock:
            if self.ended:
                recorder.close()
                return False
            self.recorder = recorder
            return True

    def close_recorder(self, for_good: bool = False) -> None:
        with self.recorder_lock:
            self.ended = self.ended or for_good
            if self.recorder is not None:
                self.recorder.close()
                self.recorder = None


_sessions: weakref.WeakSet[LiveSession] = weakref.WeakSet()


@atexit.register
def _stop_all_sessions() -> None:
    """At the end of the process (kernel shutdown, restart): finish files and give every camera back."""
    for session in list(_sessions):
        session.stop(wait=False)
    for session in list(_sessions):
        session.stop(timeout_s=3.0)


# --- command line ------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """The command line. Its exit code, with a message on stderr where it is not 0:

    0 done; 1 a camera or stream broke off, what came before is written; 2 input or output that cannot be used;
    130 ended by Ctrl-C, what came before is written.
    """
    options = _parser().parse_args(argv)
    show = not options.headless
    if show and not has_window():
        show = False
        print("No window can be opened here (headless OpenCV or no screen): running without.", file=sys.stderr)
    try:
        pipeline = Pipeline.load(options.action_model, options.emotion_model)
        summary = run(options.source, pipeline, options.output, options.csv, options.max_frames, show, progress=True)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(summary)
    if summary.broken:
        print(f"error: {summary.broken}", file=sys.stderr)
        return 1
    return 130 if summary.interrupted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.live", description="Actions and facial emotions in a video.")
    parser.add_argument("--source", default="demo", help="webcam number, video file, folder of images, address, or demo")
    parser.add_argument("--output", type=Path, metavar="OUT.mp4", help="annotated video")
    parser.add_argument("--csv", type=Path, metavar="OUT.csv", help="timeline, a row per frame and face")
    parser.add_argument("--headless", action="store_true", help="no window (in a window, q ends)")
    parser.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    parser.add_argument("--action-model", type=Path, metavar="DIR", help="folder of an action model")
    parser.add_argument("--emotion-model", type=Path, metavar="DIR", help="folder or file of an emotion model")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
