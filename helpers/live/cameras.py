"""Cameras and network streams: opening them, reading on through short failures, reconnecting."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from helpers.errors import SourceError

STALL_S = 5.0  # one read or one attempt to open takes at most so long
RECONNECT_S = 10.0  # without a frame: after so long a camera or stream is given up
_READS_BEFORE_REOPENING = 10  # a damaged frame costs one read, a connection that is gone costs all
_FIRST_FRAME_S = 2.0  # some webcams fail to read until they have warmed up
_RETRY_S = 0.1  # between two failed reads
_MOST_LISTED = 10  # numbers that are tried where the system has no list
_LARGEST_CAMERA = 99  # OpenCV takes larger numbers for the name of a driver

os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{STALL_S:.0f}")  # webcams on Linux


class Camera:
    """A webcam or a network stream that shows what happens now.

    address: number of a webcam, or an address. name: for messages, without a password.
    gaps: (what, reason) of every interruption that was survived. stopping: when set, waiting ends.
    Raises SourceError in plain words when it cannot be opened.
    """

    def __init__(self, address: int | str, name: str):
        self.name, self.gaps, self.stopping = name, [], threading.Event()
        self._address = address
        self._capture = self._open()
        if not self._capture.isOpened():
            self.close()
            raise SourceError(self._why_nothing_comes())

    @property
    def capture(self) -> cv2.VideoCapture:
        return self._capture

    def close(self) -> None:
        """Give the camera back; safe to call again."""
        self._capture.release()

    def frames(self) -> Iterator[tuple[np.ndarray, float]]:
        """(frame, seconds since the first one); ends when `stopping` is set.

        Failed reads are repeated, and the camera is opened again, until nothing came for `RECONNECT_S` (before the
        first frame: for two seconds): then SourceError.
        """
        begun, first, last = time.monotonic(), None, None
        failures, longest_s = 0, 0.0
        while not self.stopping.is_set():
            asked = time.monotonic()
            ok, frame = self._capture.read()
            now = time.monotonic()
            if ok:
                first = now if first is None else first
                if failures and last is not None:
                    self.gaps.append((f"{self.name} at {now - first:.1f} s", f"no frame for {now - last:.1f} s"))
                last, failures, longest_s = now, 0, 0.0
                yield frame, now - first
                continue
            failures, longest_s = failures + 1, max(longest_s, now - asked)
            if first is None:
                if now - begun > _FIRST_FRAME_S:
                    raise SourceError(self._why_nothing_comes())
                self.stopping.wait(_RETRY_S)
                continue
            stalled = longest_s > 0.9 * STALL_S
            if now - last > RECONNECT_S:
                raise SourceError(self._why_it_ended(now - last, stalled))
            if stalled or failures % _READS_BEFORE_REOPENING == 0:
                self._reopen()
            self.stopping.wait(_RETRY_S)

    def _open(self) -> cv2.VideoCapture:
        if isinstance(self._address, int):
            capture = cv2.VideoCapture(min(self._address, _LARGEST_CAMERA))
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old frames are worthless
            return capture
        limit_ms = int(STALL_S * 1000)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
        return cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, limits)

    def _reopen(self) -> None:
        self._capture.release()
        self._capture = self._open()

    def _why_nothing_comes(self) -> str:
        if isinstance(self._address, str):
            return f"{self.name} gives no video. Check the address, the network and that the camera is on."
        if sys.platform == "linux" and not Path(f"/dev/video{self._address}").exists():
            return (
                f"No camera {self._address} on the computer where Python runs. Plug one in, try another "
                "number, or use a video file or the demo clip."
            )
        return (
            f"Camera {self._address} gives no frame. Close other programs that use it (video calls, another "
            "notebook), allow Python to use the camera, or try another number."
        )

    def _why_it_ended(self, missing_s: float, stalled: bool) -> str:
        if stalled:
            return f"{self.name} stalled: no frame for {missing_s:.0f} s. Check the camera and the network."
        return f"{self.name} stopped delivering frames: unplugged, switched off, or taken by another program?"


def list_cameras() -> list[tuple[int, str]]:
    """(number, name and size of its frames) of every camera of this computer that can be opened now."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # numbers without a camera are no news
    if sys.platform == "linux":
        nodes = (re.fullmatch(r"video(\d+)", path.name) for path in Path("/dev").glob("video*"))
        numbers = sorted(int(node[1]) for node in nodes if node)
    else:
        numbers = range(_MOST_LISTED)
    found = []
    for number in numbers:
        capture = cv2.VideoCapture(number)
        if capture.isOpened():
            width, height = (capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
            found.append((number, f"{_device_name(number)}, {width:.0f}x{height:.0f}"))
        capture.release()
    return found


def _device_name(number: int) -> str:
    try:
        return Path(f"/sys/class/video4linux/video{number}/name").read_text(errors="replace").strip()
    except OSError:  # not Linux
        return f"camera {number}"
