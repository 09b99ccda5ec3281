"""What the live system says about a frame and its faces, and its settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helpers.action.pose import Pose
from helpers.smoothing import Smoothing

Box = tuple[int, int, int, int]  # (x, y, width, height) in pixels
UNSURE = "–"  # shown instead of an action when the window is not full or none is likely enough


@dataclass(frozen=True, eq=False)
class FaceResult:
    """One face of one frame.

    face_id: the same for as long as the face stays in view, never used again; None in a photograph. box: (x, y, width,
    height) in pixels, may reach outside. landmarks: float32 (68, 2) pixels. emotion: label, or "–" without an emotion
    model. confidence and probabilities (C,): smoothed over time, 0..1.
    """

    face_id: int | None
    box: tuple[int, int, int, int]
    landmarks: np.ndarray
    emotion: str
    confidence: float
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class FrameResult:
    """Everything known after one frame.

    time_s: of the frame in its video; None for a photograph. photograph: its file name, "" for a frame of a video.
    action: label, or "–" when too little was seen or no action is likely enough.
    action_confidence: of that label, of the likeliest one for "–". action_probabilities: (C,)
        smoothed, empty until enough was seen; what they lack to 1 is the share of "none of these".
    pose: where the limbs are; None when nobody was found, and unless `LiveSettings.skeleton` is set.
    latency_ms: from the arrival of the decoded frame to this result: what it waited for the
        pipeline and for the models, and all stages. stage_ms: milliseconds by stage, only the
        stages that ran.
    """

    frame_index: int
    time_s: float | None
    action: str
    action_confidence: float
    action_probabilities: np.ndarray
    faces: tuple[FaceResult, ...]
    latency_ms: float
    stage_ms: dict[str, float]
    photograph: str = ""
    pose: Pose | None = None


@dataclass(frozen=True)
class LiveSettings(Smoothing):
    """The knobs of the live answer, those of its smoothing among them: of an action's; a face's is `of_faces`.

    threshold: an action below this smoothed probability is not shown; None takes the model's own.
    detect_every_s: time between two detections in the whole frame: a new face is found within it.
    redetect_every_s: time between two detections near every face in view, and of large faces in the whole frame
        while there is no face or one was not seen.
    patience_s: how long a face that the detector no longer sees is kept.
    skeleton: the limbs are drawn, where the action model sees them.
    """

    threshold: float | None = None
    detect_every_s: float = 1.0
    redetect_every_s: float = 0.2
    patience_s: float = 1.0
    skeleton: bool = False

    @property
    def of_faces(self) -> Smoothing:
        """Over half the time: a face is read in every frame, an action every 0.125 s; as many answers are averaged."""
        return Smoothing(self.hysteresis, self.smoothing_s / 2)

    def __post_init__(self):
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in 0..1, got {self.threshold}")
        for name in ("hysteresis", "smoothing_s", "detect_every_s", "redetect_every_s", "patience_s"):
            if not 0 <= getattr(self, name) <= 60:
                raise ValueError(f"{name} must be in 0..60, got {getattr(self, name)}")
