"""Faces followed by their landmarks from frame to frame."""

from __future__ import annotations

import math

import cv2
import numpy as np

from helpers.emotion.faces import FaceFinder, eyes_and_mouth, landmark_box
from helpers.live.results import Box, LiveSettings
from helpers.live.smoothing import HysteresisSmoother

SAME_FACE = 0.3  # two boxes that overlap by so much (intersection over union) are of one face


class FaceTrack:
    """One face in view: where it is and what it has looked like so far."""

    GROWTH = 1.5  # a face that the detector has not seen again cannot have grown or shrunk by more

    def __init__(self, face_id: int, landmarks: np.ndarray, time_s: float):
        self.face_id, self.landmarks = face_id, landmarks
        self.answer = HysteresisSmoother()
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
            and has_face_proportions(self.landmarks)
        )


def is_duplicate_track(track: FaceTrack, other: FaceTrack) -> bool:
    """Whether two tracks are on one face and `track` is the one that does not belong there: when a
    face passes in front of another, the landmarks of the hidden one slide onto it.
    """
    if track is other or iou(track.box, other.box) < 0.7:
        return False
    return (track.surprise, track.face_id) > (other.surprise, other.face_id)


def has_face_proportions(landmarks: np.ndarray) -> bool:
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

    def update(self, gray: np.ndarray, time_s: float, settings: LiveSettings, stage) -> list[FaceTrack]:
        """The faces of a uint8 gray (H, W) frame. stage: context manager that books time under a
        name.
        """
        boxes = self._boxes_when_due(gray, time_s, settings, stage)
        if boxes or self.tracks:
            with stage("landmarks"):
                self._follow(gray, boxes, time_s)
        stay = [t for t in self.tracks if t.stays(gray.shape, time_s, settings.patience_s)]
        self.tracks = [track for track in stay if not any(is_duplicate_track(track, t) for t in stay)]
        return self.tracks

    def _boxes_when_due(self, gray: np.ndarray, time_s: float, settings: LiveSettings, stage) -> list[Box]:
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
        near = sorted(((iou(face, box), face) for face in seen), reverse=True)
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
            if any(iou(track.box, box) >= SAME_FACE for track in self.tracks) or self._look_round(gray, box)
        ]

    def _follow(self, gray: np.ndarray, boxes: list[Box], time_s: float) -> None:
        """Move every track; best overlaps first, a box confirms at most one track; a box without a
        track starts one.

        A track goes on from its own landmarks, which is calmer than from the detector's box with
        its coarse steps, unless the two are far apart.
        """
        pairs = sorted(
            ((iou(track.box, box), t, b) for t, track in enumerate(self.tracks) for b, box in enumerate(boxes)),
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
        known = any(iou(other.box, track.box) >= SAME_FACE for other in self.tracks)
        if not known and iou(track.box, box) >= SAME_FACE:
            self.tracks.append(track)
            self._next_id += 1


def iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (x, y, width, height), 0..1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)
