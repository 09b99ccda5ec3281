"""What the live system knows about a frame, drawn on it: readable on any background and size."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import replace

import cv2
import numpy as np

from helpers.action.pose import OUTLINE
from helpers.live.results import UNSURE, FaceResult, FrameResult

# Okabe & Ito (2008): colours that colour-blind readers can tell apart, here as BGR.
WHITE, ORANGE, SKY, GREEN = (255, 255, 255), (0, 159, 230), (233, 180, 86), (115, 158, 0)


YELLOW, BLUE, VERMILION, PURPLE = (66, 228, 240), (178, 114, 0), (0, 94, 213), (167, 121, 204)


EMOTION_COLOURS = {
    "angry": VERMILION,
    "disgust": GREEN,
    "fear": PURPLE,
    "happy": YELLOW,
    "neutral": WHITE,
    "sad": BLUE,
    "surprise": SKY,
}


# Chains of the 68 points (first, last + 1, closed): jaw, brows, nose, eyes, lips.
FACE_LINES = (
    (0, 17, False),
    (17, 22, False),
    (22, 27, False),
    (27, 31, False),
    (31, 36, False),
    (36, 42, True),
    (42, 48, True),
    (48, 60, True),
    (60, 68, True),
)


# Pixels: a frame with a smaller side is enlarged before drawing, or no word would fit; but not beyond the second.
SMALLEST_IMAGE, LARGEST_ENLARGED = 240, 960


SHADE = 0.25  # brightness left behind text: white on it has a contrast of 9 to 1 on a white background
RENEW_S = 0.3  # numbers stay so long: they are read, not watched
RATE_WINDOW_S = 1.0  # frame rate and latency are means over it


def draw_overlay(
    frame: np.ndarray, result: FrameResult, fps: float | None = None, *, mirror: bool = False
) -> np.ndarray:
    """A new uint8 BGR image: the frame with action, faces, emotions, frame rate and latency drawn on it.

    fps: frames per second, left out when None. mirror: turn the image left to right, as in a mirror, but not the
    text. The image is as large as the frame; a frame less than 240 pixels wide or high is enlarged a whole number
    of times. Every number has a field of fixed width, so nothing moves when it changes.
    """
    shorter, longer = sorted(frame.shape[:2])
    factor = max(1, min(math.ceil(SMALLEST_IMAGE / shorter), LARGEST_ENLARGED // longer))
    image = cv2.flip(frame, 1) if mirror else frame.copy()
    if factor > 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    # Everything is drawn in this unit, so it looks the same at any size; words stay readable in small images.
    unit = max(0.75, min(image.shape[:2]) / 480)
    if result.pose is not None:
        _draw_skeleton(image, result.pose.points * factor, mirror, unit)
    for face in result.faces:
        landmarks, box = face.landmarks * factor, tuple(v * factor for v in face.box)
        if mirror:
            landmarks = landmarks * (-1, 1) + (image.shape[1] - 1, 0)
            box = (image.shape[1] - 1 - box[0] - box[2], *box[1:])
        _draw_face(image, face, box, landmarks, unit)
    _draw_bar(image, result, fps, unit)
    return image


def draw_banner(frame: np.ndarray, text: str, mirror: bool = False) -> np.ndarray:
    """A new uint8 BGR image: the frame, turned left to right with `mirror`, and a dark bar with `text` at its foot."""
    image = cv2.flip(frame, 1) if mirror else frame.copy()
    unit = max(0.75, min(image.shape[:2]) / 480)
    height, pad, scale = _bar_height(unit), round(10 * unit), 0.9 * unit
    scale *= min(1.0, max(1, image.shape[1] - 2 * pad) / max(1, _width(text, scale)))
    top = image.shape[0] - height
    _darken(image, 0, top, image.shape[1], height)
    _write(image, text, pad, top, height, scale)
    return image


class Readout:
    """Holds the numbers that a person reads, so that they do not flicker: renewed every 0.3 s of the video's time.

    The rate and the latency are means over the last second. Confidence and probabilities are kept together, so that
    bars beside the image show its numbers, and as long as their label stays.
    """

    def __init__(self):
        self.fps = self.latency_ms = 0.0
        self._frames: deque[tuple[float, float]] = deque(maxlen=200)  # (arrival at the clock, latency)
        self._renewed_s, self._held = -math.inf, {}

    def steady(self, result: FrameResult) -> FrameResult:
        """`result` with the numbers to show; `fps` (0.0 until it is known) and `latency_ms` are renewed with it."""
        if result.time_s is None:  # a photograph: nothing flickers
            return result
        now = time.perf_counter()
        self._frames.append((now, result.latency_ms))
        while now - self._frames[0][0] > RATE_WINDOW_S and len(self._frames) > 2:
            self._frames.popleft()
        if not 0 <= result.time_s - self._renewed_s < RENEW_S:
            self._renewed_s, self._held = result.time_s, {}
            span = now - self._frames[0][0]
            self.fps = (len(self._frames) - 1) / span if span > 0 else 0.0
            self.latency_ms = float(np.mean([latency for _, latency in self._frames]))
        action, actions = self._held.setdefault(
            (None, result.action), (result.action_confidence, result.action_probabilities)
        )
        faces = tuple(self._steady_face(face) for face in result.faces)
        return replace(
            result, action_confidence=action, action_probabilities=actions, faces=faces, latency_ms=self.latency_ms
        )

    def _steady_face(self, face: FaceResult) -> FaceResult:
        held = self._held.setdefault((face.face_id, face.emotion), (face.confidence, face.probabilities))
        return replace(face, confidence=held[0], probabilities=held[1])


def _draw_skeleton(image: np.ndarray, points: np.ndarray, mirror: bool, unit: float) -> None:
    """points: (15, 2) pixels of the image before it was mirrored."""
    if mirror:
        points = points * (-1, 1) + (image.shape[1] - 1, 0)
    points = np.clip(points, -4000, 4000).round().astype(int)
    for start, end in OUTLINE:
        cv2.line(image, points[start].tolist(), points[end].tolist(), SKY, max(1, round(2 * unit)), cv2.LINE_AA)


def _draw_face(image: np.ndarray, face: FaceResult, box: tuple, landmarks: np.ndarray, unit: float) -> None:
    colour = EMOTION_COLOURS.get(face.emotion, ORANGE)
    thin = max(1, round(0.8 * unit))
    for first, last, closed in FACE_LINES:  # light: no rim, and 3 fractional bits, so that they do not tremble
        line = np.round(landmarks[first:last] * 8).astype(np.int32)
        cv2.polylines(image, [line], closed, colour, thin, cv2.LINE_AA, shift=3)
    x, y, width, height = box
    for shade, thickness in (((0, 0, 0), 2 * thin + 2), (colour, 2 * thin)):  # the rim is seen on any background
        cv2.rectangle(image, (x, y), (x + width, y + height), shade, thickness)
    line_height = round(26 * unit)
    lowest = image.shape[0] - line_height
    _draw_label(image, face, x, max(_bar_height(unit), min(y + height + 2 * thin, lowest)), line_height)


def _draw_label(image: np.ndarray, face: FaceResult, x: int, top: int, height: int) -> None:
    """Number, emotion and confidence on a dark plate, kept inside the image."""
    scale, pad = height / 34, height // 4
    known = face.probabilities.size > 0
    number = "" if face.face_id is None else f"#{face.face_id}"
    text = number + (f" {face.emotion} " if known else "")
    width = pad + _width(text + "100%" * known, scale) + pad
    x = max(0, min(x, image.shape[1] - width))
    _darken(image, x, top, width, height)
    _write(image, text + f"{face.confidence:.0%}" * known, x + pad, top, height, scale)


def _draw_bar(image: np.ndarray, result: FrameResult, fps: float | None, unit: float) -> None:
    """The dark bar at the top: action and its confidence at the left, frame rate and latency at the right."""
    height, pad, small, large = _bar_height(unit), round(10 * unit), 0.6 * unit, 0.9 * unit
    _darken(image, 0, 0, image.shape[1], height)
    left = image.shape[1] - pad
    fields = [(f"{min(result.latency_ms, 9999):.0f}", " ms", "000")]
    if fps is not None:
        fields.append((f"{fps:.0f}" if fps else UNSURE, " FPS", "000"))
    for number, name, widest in fields:  # from the right edge to the left
        _write(image, name, left, 0, height, small, right=True)
        left -= _width(name, small)
        _write(image, number, left, 0, height, small, right=True)
        left -= max(_width(widest, small), _width(number, small)) + pad
    known = result.action != UNSURE
    text = result.action.replace("_", " ") + " " * known
    large *= min(1.0, max(0, left - pad) / _width(text + "100%" * known, large))  # a long name is written smaller
    text += f"{result.action_confidence:.0%}" * known
    _write(image, text, pad, 0, height, large, ORANGE if known else WHITE)


def _bar_height(unit: float) -> int:
    return round(40 * unit)


def _darken(image: np.ndarray, x: int, y: int, width: int, height: int) -> None:
    part = image[max(0, y) : y + height, max(0, x) : x + width]
    if part.size:
        part[:] = cv2.convertScaleAbs(part, alpha=SHADE)


def _write(
    image: np.ndarray,
    text: str,
    x: int,
    top: int,
    height: int,
    scale: float,
    colour: tuple = WHITE,
    right: bool = False,
) -> None:
    """Draw text in the middle of the rows from `top` on, starting at x or (right) ending there."""
    origin = (x - _width(text, scale) if right else x, round(top + height / 2 + 10.5 * scale))
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, _thickness(scale), cv2.LINE_AA)


def _width(text: str, scale: float) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, _thickness(scale))[0][0]


def _thickness(scale: float) -> int:
    return max(1, round(1.8 * scale))
