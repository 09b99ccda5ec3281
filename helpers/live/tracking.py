"""Faces followed by their landmarks from frame to frame, each with a number of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.emotion.faces import FaceFinder, eyes_and_mouth, landmark_box
from helpers.live.detection import SAME_FACE_IOU, iou
from helpers.live.results import Box
from helpers.smoothing import HysteresisSmoother

_DUPLICATE_IOU = 0.7  # two tracks with this IoU or more are on one face
_NEAR_IOU = 0.5  # from here on a track goes on from its own landmarks and not from the detector's box
_LARGEST_GROWTH = 1.5  # of a face that the detector has not seen again


class FaceTrack:
    """One face in view: where it is and the smoothed answer about it.

    face_id: its number. landmarks: float32 (68, 2), pixels. confirmed_s: when the detector last saw it, seconds.
    surprise: how far it lately was from where it was heading, in shares of its width.
    """

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
        """Follow to new landmarks (68, 2): at once when the face moves, calmly when only the predictor trembles."""
        width, change = self.box[2], landmarks - self.landmarks
        moved = np.linalg.norm(change, axis=1).mean() / width
        self.landmarks = self.landmarks + np.float32(np.clip(moved / 0.04, 0.3, 1.0)) * change
        step = change.mean(axis=0)
        self.surprise += 0.3 * (np.linalg.norm(step - self._step) / width - self.surprise)
        self._step += 0.3 * (step - self._step)

    def stays(self, shape: tuple[int, int], time_s: float, patience_s: float) -> bool:
        """Whether this still is a face in a frame of `shape` (H, W): its centre inside it, detected not too long ago,
        of about the size it was detected with, and of a face's proportions.
        """
        x, y, width, height = self.box
        growth = width / self._confirmed_width
        return (
            0 <= x + width / 2 < shape[1]
            and 0 <= y + height / 2 < shape[0]
            and time_s - self.confirmed_s <= patience_s
            and 1 / _LARGEST_GROWTH < growth < _LARGEST_GROWTH
            and _has_face_proportions(self.landmarks)
        )


class FaceTracker:
    """Follows faces by their landmarks; a detected box confirms a track or begins a new one.

    tracks: the faces in view. finder: gives the landmarks.
    """

    def __init__(self, finder: FaceFinder):
        self.tracks: list[FaceTrack] = []
        self._finder, self._next_id = finder, 1

    def forget(self) -> None:
        """No face goes on; its number is not used again."""
        self.tracks = []

    def update(self, gray: np.ndarray, boxes: Sequence[Box], *, time_s: float, patience_s: float) -> list[FaceTrack]:
        """The tracks after a uint8 gray (H, W) frame of time `time_s` in which the detector saw `boxes`.

        patience_s: how long a track that is not detected any more is kept, in seconds.
        """
        self._follow(gray, boxes, time_s)
        stay = [track for track in self.tracks if track.stays(gray.shape, time_s, patience_s)]
        self.tracks = [track for track in stay if not any(_is_duplicate_track(track, other) for other in stay)]
        return self.tracks

    def _follow(self, gray: np.ndarray, boxes: Sequence[Box], time_s: float) -> None:
        """Move every track; best IoU first, a box confirms at most one track; a box without a track begins one.

        A track goes on from its own landmarks, which is calmer than from the detector's box with its coarse steps,
        unless the two are far apart.
        """
        pairs = sorted(
            ((iou(track.box, box), t, b) for t, track in enumerate(self.tracks) for b, box in enumerate(boxes)),
            reverse=True,
        )
        tracks, free = dict(enumerate(self.tracks)), dict(enumerate(boxes))
        for share, t, b in pairs:
            if share >= SAME_FACE_IOU and t in tracks and b in free:
                track, box = tracks.pop(t), free.pop(b)
                track.move(self._finder.landmarks(gray, track.box if share >= _NEAR_IOU else box))
                track.confirm(time_s)
        for track in tracks.values():
            track.move(self._finder.landmarks(gray, track.box))
        for box in free.values():
            self._begin(gray, box, time_s)

    def _begin(self, gray: np.ndarray, box: Box, time_s: float) -> None:
        """A new track, unless the face is known already or its landmarks are not where it is."""
        landmarks = self._finder.landmarks(gray, landmark_box(self._finder.landmarks(gray, box)))
        track = FaceTrack(self._next_id, landmarks, time_s)
        known = any(iou(other.box, track.box) >= SAME_FACE_IOU for other in self.tracks)
        if not known and iou(track.box, box) >= SAME_FACE_IOU:
            self.tracks.append(track)
            self._next_id += 1


def _is_duplicate_track(track: FaceTrack, other: FaceTrack) -> bool:
    """Whether two tracks are on one face and `track` is the one that does not belong there: when a face passes in
    front of another, the landmarks of the hidden one slide onto it.
    """
    if track is other or iou(track.box, other.box) < _DUPLICATE_IOU:
        return False
    return (track.surprise, track.face_id) > (other.surprise, other.face_id)


def _has_face_proportions(landmarks: np.ndarray) -> bool:
    """Whether landmarks (68, 2) have the proportions of a face: seen along the line of the eyes, the mouth is below
    them, by 0.4 to 2.5 times their distance (photographs of faces that look at the camera: 0.7 to 1.4; a turned head
    has more), and the head is tilted by less than 60 degrees.
    """
    left, right, mouth = eyes_and_mouth(landmarks)
    across = right - left
    distance = float(np.hypot(*across))
    if across[0] < 0.5 * distance or distance == 0:
        return False
    below = mouth - (left + right) / 2
    return 0.4 < (across[0] * below[1] - across[1] * below[0]) / distance**2 < 2.5
