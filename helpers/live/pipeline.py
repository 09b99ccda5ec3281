"""One frame in, one action and an emotion per face out.

Every new frame is encoded once into a ring of features and only the small LSTM sees the window again. Faces are looked for in
the whole frame now and then, looked at again where they were more often, and followed by their landmarks in between.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from helpers.action.classifier import DEFAULT_ACTION, ActionClassifier
from helpers.action.clips import FrameSampler
from helpers.action.motion import halve_large
from helpers.emotion.classifier import DEFAULT_EMOTION, EmotionClassifier
from helpers.emotion.faces import FaceFinder
from helpers.live.results import UNSURE, FaceResult, FrameResult, LiveSettings
from helpers.live.smoothing import HysteresisSmoother
from helpers.live.tracking import FaceTrack, FaceTracker

_MODELS_LOCK = threading.Lock()  # the interpreters inside the models serve one caller at a time, whoever it is


class Pipeline:
    """Frame in, action and emotions out. Keeps the history that the answer needs; use one for each
    video.

    action, emotion: `ActionClassifier`, `EmotionClassifier`, or None to leave
        that half out.
    finder: `faces.FaceFinder`; None leaves faces out. settings: may be replaced at any time.
    """

    def __init__(self, action, emotion, finder: FaceFinder | None, settings: LiveSettings = LiveSettings()):
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
        action = ActionClassifier.load(action_model or DEFAULT_ACTION)
        emotion = EmotionClassifier.load(emotion_model or DEFAULT_EMOTION)
        return cls(action, emotion, FaceFinder(detect_width=640), settings)

    def reset(self) -> None:
        """Forget everything: the next frame is the first of another video."""
        self._frame_index = 0
        self._forget()

    def _forget(self) -> None:
        self._shape, self._time_s = None, None
        self._tracker = FaceTracker(self.finder) if self.finder else None
        self._answer = HysteresisSmoother()
        if self.action:
            self._sampler = FrameSampler(self.action.spec)
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
            result = FrameResult(self._frame_index, time_s, *self._action_now(), faces, latency_ms, stages.ms)
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
            return self._sampler.push(frame, time_s)

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

    def _step_faces(self, frame: np.ndarray, factor: int, time_s: float, stages: StageTimes) -> tuple[FaceResult, ...]:
        """factor: by how much `frame` was reduced; boxes and landmarks are given enlarged again."""
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
