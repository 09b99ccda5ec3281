"""One frame in, one action and an emotion per face out.

Every new frame is encoded once into a ring of features and only the small LSTM sees the window
again. Faces are looked for in the whole picture now and then, looked at again where they were more
often, and followed by their landmarks in between.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from helpers.clips import Stepper, halve_large
from helpers.faces import FaceFinder, eyes_and_mouth, landmark_box

UNSURE = "–"  # shown instead of an action when the window is not full or none is likely enough


@dataclass(frozen=True, eq=False)
class FaceResult:
    """One face of one frame.

    face_id: the same for as long as the face stays in view, never used again. box: (x, y, width,
    height) in pixels, may reach outside. landmarks: float32 (68, 2) pixels. emotion: label, or "–"
    without an emotion model. confidence and probabilities (C,): smoothed over time, 0..1.
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

    action: label, or "–" when the window is not full or no action is likely enough.
    action_confidence: of that label, of the likeliest one for "–". action_probabilities: (C,)
        smoothed, empty until the window is full.
    latency_ms: from the arrival of the decoded frame to this result: what it waited for the
        pipeline and for the models, and all stages. stage_ms: milliseconds by stage, only the
        stages that ran.
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
    hysteresis: a shown label leaves only when it falls so far below the threshold or another leads
        by so much.
    smoothing_s: time constant of the exponential smoothing of all probabilities, in seconds; 0
        turns it off.
    detect_every_s: time between two looks for faces in the whole picture: a new face is found
        within it.
    look_every_s: time between two quick looks: round every face in view, and for large faces in
        the whole picture at half its size while there is no face or one was not seen.
    patience_s: how long a face that the detector no longer sees is kept.
    """

    threshold: float | None = None
    hysteresis: float = 0.1
    smoothing_s: float = 0.4
    detect_every_s: float = 1.0
    look_every_s: float = 0.2
    patience_s: float = 1.0

    def __post_init__(self):
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in 0..1, got {self.threshold}")
        for name in ("hysteresis", "smoothing_s", "detect_every_s", "look_every_s", "patience_s"):
            if not 0 <= getattr(self, name) <= 60:
                raise ValueError(f"{name} must be in 0..60, got {getattr(self, name)}")


# --- one frame ------------------------------------------------------------------------------------


class SteadyAnswer:
    """Probabilities smoothed over time and a label that does not flicker."""

    def __init__(self):
        self.probabilities: np.ndarray | None = None
        self.index: int | None = None
        self._time_s = 0.0

    def update(
        self, probabilities: np.ndarray, time_s: float, threshold: float, settings: LiveSettings
    ) -> None:
        """Take in probabilities (C,) of time `time_s`; `index` is the label to show, None below
        `threshold`.
        """
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


Box = tuple[int, int, int, int]  # (x, y, width, height) in pixels
SAME_FACE = 0.3  # two boxes that overlap by so much (intersection over union) are of one face


class FaceTrack:
    """One face in view: where it is and what it has looked like so far."""

    GROWTH = 1.5  # a face that the detector has not seen again cannot have grown or shrunk by more

    def __init__(self, face_id: int, landmarks: np.ndarray, time_s: float):
        self.face_id, self.landmarks = face_id, landmarks
        self.answer = SteadyAnswer()
        self.surprise, self._step = 0.0, np.zeros(2, np.float32)
        self.confirm(time_s)

    @property
    def box(self) -> Box:
        return landmark_box(self.landmarks)

    def confirm(self, time_s: float) -> None:
        """The detector has seen the face where the landmarks are."""
        self.confirmed_s, self._confirmed_width = time_s, self.box[2]

    def move(self, landmarks: np.ndarray) -> None:
        """Follow to new landmarks (68, 2): at once when the face moves, calmly when only the
        predictor trembles. `surprise` is how far it lately was from where it was heading.
        """
        width, change = self.box[2], landmarks - self.landmarks
        moved = np.linalg.norm(change, axis=1).mean() / width
        self.landmarks = self.landmarks + np.float32(np.clip(moved / 0.04, 0.3, 1.0)) * change
        step = change.mean(axis=0)
        self.surprise += 0.3 * (np.linalg.norm(step - self._step) / width - self.surprise)
        self._step += 0.3 * (step - self._step)

    def stays(self, shape: tuple[int, int], time_s: float, patience_s: float) -> bool:
        """Whether this still is a face in a picture of `shape` (H, W): its centre inside it, seen
        not too long ago, of about the size it was seen with, and built like a face.
        """
        x, y, width, height = self.box
        growth = width / self._confirmed_width
        return (
            0 <= x + width / 2 < shape[1]
            and 0 <= y + height / 2 < shape[0]
            and time_s - self.confirmed_s <= patience_s
            and 1 / self.GROWTH < growth < self.GROWTH
            and built_like_a_face(self.landmarks)
        )


def slid_onto(track: FaceTrack, other: FaceTrack) -> bool:
    """Whether two tracks are on one face and `track` is the one that does not belong there: when a
    face passes in front of another, the landmarks of the hidden one slide onto it.
    """
    if track is other or overlap(track.box, other.box) < 0.7:
        return False
    return (track.surprise, track.face_id) > (other.surprise, other.face_id)


def built_like_a_face(landmarks: np.ndarray) -> bool:
    """Whether landmarks (68, 2) have the proportions of a face: seen along the line of the eyes, the
    mouth is below them, by 0.4 to 2.5 times their distance (photographs of faces that look at the
    camera: 0.7 to 1.4; a turned head has more), and the head is tilted by less than 60 degrees.
    """
    left, right, mouth = eyes_and_mouth(landmarks)
    across = right - left
    distance = float(np.hypot(*across))
    if across[0] < 0.5 * distance or distance == 0:
        return False
    below = mouth - (left + right) / 2
    return 0.4 < (across[0] * below[1] - across[1] * below[0]) / distance**2 < 2.5


class FaceTracker:
    """Looks for faces now and then, follows them by their landmarks on every frame, gives each a
    lasting number.
    """

    # A look round a box: the side in pixels that the box then has, and how much is seen of its
    # surroundings, in sides. dlib's detector was trained on faces of 80 pixels.
    LOOK_SIDE, LOOK_ROOM = 95, 1.6

    def __init__(self, finder: FaceFinder):
        self.finder = finder
        self.tracks: list[FaceTrack] = []
        self._next_id, self._detected_s, self._looked_s = 1, -math.inf, -math.inf

    def update(
        self, gray: np.ndarray, time_s: float, settings: LiveSettings, stage
    ) -> list[FaceTrack]:
        """The faces of a uint8 gray (H, W) frame. stage: context manager that books time under a
        name.
        """
        boxes = self._boxes_when_due(gray, time_s, settings, stage)
        if boxes or self.tracks:
            with stage("landmarks"):
                self._follow(gray, boxes, time_s)
        stay = [t for t in self.tracks if t.stays(gray.shape, time_s, settings.patience_s)]
        self.tracks = [track for track in stay if not any(slid_onto(track, t) for t in stay)]
        return self.tracks

    def _boxes_when_due(
        self, gray: np.ndarray, time_s: float, settings: LiveSettings, stage
    ) -> list[Box]:
        """What the detector sees now; nothing on a frame on which it is not due."""
        if time_s - self._detected_s >= settings.detect_every_s - 1e-6:
            self._detected_s = self._looked_s = time_s
            with stage("detect"):
                return self._without_doubtful(gray, self.finder.detect(gray))
        if time_s - self._looked_s >= settings.look_every_s - 1e-6:
            self._looked_s = time_s
            with stage("look"):
                return self._look(gray)
        return []

    def _look(self, gray: np.ndarray) -> list[Box]:
        """Round every known face; and for large faces everywhere when that is not enough."""
        near = [self._look_round(gray, track.box) for track in self.tracks]
        boxes = [seen[0] for seen in near if seen]
        if near and all(near):
            return boxes
        width = min(self.finder.detect_width or gray.shape[1], gray.shape[1]) // 2
        large = self._detect_at(gray, width / gray.shape[1])
        return boxes + self._without_doubtful(gray, large)

    def _look_round(self, gray: np.ndarray, box: Box) -> list[Box]:
        """What the detector sees near a box when the picture round it has a size it likes."""
        x, y, width, height = box
        room = (self.LOOK_ROOM - 1) / 2
        left, top = max(0, round(x - room * width)), max(0, round(y - room * height))
        part = gray[top : round(y + (1 + room) * height), left : round(x + (1 + room) * width)]
        seen = self._detect_at(part, self.LOOK_SIDE / width)
        seen = [(face[0] + left, face[1] + top, *face[2:]) for face in seen]
        near = sorted(((overlap(face, box), face) for face in seen), reverse=True)
        return [face for share, face in near if share >= SAME_FACE]

    def _detect_at(self, gray: np.ndarray, scale: float) -> list[Box]:
        """Face boxes in pixels of a gray picture, found in a copy that is `scale` times as large."""
        size = [round(side * scale) for side in gray.shape[::-1]]
        if min(size) < 1:
            return []
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        found = self.finder.detect(cv2.resize(gray, size, interpolation=how))
        return [tuple(round(side / scale) for side in box) for box in found]

    def _without_doubtful(self, gray: np.ndarray, boxes: list[Box]) -> list[Box]:
        """The boxes of known faces, and of new ones those that a second look at another scale
        sees, too: a chance pattern rarely survives that.
        """
        return [
            box
            for box in boxes
            if any(overlap(track.box, box) >= SAME_FACE for track in self.tracks)
            or self._look_round(gray, box)
        ]

    def _follow(self, gray: np.ndarray, boxes: list[Box], time_s: float) -> None:
        """Move every track; best overlaps first, a box confirms at most one track; a box without a
        track starts one.

        A track goes on from its own landmarks, which is calmer than from the detector's box with
        its coarse steps, unless the two are far apart.
        """
        pairs = sorted(
            (
                (overlap(track.box, box), t, b)
                for t, track in enumerate(self.tracks)
                for b, box in enumerate(boxes)
            ),
            reverse=True,
        )
        tracks, free = dict(enumerate(self.tracks)), dict(enumerate(boxes))
        for share, t, b in pairs:
            if share >= SAME_FACE and t in tracks and b in free:
                track, box = tracks.pop(t), free.pop(b)
                track.move(self.finder.landmarks(gray, track.box if share >= 0.5 else box))
                track.confirm(time_s)
        for track in tracks.values():
            track.move(self.finder.landmarks(gray, track.box))
        for box in free.values():
            self._begin(gray, box, time_s)

    def _begin(self, gray: np.ndarray, box: Box, time_s: float) -> None:
        """A new track, unless the face is known already or its landmarks are not where it is."""
        landmarks = self.finder.landmarks(gray, landmark_box(self.finder.landmarks(gray, box)))
        track = FaceTrack(self._next_id, landmarks, time_s)
        known = any(overlap(other.box, track.box) >= SAME_FACE for other in self.tracks)
        if not known and overlap(track.box, box) >= SAME_FACE:
            self.tracks.append(track)
            self._next_id += 1


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (x, y, width, height), 0..1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


_MODELS_LOCK = (
    threading.Lock()
)  # the interpreters inside the models serve one caller at a time, whoever it is


class Pipeline:
    """Frame in, action and emotions out. Keeps the history that the answer needs; use one for each
    video.

    action, emotion: `artifacts.ActionClassifier`, `artifacts.EmotionClassifier`, or None to leave
        that half out.
    finder: `faces.FaceFinder`; None leaves faces out. settings: may be replaced at any time.
    """

    def __init__(
        self, action, emotion, finder: FaceFinder | None, settings: LiveSettings = LiveSettings()
    ):
        self.action, self.emotion, self.finder, self.settings = action, emotion, finder, settings
        self.reset()

    @classmethod
    def load(
        cls,
        action_model: Path | None = None,
        emotion_model: Path | None = None,
        settings: LiveSettings = LiveSettings(),
    ) -> Pipeline:
        """The pipeline with the models of two artifact folders, by default the committed ones."""
        from helpers import artifacts  # TensorFlow: not before it is needed

        action = artifacts.ActionClassifier.load(action_model or artifacts.DEFAULT_ACTION)
        emotion = artifacts.EmotionClassifier.load(emotion_model or artifacts.DEFAULT_EMOTION)
        return cls(action, emotion, FaceFinder(detect_width=640), settings)

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

        A change of the frame's size, a step back in time or a gap longer than the action window
        starts afresh. Large frames are reduced first (see `clips.halve_large`); faces are given in
        the frame's own pixels.
        waited_ms: how long the frame waited before this call; counts as latency.
        """
        started = time.perf_counter()  # waiting for the models counts, too
        with _MODELS_LOCK:
            stages = StageTimes()
            if self._is_a_cut(frame, time_s):
                self._forget()
            self._shape, self._time_s = frame.shape, time_s
            small, factor = halve_large(frame)
            step = self._clip_step(small, time_s, stages)
            if step is None:
                faces = self._step_faces(small, factor, time_s, stages)
            else:  # neither half needs the other: on two cores the frames that encode take a third less time
                with ThreadPoolExecutor(1, "live-action") as beside:
                    action = beside.submit(self._step_action, step, time_s, stages)
                    faces = self._step_faces(small, factor, time_s, stages)
                action.result()  # raises what was raised there
            latency_ms = (time.perf_counter() - started) * 1e3 + waited_ms
            result = FrameResult(
                self._frame_index, time_s, *self._action_now(), faces, latency_ms, stages.ms
            )
            self._frame_index += 1
            return result

    def _is_a_cut(self, frame: np.ndarray, time_s: float) -> bool:
        if self._shape is None:
            return False
        longest = self.action.spec.window_s if self.action else 2.0
        return frame.shape != self._shape or not 0 <= time_s - self._time_s <= longest

    def _clip_step(self, frame: np.ndarray, time_s: float, stages: StageTimes) -> np.ndarray | None:
        if self.action is None:
            return None
        with stages("clip step"):
            return self._stepper.push(frame, time_s)

    def _step_action(self, step: np.ndarray, time_s: float, stages: StageTimes) -> None:
        with stages("encode"):
            self._ring.append(self.action.encode(step[None])[0])
        if len(self._ring) == self._ring.maxlen:
            with stages("lstm"):
                probabilities = self.action.classify(np.stack(self._ring)[None])[0]
            threshold = self.settings.threshold
            self._answer.update(
                probabilities,
                time_s,
                self.action.threshold if threshold is None else threshold,
                self.settings,
            )

    def _action_now(self) -> tuple[str, float, np.ndarray]:
        answer = self._answer
        if answer.probabilities is None:
            return UNSURE, 0.0, np.zeros(0, np.float32)
        if answer.index is None:
            return UNSURE, float(answer.probabilities.max()), answer.probabilities
        return (
            self.action.labels[answer.index],
            float(answer.probabilities[answer.index]),
            answer.probabilities,
        )

    def _step_faces(
        self, frame: np.ndarray, factor: int, time_s: float, stages: StageTimes
    ) -> tuple[FaceResult, ...]:
        """factor: by how much `frame` was reduced; boxes and landmarks are given enlarged again."""
        if self._tracker is None:
            return ()
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        tracks = self._tracker.update(gray, time_s, self.settings, stages)
        if tracks and self.emotion:
            with stages("align"):
                preprocessor = self.emotion.preprocessor
                crops = preprocessor.normalise(
                    np.stack([preprocessor.crop(gray, t.landmarks) for t in tracks])
                )
            with stages("emotion"):
                predicted = self.emotion.predict(crops)
            for track, probabilities in zip(tracks, predicted, strict=True):
                track.answer.update(probabilities, time_s, 0.0, self.settings)
        return tuple(self._face_result(track, factor) for track in tracks)

    def _face_result(self, track: FaceTrack, factor: int) -> FaceResult:
        answer = track.answer
        landmarks = track.landmarks if factor == 1 else (track.landmarks + 0.5) * factor - 0.5
        known = answer.index is not None
        return FaceResult(
            track.face_id,
            tuple(factor * side for side in track.box),
            landmarks,
            self.emotion.labels[answer.index] if known else UNSURE,
            float(answer.probabilities[answer.index]) if known else 0.0,
            answer.probabilities if known else np.zeros(0, np.float32),
        )


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
