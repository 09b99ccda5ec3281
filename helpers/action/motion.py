"""Optical flow with the camera's ego-motion removed, and the region of interest that moves."""

from __future__ import annotations

import cv2
import numpy as np

WORK_HEIGHT = 96  # frames are reduced to this height before motion is looked for: no source is sharper than another
NEIGHBOURHOOD = 41  # pixels of the reduced frame: contrast is brought to 1 within a square of this side
FLOW_LAG_S = 0.04  # seconds between the frames whose optical flow is taken: a waving hand must not have gone too far
FLOW_HALF = 0.5  # sides of the square per second that become half of the full scale
SUPPORT = 0.08  # of the change around a place that lets half of its speed through ("masked_flow")
SMALLEST_HALVED = (960, 1280)  # rows, columns: a frame at least so large is halved before anything looks at it


def halve_large(frame: np.ndarray) -> tuple[np.ndarray, int]:
    """A uint8 image averaged 2x2 until it is smaller than 960 rows or 1280 columns, and by how much: 1, 2, 4, ...

    4K becomes 960x540, 1280x720 stays. Motion is looked at in 96 rows and faces in 640 columns anyway. Halving first
    (OpenCV's fastest average) costs a tenth of reducing a 4K frame to 96 rows in one go.
    """
    factor = 1
    while frame.shape[0] >= SMALLEST_HALVED[0] and frame.shape[1] >= SMALLEST_HALVED[1]:
        rows, columns = frame.shape[0] // 2, frame.shape[1] // 2
        frame = cv2.resize(frame[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
        factor *= 2
    return frame, factor


def normalise_locally(gray: np.ndarray) -> np.ndarray:
    """float32 (H, W): uint8 (H, W) with mean 0 and deviation about 1 in the neighbourhood of every pixel.

    A lamp in a dark room would decide mean and deviation of the whole frame. A quarter of the frame's own deviation
    and two gray levels are added to the local one, so that the noise of an empty wall is not blown up.
    """
    gray = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 0.8)
    side = (NEIGHBOURHOOD, NEIGHBOURHOOD)
    mean = cv2.blur(gray, side)
    deviation = np.sqrt(np.maximum(cv2.blur(gray * gray, side) - mean * mean, 0))
    return (gray - mean) / (deviation + 0.25 * gray.std() + 2.0)


def flow_mask(change: np.ndarray) -> np.ndarray:
    """float32 (H, W) in 0..1: how far the optical flow at a place is to be believed. change: float32 (H, W), absolute
    differences of two frames.

    Optical flow is smooth by construction: it carries speeds into dark walls and over the noise of a weak light, where
    no difference of the frames bears them out. Half is let through where the mean change about a place, above the
    frame's median and a tenth, is SUPPORT.
    """
    support = cv2.blur(np.maximum(change - np.median(change) - 0.1, 0), (11, 11))
    return support / (support + SUPPORT)


def ego_motion_flow(camera: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 2): the optical flow in pixels that a still scene of `shape` shows when the camera moves so."""
    zoom, turn, right, down = camera
    height, width = shape
    x, y = np.arange(width, dtype=np.float32) - width / 2, np.arange(height, dtype=np.float32)[:, None] - height / 2
    return np.dstack([right + zoom * x - turn * y, down + zoom * y + turn * x])


def stabilise(image: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """An older image float32 (H, W) as the camera would see it after moving so; edges are repeated."""
    zoom, turn, right, down = camera
    height, width = image.shape
    moved = np.array(
        [
            [1 + zoom, -turn, right - zoom * width / 2 + turn * height / 2],
            [turn, 1 + zoom, down - zoom * height / 2 - turn * width / 2],
        ]
    )
    return cv2.warpAffine(image, moved, (width, height), borderMode=cv2.BORDER_REPLICATE)


def estimate_ego_motion(flow: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """(zoom, turn, right, down): what the camera did, from the optical flow float32 (H, W, 2) of a whole frame.

    zoom: share per frame. turn: radians. right, down: pixels at the centre. gray: float32 (H, W), the newer frame; a
    place without texture says nothing. Iteratively reweighted least squares on a grid (Holland & Welsch, 1977) with
    Cauchy's weights: a person who moves against the background is an outlier.
    """
    height, width = gray.shape
    rows = np.linspace(2, height - 3, 12).round().astype(int)
    columns = np.linspace(2, width - 3, 16).round().astype(int)
    grid = np.ix_(rows, columns)
    edges = cv2.magnitude(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    texture = cv2.blur(edges, (7, 7))[grid].ravel()
    trust = np.minimum(texture, 2 * np.median(texture)) + 1e-3
    x, y = np.meshgrid(columns - width / 2, rows - height / 2)
    x, y, one, zero = x.ravel(), y.ravel(), np.ones(x.size), np.zeros(x.size)
    design = np.stack([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)], 1)  # (points, 2, 4)
    target, weights = flow[grid].reshape(-1, 2), trust
    for _ in range(4):
        weighted = (design * weights[:, None, None]).reshape(-1, 4)
        calm = np.diag([height**2, height**2, 1e-6, 1e-6]) * 2e-5 * weights.sum()  # zoom and turn only when all agree
        found = np.linalg.solve(weighted.T @ design.reshape(-1, 4) + calm, weighted.T @ target.reshape(-1))
        misfit = np.linalg.norm(target - design @ found, axis=1)
        weights = trust / (1 + (misfit / 0.4) ** 2)
    return found


def frame_size(frame: np.ndarray) -> tuple[int, int]:
    """(rows, columns) of the reduced frame whose differences are taken."""
    height, width = frame.shape[:2]
    return WORK_HEIGHT, max(1, round(width * WORK_HEIGHT / height))


class MotionRegion:
    """A square that follows where the image moves, from past frames only.

    Motion energy fades with a time constant of one second. The square is centred on its mean and its side is 4.5
    of its standard deviations, between 45 % and 130 % of the frame's height; it glides towards its target.
    """

    FADE_S, SIGMAS, SMALLEST, LARGEST, GLIDE = 1.0, 4.5, 0.45, 1.3, 0.35

    def __init__(self):
        self._energy: np.ndarray | None = None
        self._time = 0.0
        self._square: np.ndarray | None = None

    def update(self, difference: np.ndarray, time_s: float) -> tuple[np.ndarray, float]:
        """Centre (x, y) and side of the square in pixels, from the newest frame difference, float32 (H, W)."""
        height, width = difference.shape
        if self._energy is None:
            self._energy, self._time = np.zeros_like(difference), time_s
            self._square = np.array([width / 2, height / 2, max(height, min(width, height * self.LARGEST))])
        fade = np.exp(-max(0.0, time_s - self._time) / self.FADE_S)
        self._energy = fade * self._energy + np.maximum(difference - 0.2, 0)
        self._time = time_s
        target = self._target(height)
        if target is not None:
            self._square = self._square + self.GLIDE * (target - self._square)
        return self._square[:2].copy(), float(self._square[2])

    def _target(self, height: int) -> np.ndarray | None:
        weight = np.maximum(self._energy - 0.25 * self._energy.max(), 0)
        total = weight.sum()
        if total < 1.0:
            return None
        columns, rows = weight.sum(0) / total, weight.sum(1) / total
        x, y = columns @ np.arange(len(columns)), rows @ np.arange(len(rows))
        spread = np.sqrt(max(columns @ (np.arange(len(columns)) - x) ** 2, rows @ (np.arange(len(rows)) - y) ** 2))
        return np.array([x, y, np.clip(self.SIGMAS * spread, self.SMALLEST * height, self.LARGEST * height)])
