"""When and where the face detector runs: the whole frame now and then, round the known faces more often."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import cv2
import numpy as np

from helpers.emotion.faces import FaceFinder
from helpers.live.results import Box, LiveSettings

SAME_FACE_IOU = 0.3  # two boxes with this IoU or more are of one face

# A known face is detected again in a part of the frame: the box enlarged by _MARGIN, resized so that the box is
# _BOX_SIDE pixels wide. dlib's detector was trained on faces of 80 pixels.
_BOX_SIDE, _MARGIN = 95, 1.6
_TIME_TOLERANCE_S = 1e-6

Stage = Callable[[str], AbstractContextManager]


class DetectionSchedule:
    """Runs the detector on the frames on which it is due and says where it sees faces."""

    def __init__(self, finder: FaceFinder):
        self._finder = finder
        self._detected_s = self._redetected_s = -math.inf

    def boxes(self, gray: np.ndarray, known: Sequence[Box], *, time_s: float, settings: LiveSettings, stage: Stage):
        """list[Box] of what the detector sees now; empty on a frame on which it is not due.

        gray: uint8 (H, W). known: boxes of the faces that are followed. time_s: of the frame, seconds.
        stage: `stage(name)` is a context manager that books time.
        """
        if time_s - self._detected_s >= settings.detect_every_s - _TIME_TOLERANCE_S:
            self._detected_s = self._redetected_s = time_s
            with stage("detect"):
                return self._confirmed(gray, self._finder.detect(gray), known)
        if time_s - self._redetected_s >= settings.redetect_every_s - _TIME_TOLERANCE_S:
            self._redetected_s = time_s
            with stage("redetect"):
                return self._redetect(gray, known)
        return []

    def _redetect(self, gray: np.ndarray, known: Sequence[Box]) -> list[Box]:
        """The known faces; and large faces anywhere when there is none or one was not seen."""
        near = [self._detect_near(gray, box) for box in known]
        boxes = [seen[0] for seen in near if seen]
        if near and all(near):
            return boxes
        width = min(self._finder.detect_width or gray.shape[1], gray.shape[1]) // 2
        large = self._detect_at(gray, width / gray.shape[1])
        return boxes + self._confirmed(gray, large, known)

    def _detect_near(self, gray: np.ndarray, box: Box) -> list[Box]:
        """What the detector sees at a box, best IoU first, when that part of the frame has a size that suits it."""
        x, y, width, height = box
        room = (_MARGIN - 1) / 2
        left, top = max(0, round(x - room * width)), max(0, round(y - room * height))
        part = gray[top : round(y + (1 + room) * height), left : round(x + (1 + room) * width)]
        seen = self._detect_at(part, _BOX_SIDE / width)
        seen = [(face[0] + left, face[1] + top, *face[2:]) for face in seen]
        near = sorted(((iou(face, box), face) for face in seen), reverse=True)
        return [face for share, face in near if share >= SAME_FACE_IOU]

    def _detect_at(self, gray: np.ndarray, scale: float) -> list[Box]:
        """Face boxes in pixels of `gray`, found in a copy that is `scale` times as large."""
        size = [round(side * scale) for side in gray.shape[::-1]]
        if min(size) < 1:
            return []
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        found = self._finder.detect(cv2.resize(gray, size, interpolation=how))
        return [tuple(round(side / scale) for side in box) for box in found]

    def _confirmed(self, gray: np.ndarray, boxes: Sequence[Box], known: Sequence[Box]) -> list[Box]:
        """The boxes of known faces, and of new ones those that are detected at another scale, too: a chance pattern
        rarely is.
        """
        return [
            box
            for box in boxes
            if any(iou(other, box) >= SAME_FACE_IOU for other in known) or self._detect_near(gray, box)
        ]


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x, y, width, height), 0..1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)
