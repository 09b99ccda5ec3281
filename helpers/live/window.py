"""The window of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np


def has_window() -> bool:
    """Whether this OpenCV and this computer can open a window. A process of its own tries it: where there is no
    screen, the window library ends the process that asks.
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    probe = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
    try:
        return subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def open_window(title: str) -> Iterator[Callable[[np.ndarray], bool]]:
    """A function that shows a uint8 BGR frame and is false once `q` was pressed or the window was closed."""

    def show(image: np.ndarray) -> bool:
        cv2.imshow(title, image)
        key = cv2.waitKey(1) & 0xFF
        return key != ord("q") and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1

    try:
        yield show
    finally:
        cv2.destroyAllWindows()
