"""Video files: frames with their times, and an mp4 that is written whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from helpers.data.files import has_utf8_name, printable, whole_file, why_unreadable
from helpers.data.images import why_unusable
from helpers.errors import VideoError

FALLBACK_FPS = 25.0
FASTEST_FPS = 1000.0  # slow motion of phones is recorded at 240 and more
_SHORTEST_GAP_S = 0.5 / FASTEST_FPS
_LONGEST_GAP_S = 600.0  # a screen recording may show nothing new for minutes; more is a damaged time
# Frames in a row that cannot be decoded, after which a video is over: fewer where its header tells of no more frames.
_MOST_FAILURES, _MOST_FAILURES_AT_END = 1000, 50
_TOLD_SHARE = 0.9  # a video that ends before this share of what its header tells was cut off
_LONGEST_TRIAL_S = 3.0  # or after so long: each may wait for a server

cv2.utils.logging.setLogLevel(0)  # files that cannot be decoded are reported here, in better words


def open_video(path: Path | str) -> cv2.VideoCapture:
    """An open video file: the only place that gives a file to cv2.VideoCapture. The caller releases it.

    Raises VideoError for what OpenCV crashes, waits or fails on: no regular file, an empty one, a name that is not
    UTF-8, no video, frames too large or too narrow.
    """
    path = Path(path)
    why = why_unreadable(path)
    if not why and path.stat().st_size == 0:
        why = "empty file; replace or remove it"
    if why:
        raise VideoError(f"{printable(path)}: {why}")
    capture = cv2.VideoCapture(str(path))
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if capture.isOpened() and (why := why_unusable(width, height)):
        capture.release()
        raise VideoError(f"{path}: {why}")
    return capture


def read_frames(path: Path | str, damaged: list[int] | None = None) -> Iterator[tuple[np.ndarray, float]]:
    """Frames of a video file as (uint8 BGR (H, W, 3), time in seconds from the first frame).

    The header's frame count is not believed: frames are read until none comes. damaged: gets the number (from 0) of
    every frame that cannot be decoded and is left out; but damage in the last frames looks like the end. Counting does
    not tell it, since whole files, too, hold packets without a frame (UT-Interaction's videos two or three each).
    Raises VideoError as `open_video` does, and when the file gives no frame.
    """
    capture = open_video(path)
    try:
        empty = True
        for frame, time_s in video_frames(capture, damaged):
            empty = False
            yield frame, time_s
    finally:
        capture.release()
    if empty:
        raise VideoError(
            f"{path}: no frame can be decoded; is it a video? Convert it (ffmpeg -i IN OUT.mp4) or remove it"
        )


def video_frames(capture: cv2.VideoCapture, damaged: list[int] | None = None) -> Iterator[tuple[np.ndarray, float]]:
    """What is left of an open video as `read_frames` gives it; the time counts from here.

    A video of constant rate keeps the times of its header, frame by frame. From the first frame for which the decoder
    says something else, by more than half a frame, the decoder's times hold (variable rate, wrong header).
    """
    clock, told = _VideoClock(frame_rate(capture)), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    number, failures, since = 0, [], 0.0
    while not failures or time.monotonic() - since < _LONGEST_TRIAL_S:
        if len(failures) >= (_MOST_FAILURES if number < told else _MOST_FAILURES_AT_END):
            return
        ok, frame = capture.read()
        if ok:
            if damaged is not None:
                damaged.extend(failures)  # a frame follows, so this was not the end
            failures = []
            yield frame, clock.time_of(number, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        else:
            since = since if failures else time.monotonic()
            failures.append(number)
        number += 1


class _VideoClock:
    """Times that never run backwards: from the header's rate while the decoder agrees with it, then the decoder's."""

    def __init__(self, rate: float):
        self._rate, self._constant = rate, True
        self._start = self._position = 0.0
        self._time: float | None = None

    def time_of(self, number: int, position: float) -> float:
        """Seconds since the first frame. number: of the frame; position: what the decoder says, in seconds."""
        gap, self._position = position - self._position, position
        if self._time is None:
            self._start, self._time = position - number / self._rate, number / self._rate
            return self._time
        if _SHORTEST_GAP_S < gap < _LONGEST_GAP_S:
            self._constant &= abs(position - self._start - number / self._rate) < 0.5 / self._rate
            told = number / self._rate if self._constant else position - self._start
        else:  # the decoder does not know, or jumps: one frame later, and its times count on from there
            told = number / self._rate if self._constant else self._time + 1 / self._rate
            self._start = position - told
        self._time = max(told, self._time + 1e-6)
        return self._time


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Frames a second that the header gives, or 25 when that cannot be (below 1, above 1000, not a number)."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 1 <= rate <= FASTEST_FPS else FALLBACK_FPS


def shortfall(path: Path | str, last_s: float) -> str:
    """How a video ended long before the end that its header tells, in words; empty otherwise.

    last_s: time of the last frame that could be read, in seconds.
    """
    capture = open_video(path)
    rate, count = frame_rate(capture), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    if not 0 < count < 1e8 or last_s + 1 / rate >= _TOLD_SHARE * count / rate:
        return ""
    return f"ends after {last_s:.1f} of {count / rate:.1f} s: it was cut off, is damaged, or its header is wrong"


def write_video(path: Path | str, frames: Iterable[np.ndarray], fps: float = 25, *, codec: str | None = None) -> Path:
    """Write uint8 BGR (H, W, 3) frames of one size to `path`, all of them or no file; returns the path.

    It is written beside its place, read back, and renamed: OpenCV does not tell when a disk is full. codec: a FourCC
    that fits the suffix; "MJPG" for .avi and "mp4v" for others unless told. Raises VideoError when there is no frame or
    not every frame can be read back, and for a name that is not UTF-8.
    """
    path = Path(path)
    codec = codec or ("MJPG" if path.suffix.lower() == ".avi" else "mp4v")
    if not has_utf8_name(path):
        raise VideoError(f"{printable(path)}: its name is not UTF-8; choose another")
    writer, count = None, 0
    with whole_file(path) as part:
        try:
            for frame in frames:
                if writer is None:
                    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*codec), fps, frame.shape[1::-1])
                writer.write(frame)
                count += 1
        finally:
            if writer is not None:
                writer.release()
        if not count:
            raise VideoError(f"{path}: no frames to write")
        if _count_frames(part) != count:
            raise VideoError(f"{path}: cannot be written; is the disk full, or does {codec} not fit the name?")
    return path


def _count_frames(path: Path) -> int:
    try:
        return sum(1 for _ in read_frames(path))
    except VideoError:
        return 0
