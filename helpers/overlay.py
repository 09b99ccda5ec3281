"""What the live system knows about a frame, drawn on it: readable on any background and size."""

from __future__ import annotations

import math

import cv2
import numpy as np

from helpers.pipeline import UNSURE, FaceResult, FrameResult

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
# Pixels: a frame with a smaller side is enlarged before drawing, or no word would fit; but not
# beyond the second.
SMALLEST_PICTURE, LARGEST_ENLARGED = 240, 960


def draw_overlay(
    frame: np.ndarray, result: FrameResult, fps: float | None = None, mirror: bool = False
) -> np.ndarray:
    """A new uint8 BGR picture: the frame with action, faces, emotions, frame rate and latency drawn
    on it.

    mirror: turn the picture left to right, as in a mirror, but not the text. The picture is as
    large as the frame; a frame less than 240 pixels wide or high is enlarged a whole number of
    times.
    """
    shorter, longer = sorted(frame.shape[:2])
    factor = max(1, min(math.ceil(SMALLEST_PICTURE / shorter), LARGEST_ENLARGED // longer))
    picture = cv2.flip(frame, 1) if mirror else frame.copy()
    if factor > 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    unit = (
        min(picture.shape[:2]) / 480
    )  # everything is drawn in this unit, so it looks the same at any size
    for face in result.faces:
        landmarks, box = face.landmarks * factor, tuple(v * factor for v in face.box)
        if mirror:
            landmarks = landmarks * (-1, 1) + (picture.shape[1] - 1, 0)
            box = (picture.shape[1] - 1 - box[0] - box[2], *box[1:])
        _draw_face(picture, face, box, landmarks, unit)
    _draw_bar(picture, result, fps, unit)
    return picture


def _draw_face(
    picture: np.ndarray, face: FaceResult, box: tuple, landmarks: np.ndarray, unit: float
) -> None:
    colour = EMOTION_COLOURS.get(face.emotion, ORANGE)
    thickness = max(1, round(1.5 * unit))
    for first, last, closed in FACE_LINES:
        line = np.round(landmarks[first:last] * 8).astype(
            np.int32
        )  # 3 fractional bits: drawn without trembling
        cv2.polylines(picture, [line], closed, colour, max(1, round(unit)), cv2.LINE_AA, shift=3)
    x, y, width, height = box
    cv2.rectangle(picture, (x, y), (x + width, y + height), (0, 0, 0), 2 * thickness + 1)
    cv2.rectangle(picture, (x, y), (x + width, y + height), colour, thickness)
    text = f"{face.emotion} {face.confidence:.0%}" if face.probabilities.size else "face"
    bar, line_height = _bar_height(unit), round(26 * unit)
    top = (
        y - line_height
        if y - line_height >= bar
        else min(y + height, picture.shape[0] - line_height)
    )
    _label(picture, text, x, top, line_height)


def _draw_bar(picture: np.ndarray, result: FrameResult, fps: float | None, unit: float) -> None:
    height = _bar_height(unit)
    numbers = (
        f"{result.latency_ms:.0f} ms"
        if fps is None
        else f"{fps:.0f} FPS  {result.latency_ms:.0f} ms"
    )
    action = result.action.replace("_", " ")
    if result.action != UNSURE:
        action += f" {result.action_confidence:.0%}"
    _darken(picture, 0, 0, picture.shape[1], height)
    pad = round(10 * unit)
    room = (
        picture.shape[1]
        - 3 * pad
        - _text(picture, numbers, picture.shape[1] - pad, height, 0.6 * unit, WHITE, True)
    )
    _text(
        picture,
        action,
        pad,
        height,
        0.9 * unit,
        ORANGE if result.action != UNSURE else WHITE,
        room=room,
    )


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
    part = picture[max(0, y) : y + height, max(0, x) : x + width]
    if part.size:
        part[:] = cv2.convertScaleAbs(part, alpha=0.3)


def _text(
    picture: np.ndarray,
    text: str,
    x: int,
    twice_middle: int,
    scale: float,
    colour: tuple,
    right: bool = False,
    room: int | None = None,
) -> int:
    """Draw text centred on the row `twice_middle / 2`, ending (right) or starting at x; its width
    in pixels.
    """
    text = text.replace(UNSURE, "-")  # OpenCV's fonts have no dash
    width = _text_width(text, scale)
    if room is not None and width > room > 0:
        scale, width = scale * room / width, room
    origin = (x - width if right else x, round(twice_middle / 2 + 10.5 * scale))
    thickness = max(1, round(1.8 * scale))
    cv2.putText(
        picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA
    )
    return width


def _text_width(text: str, scale: float) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, round(1.8 * scale)))[0][0]
