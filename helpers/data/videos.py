"""Decoding videos: frames with their times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from helpers.errors import VideoError

FALLBACK_FPS = 25.0


def read_frames(path: Path | str) -> Iterator[tuple[np.ndarray, float]]:
    """Frames of a video file as (uint8 BGR (H, W, 3), time in seconds from the start).

    The header's frame count is not believed: frames are read until none comes. A frame rate that cannot be (below 1
    or above 240 a second) is replaced by 25. Raises VideoError when the file is missing, empty or gives no frame.
    """
    path = Path(path)
    if not path.is_file() or path.stat().st_size == 0:
        raise VideoError(f"{path}: {'empty file' if path.is_file() else 'no such file'}; replace or remove it")
    capture = cv2.VideoCapture(str(path))
    try:
        empty = True
        for frame, time_s in video_frames(capture):
            empty = False
            yield frame, time_s
    finally:
        capture.release()
    if empty:
        raise VideoError(
            f"{path}: no frame can be decoded; is it a video? Convert it (ffmpeg -i IN OUT.mp4) or remove it"
        )


def video_frames(capture: cv2.VideoCapture) -> Iterator[tuple[np.ndarray, float]]:
    """What is left of an open film as (uint8 BGR (H, W, 3), seconds); the time is counted in frames from here."""
    rate, number = frame_rate(capture), 0
    while True:
        ok, frame = capture.read()
        if not ok:
            return
        yield frame, number / rate
        number += 1


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Frames a second that the header gives, or 25 when that cannot be (below 1, above 240, not a number)."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 1 <= rate <= 240 else FALLBACK_FPS
