"""From a video to the network's time steps: decoding, sampling in time, motion pictures, augmentation, windows.

`Stepper` takes one frame after the other, as a camera gives them. A video file goes through the same object, so what
the network sees live is what it was trained on.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from helpers.datasets import DataError

WORK_HEIGHT = 96  # frames are reduced to this height before motion is looked for: no source is sharper than another
NEIGHBOURHOOD = 41  # pixels of the reduced frame: contrast is brought to 1 within a square of this side
FLOW_LAG_S = 0.04  # seconds between the frames whose optical flow is taken: a waving hand must not have gone too far
FLOW_HALF = 0.5  # sides of the square per second that become half of the full scale
CHANNELS = ("gated_flow", "flow", "motion", "rgb")
SUPPORT = 0.08  # of the change around a place that lets half of its speed through ("gated_flow")
FALLBACK_FPS = 25.0
cv2.utils.logging.setLogLevel(0)  # files that cannot be decoded are reported here, in better words


class VideoError(DataError):
    """A video that gives no frame. The message names the file."""


@dataclass(frozen=True)
class ClipSpec:
    """What one clip is.

    length: time steps per clip. window_s: seconds that a clip covers, whatever the frame rate of its video.
    size: side of a time step's picture in pixels.
    channels: what a time step shows. "gated_flow": speed to the right, speed downwards and how much changed within
        `lag_s` seconds, the camera's own movement taken out, no speeds where nothing changed, cut to where the picture
        moves. "flow": the same with all speeds. "motion": three absolute differences of gray frames that are `lag_s`
        seconds apart, cut likewise. "rgb": the frame itself.
    """

    length: int = 16
    window_s: float = 2.0
    size: int = 96
    channels: str = "gated_flow"
    lag_s: float = 0.1

    def __post_init__(self):
        if self.length < 1 or self.size < 32 or self.window_s <= 0 or self.lag_s <= 0:
            raise ValueError(f"length >= 1, size >= 32, window_s > 0 and lag_s > 0 are needed, got {self}")
        if self.channels not in CHANNELS:
            raise ValueError(f"channels must be one of {', '.join(CHANNELS)}, got {self.channels!r}")

    @property
    def step_s(self) -> float:
        """Seconds between two time steps."""
        return self.window_s / self.length

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Augmentation:
    """One draw of random changes, the same for all frames of a clip.

    mirror: left-right. gamma: exponent on 0..1 brightness. speed: > 1 plays faster.
    zoom: factor on the cropped region's side. shift: (x, y) of its centre in shares of its side.
    """

    mirror: bool = False
    gamma: float = 1.0
    speed: float = 1.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Augmentation:
        """Mirror half of the time, gamma 0.6..1.7, speed 0.8..1.25, zoom 0.85..1.2, shift up to 8 % of the side."""
        return cls(bool(rng.random() < 0.5), float(np.exp(rng.uniform(-0.5, 0.5))), float(np.exp(rng.uniform(-0.22, 0.22))),
                   float(rng.uniform(0.85, 1.2)), tuple(float(v) for v in rng.uniform(-0.08, 0.08, 2)))

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """The changes of the picture itself, uint8 to uint8; zoom and shift act on the crop (see `Stepper`)."""
        if self.mirror:
            frame = cv2.flip(frame, 1)
        if self.gamma != 1.0:
            table = (255 * (np.arange(256) / 255) ** self.gamma).round().astype(np.uint8)
            frame = cv2.LUT(frame, table)
        return frame


# --------------------------------------------------------------------------------------------------- decoding

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
        for frame, time_s in film_frames(capture):
            empty = False
            yield frame, time_s
    finally:
        capture.release()
    if empty:
        raise VideoError(f"{path}: no frame can be decoded; is it a video? Convert it (ffmpeg -i IN OUT.mp4) or remove it")


def film_frames(capture: cv2.VideoCapture) -> Iterator[tuple[np.ndarray, float]]:
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


def sample_indices(frames: int, length: int) -> np.ndarray:
    """Indices int (length,) of `length` frames spread evenly over a video, the last repeated when there are fewer."""
    if frames < 1 or length < 1:
        raise ValueError(f"frames and length must be positive, got {frames} and {length}")
    if frames <= length:
        return np.minimum(np.arange(length), frames - 1)
    return np.linspace(0, frames - 1, length).round().astype(int)


# --------------------------------------------------------------------------------------------------- time steps

SMALLEST_HALVED = (960, 1280)  # rows, columns: a frame at least so large is halved before anything looks at it


def halve_large(frame: np.ndarray) -> tuple[np.ndarray, int]:
    """A uint8 picture averaged 2x2 until it is smaller than 960 rows or 1280 columns, and by how much: 1, 2, 4, ...

    4K becomes 960x540, 1280x720 stays. Motion is looked at in 96 rows and faces in 640 columns anyway. Halving (OpenCV's
    fastest average) first costs a tenth of reducing a 4K frame to 96 rows in one go.
    """
    factor = 1
    while frame.shape[0] >= SMALLEST_HALVED[0] and frame.shape[1] >= SMALLEST_HALVED[1]:
        rows, columns = frame.shape[0] // 2, frame.shape[1] // 2
        frame = cv2.resize(frame[:2 * rows, :2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
        factor *= 2
    return frame, factor


class Stepper:
    """Turns a stream of frames into a clip's time steps, one every `spec.step_s` seconds of the stream's own time."""

    def __init__(self, spec: ClipSpec, augmentation: Augmentation = Augmentation()):
        self.spec, self.augmentation = spec, augmentation
        self._next_time: float | None = None
        self._recent: deque[tuple[float, np.ndarray]] = deque()
        self._focus = MotionFocus()
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def push(self, frame: np.ndarray, time_s: float) -> np.ndarray | None:
        """float32 (size, size, 3) in [-1, 1] when a time step is due at `time_s`, else None.

        frame: uint8 BGR (H, W, 3). After a gap in time the steps go on from the new time; none is invented.
        """
        frame, _ = halve_large(frame)
        if self.spec.channels != "rgb":
            self._remember(frame, time_s)
        if self._next_time is not None and time_s < self._next_time - 1e-6:
            return None
        late = self._next_time is None or time_s - self._next_time > self.spec.step_s
        self._next_time = (time_s if late else self._next_time) + self.spec.step_s
        return {"rgb": self._picture, "motion": self._motion}.get(self.spec.channels, self._flow_picture)(frame, time_s)

    def _picture(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        height, width = frame.shape[:2]
        cut = self._cut(frame, np.array([width / 2, height / 2]), np.array([width, height], float))
        return cv2.cvtColor(cut, cv2.COLOR_BGR2RGB).astype(np.float32) / 127.5 - 1

    def _motion(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        lags = [self._at(time_s - k * self.spec.lag_s)[1] for k in range(4)]
        differences = np.dstack([cv2.absdiff(lags[k], lags[k + 1]) for k in range(3)])
        centre, side = self._focus.update(differences[..., 0], time_s)
        cut = self._cut(differences, centre, np.array([side, side]))
        return np.minimum(cut, 2.0) - 1  # a contrast of two local standard deviations is white

    def _flow_picture(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        now, (then_s, then) = self._recent[-1][1], self._at(time_s - FLOW_LAG_S)
        speed = np.zeros((*now.shape, 2), np.float32)
        if then_s < time_s:
            flow, camera = self._movement(then, now)
            speed = (flow - camera_flow(camera, now.shape)) / ((time_s - then_s) * now.shape[0])  # heights per second
        before = self._at(time_s - self.spec.lag_s)[1]
        if before is not now:
            before = follow_camera(before, self._movement(before, now)[1])
        change = cv2.absdiff(now, before)
        if self.spec.channels == "gated_flow":
            speed *= gate(change)[..., None]
        centre, side = self._focus.update(change, time_s)
        speed *= now.shape[0] / side  # sides of the square per second: near and far people look alike
        speed /= np.abs(speed) + FLOW_HALF
        cut = self._cut(np.dstack([1.2 * speed, change]), centre, np.array([side, side]))
        return np.clip(cut - np.float32([0, 0, 1]), -1, 1)  # outside the frame nothing moves and nothing changes

    def _movement(self, then: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(flow (H, W, 2) in pixels, what `camera_movement` makes of it) from one kept frame to another."""
        flow = self._flow.calc(*(np.clip(40 * gray + 128, 0, 255).astype(np.uint8) for gray in (then, now)), None)
        return flow, camera_movement(flow, now)

    def _cut(self, picture: np.ndarray, centre: np.ndarray, sides: np.ndarray) -> np.ndarray:
        """Region with this centre and these (width, height), changed by the augmentation, as (size, size)."""
        sides = sides * self.augmentation.zoom
        centre = centre + sides * self.augmentation.shift
        scale = self.spec.size / sides
        matrix = np.array([[scale[0], 0, self.spec.size / 2 - scale[0] * centre[0]],
                           [0, scale[1], self.spec.size / 2 - scale[1] * centre[1]]])
        if scale.min() < 0.5:  # shrink by averaging first, else warping would alias
            picture = cv2.resize(picture, None, fx=scale[0], fy=scale[1], interpolation=cv2.INTER_AREA)
            matrix = np.array([[1, 0, matrix[0, 2]], [0, 1, matrix[1, 2]]])
        return cv2.warpAffine(picture, matrix, (self.spec.size, self.spec.size), flags=cv2.INTER_LINEAR)

    def _remember(self, frame: np.ndarray, time_s: float) -> None:
        """Keep the frame small, gray and with local mean 0 and deviation 1: dark and bright corners look alike."""
        if self._recent and frame_size(frame) != self._recent[-1][1].shape:
            self._recent.clear()
            self._focus = MotionFocus()
        rows, columns = frame_size(frame)
        gray = cv2.cvtColor(cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        self._recent.append((time_s, normalise_locally(gray)))
        while self._recent[0][0] < time_s - 4 * self.spec.lag_s and len(self._recent) > 2:
            self._recent.popleft()

    def _at(self, time_s: float) -> tuple[float, np.ndarray]:
        return min(self._recent, key=lambda item: abs(item[0] - time_s))


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


def gate(change: np.ndarray) -> np.ndarray:
    """float32 (H, W) in 0..1: how far the optical flow at a place is to be believed. change: float32 (H, W), absolute
    differences of two frames.

    Optical flow is smooth by construction: it carries speeds into dark walls and over the noise of a weak light, where
    no difference of the frames bears them out. Half is let through where the mean change about a place, above the
    frame's median and a tenth, is SUPPORT.
    """
    support = cv2.blur(np.maximum(change - np.median(change) - 0.1, 0), (11, 11))
    return support / (support + SUPPORT)


def camera_flow(camera: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 2): the optical flow in pixels that a still scene of `shape` shows when the camera moves so."""
    zoom, turn, right, down = camera
    height, width = shape
    x, y = np.arange(width, dtype=np.float32) - width / 2, np.arange(height, dtype=np.float32)[:, None] - height / 2
    return np.dstack([right + zoom * x - turn * y, down + zoom * y + turn * x])


def follow_camera(picture: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """An older picture float32 (H, W) as the camera would see it after moving so; edges are repeated."""
    zoom, turn, right, down = camera
    height, width = picture.shape
    moved = np.array([[1 + zoom, -turn, right - zoom * width / 2 + turn * height / 2],
                      [turn, 1 + zoom, down - zoom * height / 2 - turn * width / 2]])
    return cv2.warpAffine(picture, moved, (width, height), borderMode=cv2.BORDER_REPLICATE)


def camera_movement(flow: np.ndarray, gray: np.ndarray) -> np.ndarray:
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


class MotionFocus:
    """A square that follows where the picture moves, from past frames only.

    Motion energy fades with a time constant of one second. The square is centred on its mean and its side is 4.5
    of its standard deviations, between 45 % and 130 % of the frame's height; it glides towards its target.
    """

    FADE_S, SIGMAS, SMALLEST, LARGEST, GLIDE = 1.0, 4.5, 0.45, 1.3, 0.35

    def __init__(self):
        self._energy: np.ndarray | None = None
        self._time = 0.0
        self._square: np.ndarray | None = None

    def update(self, difference: np.ndarray, time_s: float) -> tuple[np.ndarray, float]:
        """Centre (x, y) and side of the square in pixels of `difference`, float32 (H, W), the newest frame difference."""
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


def steps_of(frames: Iterable[tuple[np.ndarray, float]], spec: ClipSpec,
             augmentation: Augmentation = Augmentation()) -> np.ndarray:
    """float32 (n, size, size, 3): all time steps of a stream of (frame, time)."""
    stepper = Stepper(spec, augmentation)
    steps = (stepper.push(augmentation.apply(frame), time_s / augmentation.speed) for frame, time_s in frames)
    return np.array([step for step in steps if step is not None], np.float32)


def video_steps(path: Path | str, spec: ClipSpec, augmentation: Augmentation = Augmentation()) -> np.ndarray:
    """float32 (n, size, size, 3) in [-1, 1]: all time steps of a video file. Raises VideoError."""
    return steps_of(read_frames(path), spec, augmentation)


def windows(steps: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """(k, length, ...): half-overlapping windows over steps or their features (n, ...), n >= 1.

    Fewer than `spec.length` steps are padded by repeating the last one; the last window always ends with the last step.
    """
    length = spec.length
    if len(steps) <= length:
        return steps[sample_indices(len(steps), length)][None]
    starts = np.linspace(0, len(steps) - length, 1 + int(np.ceil((len(steps) - length) / (length / 2))))
    return np.stack([steps[start:start + length] for start in starts.round().astype(int)])
