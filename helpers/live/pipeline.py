"""One frame in, one action and an emotion per face out.

Decode -> sample -> encode -> classify; detect -> track -> align -> classify.
Every sampled frame is encoded once into a ring of features, and only the small LSTM sees the window again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from helpers.action.classifier import DEFAULT_ACTION, ActionClassifier
from helpers.action.clips import windows
from helpers.emotion.classifier import DEFAULT_EMOTION, EmotionClassifier
from helpers.emotion.faces import FaceFinder
from helpers.live.detection import DetectionSchedule
from helpers.live.results import UNSURE, FaceResult, FrameResult, LiveSettings
from helpers.live.tracking import FaceTrack, FaceTracker
from helpers.smoothing import HysteresisSmoother

_MODELS_LOCK = threading.Lock()  # the interpreters inside the models serve one caller at a time, whoever it is
_DETECT_WIDTH = 640  # pixels of the frame that the detector sees
_LARGEST_PIXELS = 4096 * 2304  # of the frame that faces are followed in
_LONGEST_GAP_S = 2.0  # between two frames of one video, without an action model


class Pipeline:
    """Frame in, action and emotions out. Keeps the history that the answer needs; use one for each video.

    action, emotion: the models, or None to leave that half out. finder: None leaves faces out.
    settings: may be replaced at any time. clock: seconds, rising, for latency and stage times; frames bring their own
        time.
    """

    def __init__(
        self,
        action: ActionClassifier | None,
        emotion: EmotionClassifier | None,
        finder: FaceFinder | None,
        *,
        settings: LiveSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.action, self.emotion, self.finder = action, emotion, finder
        self.settings, self.clock = settings or LiveSettings(), clock
        self._beside: ThreadPoolExecutor | None = None
        self.reset()

    @classmethod
    def load(
        cls,
        action_model: Path | None = None,
        emotion_model: Path | None = None,
        settings: LiveSettings | None = None,
    ) -> Pipeline:
        """The pipeline with the models of two artifact folders or files, by default the committed ones.

        Raises DataError that names the file.
        """
        action = ActionClassifier.load(action_model or DEFAULT_ACTION)
        emotion = EmotionClassifier.load(emotion_model or DEFAULT_EMOTION)
        return cls(action, emotion, FaceFinder(detect_width=_DETECT_WIDTH), settings=settings)

    def reset(self, *, is_live: bool = False) -> None:
        """Forget everything: the next frame is the first of another video, its first face number 1.

        is_live: no frame waits for a scan for small faces; otherwise two runs over a video give the same result.
        """
        self._is_live = is_live
        self._frame_index = 0
        self._tracker = FaceTracker(self.finder) if self.finder else None
        self._forget()

    def close(self) -> None:
        """Give its thread back; the next step would start another."""
        if self._beside is not None:
            self._beside.shutdown()
            self._beside = None

    def _forget(self) -> None:
        """After a cut: no face and no action goes on; face numbers do."""
        self._shape, self._time_s = None, None
        self._detection = DetectionSchedule(self.finder, is_live=self._is_live) if self.finder else None
        if self._tracker:
            self._tracker.forget()
        self._answer, self._pose = HysteresisSmoother(), None
        if self.action:
            self._sampler = self.action.sampler()
            self._features = deque(maxlen=self.action.memory)

    def step(self, frame: np.ndarray, time_s: float, waited_ms: float = 0.0) -> FrameResult:
        """The result after `frame` (uint8 BGR (H, W, 3)) of time `time_s` (seconds, rising).

        A change of the frame's size, a step back in time or a gap longer than the action window starts afresh.
        Faces are given in the frame's own pixels.
        waited_ms: how long the frame waited before this call; counts as latency.
        """
        started = self.clock()  # waiting for the models counts, too
        with _MODELS_LOCK:
            stages = StageTimes(self.clock)
            if self._is_cut(frame, time_s):
                self._forget()
            self._shape, self._time_s = frame.shape, time_s
            if not self._step_is_due(frame, time_s, stages):
                faces = self._step_faces(frame, time_s, stages)
            else:  # neither half needs the other: on two cores the frames with a time step take a third less time
                self._beside = self._beside or ThreadPoolExecutor(1, "live-action")
                action = self._beside.submit(self._step_action, frame, time_s, stages)
                try:
                    faces = self._step_faces(frame, time_s, stages)
                finally:
                    wait([action])  # the lock is for both
                action.result()  # raises what was raised there
            latency_ms = (self.clock() - started) * 1e3 + waited_ms
            pose = self._pose if self.settings.skeleton else None
            result = FrameResult(
                self._frame_index, time_s, *self._action_now(), faces, latency_ms, stages.ms, pose=pose
            )
            self._frame_index += 1
            return result

    def photograph(self, image: np.ndarray, name: str, waited_ms: float = 0.0) -> FrameResult:
        """The result for a single image (uint8 BGR (H, W, 3)): its faces, without numbers and history; no action."""
        started = self.clock()
        with _MODELS_LOCK:
            stages = StageTimes(self.clock)
            self._forget()
            faces = self._step_faces(image, None, stages)
            self._forget()
            latency_ms = (self.clock() - started) * 1e3 + waited_ms
            result = FrameResult(self._frame_index, None, *self._action_now(), faces, latency_ms, stages.ms, name)
            self._frame_index += 1
            return result

    def _is_cut(self, frame: np.ndarray, time_s: float) -> bool:
        if self._shape is None:
            return False
        longest_s = self.action.spec.window_s if self.action else _LONGEST_GAP_S
        return frame.shape != self._shape or not 0 <= time_s - self._time_s <= longest_s

    def _step_is_due(self, frame: np.ndarray, time_s: float, stages: StageTimes) -> bool:
        if self.action is None:
            return False
        with stages("clip step"):
            return self._sampler.remember(frame, time_s)

    def _step_action(self, frame: np.ndarray, time_s: float, stages: StageTimes) -> None:
        with stages("clip step"):
            step = self._sampler.look(frame, time_s)
        self._pose = getattr(step, "pose", None)
        with stages("encode"):
            self._features.append(self.action.encode([step])[0])
        if len(self._features) < self.action.shortest:
            return
        with stages("lstm"):
            probabilities = self.action.classify(windows(np.stack(self._features), self.action.spec))[0]
        threshold = self.settings.threshold
        self._answer.update(
            probabilities, time_s, self.action.threshold if threshold is None else threshold, self.settings
        )

    def _action_now(self) -> tuple[str, float, np.ndarray]:
        """(label or UNSURE, its confidence or that of the likeliest, all smoothed probabilities)."""
        index, probabilities = self._answer.index, self._answer.probabilities
        if probabilities is None:
            return UNSURE, 0.0, np.zeros(0, np.float32)
        if index is None:
            return UNSURE, float(probabilities.max()), probabilities
        return self.action.labels[index], float(probabilities[index]), probabilities

    def _step_faces(self, frame: np.ndarray, time_s: float | None, stages: StageTimes) -> tuple[FaceResult, ...]:
        """time_s: None for a photograph."""
        if self.finder is None:
            return ()
        gray, factor = _at_most_4k(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
        tracks = self._track(gray, time_s, stages)
        if tracks and self.emotion:
            with stages("align"):
                preprocessor = self.emotion.preprocessor
                crops = preprocessor.normalise(np.stack([preprocessor.crop(gray, t.landmarks) for t in tracks]))
            with stages("emotion"):
                predicted = self.emotion.predict(crops)
            smoothing = self.settings.of_faces
            for track, probabilities in zip(tracks, predicted, strict=True):
                track.answer.update(probabilities, time_s or 0.0, 0.0, smoothing)
        faces = tuple(self._face_result(track, factor) for track in tracks)
        return faces if time_s is not None else tuple(replace(face, face_id=None) for face in faces)

    def _track(self, gray: np.ndarray, time_s: float | None, stages: StageTimes) -> list[FaceTrack]:
        if time_s is None:
            boxes = self._detection.boxes_of_photograph(gray, stage=stages)
            return self._tracker.update(gray, boxes, time_s=0.0, patience_s=0.0)
        known = [track.box for track in self._tracker.tracks]
        boxes = self._detection.boxes(gray, known, time_s=time_s, settings=self.settings, stage=stages)
        if not boxes and not known:
            return []
        with stages("landmarks"):
            return self._tracker.update(gray, boxes, time_s=time_s, patience_s=self.settings.patience_s)

    def _face_result(self, track: FaceTrack, factor: int) -> FaceResult:
        """factor: by how much the frame was reduced in which the face is followed."""
        answer = track.answer
        known = answer.index is not None
        return FaceResult(
            face_id=track.face_id,
            box=tuple(factor * side for side in track.box),
            landmarks=track.landmarks if factor == 1 else (track.landmarks + 0.5) * factor - 0.5,
            emotion=self.emotion.labels[answer.index] if known else UNSURE,
            confidence=float(answer.probabilities[answer.index]) if known else 0.0,
            probabilities=answer.probabilities if known else np.zeros(0, np.float32),
        )


def _at_most_4k(gray: np.ndarray) -> tuple[np.ndarray, int]:
    """(gray, by how much it was reduced): faces of larger frames are found as in one of at most 9 megapixels."""
    factor = math.ceil(math.sqrt(gray.size / _LARGEST_PIXELS))
    if factor == 1:
        return gray, 1
    size = [max(1, side // factor) for side in gray.shape[::-1]]
    part = gray[: size[1] * factor, : size[0] * factor]
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA), factor


class StageTimes:
    """Books milliseconds under names: `with stages("encode"): ...`; `ms` holds the sums. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.ms: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def __call__(self, name: str):
        started = self._clock()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + (self._clock() - started) * 1e3
