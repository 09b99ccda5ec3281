"""When and where the face detector runs: the whole frame now and then, round the known faces more often."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import cv2
import dlib
import numpy as np

from helpers.emotion.faces import FaceFinder
from helpers.live.results import Box, LiveSettings

SAME_FACE_IOU = 0.3  # two boxes with this IoU or more are of one face

# A face is detected again in a part of the frame: its box with a margin, resized so that the box is _BOX_SIDE pixels
# wide. dlib's detector was trained on faces of 80 pixels.
_BOX_SIDE = 95
_MARGIN = 1.6  # sides of the part in sides of the box
_MARGIN_AFTER_SCAN = 2.6  # the face may have moved since the scan began
_TIME_TOLERANCE_S = 1e-6

_SCAN_EVERY_S = 1.4
# Of video, after which a scan's result is used: 0.6 s at 4K. One core that has nothing else to do takes 0.37 s.
_SCAN_S, _SCAN_S_PER_MEGAPIXEL = 0.1, 0.06

Stage = Callable[[str], AbstractContextManager]


class DetectionSchedule:
    """Runs the detector on the frames on which it is due and says where it sees faces.

    The whole frame is detected reduced to `finder.detect_width`: the smallest face that is seen there is 56 pixels
    wide *at that width*. A frame that is wider is therefore scanned as it is, too, in a thread of its own: faces of 60
    pixels are found within two seconds at any size up to 4K (96 of 96 in composed frames of 1280 to 3840 pixels). Of
    the 7 and the 6 faces that dlib finds in two group photographs all are found; the reduced frame shows 1 and 2. The
    scan of a 4K frame takes 0.4 s of one core, every 1.4 s.

    is_live: a scan that takes longer than it should is waited for by later frames, not by the stream.
    """

    def __init__(self, finder: FaceFinder, *, is_live: bool = False):
        self._finder, self._is_live, self._scan = finder, is_live, None
        self._detected_s = self._redetected_s = -math.inf

    def boxes(self, gray: np.ndarray, known: Sequence[Box], *, time_s: float, settings: LiveSettings, stage: Stage):
        """list[Box] of what the detector sees now; empty on a frame on which it is not due.

        gray: uint8 (H, W). known: boxes of the faces that are followed. time_s: of the frame, seconds.
        stage: `stage(name)` is a context manager that books time.
        """
        boxes = self._scanned(gray, known, time_s, stage)
        if time_s - self._detected_s >= settings.detect_every_s - _TIME_TOLERANCE_S:
            self._detected_s = self._redetected_s = time_s
            with stage("detect"):
                return boxes + self._confirmed(gray, self._finder.detect(gray), known)
        if time_s - self._redetected_s >= settings.redetect_every_s - _TIME_TOLERANCE_S:
            self._redetected_s = time_s
            with stage("redetect"):
                return boxes + self._redetect(gray, known)
        return boxes

    def boxes_of_photograph(self, gray: np.ndarray, *, stage: Stage) -> list[Box]:
        """Every face of a single image, uint8 gray (H, W): detected as it is, and confirmed at another scale."""
        with stage("detect"):
            self._scan = self._scan or _Scan()
            return self._confirmed(gray, self._scan.detect(gray), known=())

    def _scanned(self, gray: np.ndarray, known: Sequence[Box], time_s: float, stage: Stage) -> list[Box]:
        """New faces that a scan found and that are detected in this frame, too."""
        if self._finder.detect_width is None or gray.shape[1] <= self._finder.detect_width:
            return []
        self._scan = self._scan or _Scan()
        if not self._scan.is_due(gray, time_s, waits=not self._is_live):
            return []
        with stage("scan"):
            new = [box for box in self._scan.boxes() if not _is_known(box, known)]
            return [face for box in new for face in self._detect_near(gray, box, _MARGIN_AFTER_SCAN)[:1]]

    def _redetect(self, gray: np.ndarray, known: Sequence[Box]) -> list[Box]:
        """The known faces; and large faces anywhere when there is none or one was not seen."""
        near = [self._detect_near(gray, box) for box in known]
        boxes = [seen[0] for seen in near if seen]
        if near and all(near):
            return boxes
        width = min(self._finder.detect_width or gray.shape[1], gray.shape[1]) // 2
        large = self._detect_at(gray, width / gray.shape[1])
        return boxes + self._confirmed(gray, large, known)

    def _detect_near(self, gray: np.ndarray, box: Box, margin: float = _MARGIN) -> list[Box]:
        """What the detector sees at a box, best IoU first, when that part of the frame has a size that suits it."""
        x, y, width, height = box
        room = (margin - 1) / 2
        left, top = max(0, round(x - room * width)), max(0, round(y - room * height))
        part = gray[top : round(y + (1 + room) * height), left : round(x + (1 + room) * width)]
        seen = self._detect_at(part, _BOX_SIDE / width)
        seen = [(face[0] + left, face[1] + top, *face[2:]) for face in seen]
        near = sorted(((iou(face, box), face) for face in seen), reverse=True)
        return [face for share, face in near if share >= SAME_FACE_IOU or margin > _MARGIN]

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
        return [box for box in boxes if _is_known(box, known) or self._detect_near(gray, box)]


class _Scan:
    """The detector on whole frames as they are, one after the other, beside the stream."""

    def __init__(self):
        self._detector = dlib.get_frontal_face_detector()  # one per thread: it keeps its image
        self._found: Future | None = None
        self._begun_s = -math.inf

    def is_due(self, gray: np.ndarray, time_s: float, *, waits: bool) -> bool:
        """Whether the last scan's boxes are to be taken now. Begins the next scan, in `gray`, when it is time.

        That is a time of the video that only the frame's size decides: two runs give the same result. Without `waits`
        it is later where the machine is slower.
        """
        passed_s = time_s - self._begun_s
        if self._found is None and passed_s >= _SCAN_EVERY_S - _TIME_TOLERANCE_S:
            self._begun_s = time_s
            beside = ThreadPoolExecutor(1, "face-scan")
            self._found = beside.submit(self.detect, gray)
            beside.shutdown(wait=False)
            return False
        late_enough = passed_s >= _SCAN_S + _SCAN_S_PER_MEGAPIXEL * gray.size / 1e6
        return self._found is not None and late_enough and (waits or self._found.done())

    def boxes(self) -> list[Box]:
        """What was found in the frame in which the last scan began."""
        found, self._found = self._found.result(), None
        return found

    def detect(self, gray: np.ndarray) -> list[Box]:
        return [(r.left(), r.top(), r.width(), r.height()) for r in self._detector(gray)]


def _is_known(box: Box, known: Sequence[Box]) -> bool:
    return any(iou(other, box) >= SAME_FACE_IOU for other in known)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x, y, width, height), 0..1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)
