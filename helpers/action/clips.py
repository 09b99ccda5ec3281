"""From a video to the time steps of an action network that sees no person: sampling in time, windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from helpers.action.motion import (
    FLOW_HALF,
    FLOW_LAG_S,
    MotionRegion,
    ego_motion_flow,
    estimate_ego_motion,
    flow_mask,
    frame_size,
    halve_large,
    normalise_locally,
    stabilise,
)
from helpers.data.videos import read_frames

NONE = "none"  # class folder of clips that show none of the actions
CHANNELS = ("masked_flow", "flow", "rgb")
PERSON_FLOW = "person_flow"  # what `person.PersonSampler` shows


@dataclass(frozen=True)
class ClipSpec:
    """What one clip is.

    length: time steps per clip. window_s: seconds that a clip covers, whatever the frame rate of its video.
    size: side of a time step's image in pixels.
    channels: what a time step shows. "masked_flow": optical flow to the right, downwards, and how much changed within
        `lag_s` seconds; ego-motion removed, masked where nothing changed (`flow_mask`), cut to the region that moves.
        "flow": the same without the mask. "rgb": the frame itself. "person_flow": masked flow around a person, see
        `person.PersonSampler`.
    Raises ValueError when a value cannot work.
    """

    length: int = 16
    window_s: float = 2.0
    size: int = 96
    channels: str = "masked_flow"
    lag_s: float = 0.1

    def __post_init__(self):
        if self.length < 1 or self.size < 32 or self.window_s <= 0 or self.lag_s <= 0:
            raise ValueError(f"length >= 1, size >= 32, window_s > 0 and lag_s > 0 are needed, got {self}")
        if self.channels not in (*CHANNELS, PERSON_FLOW):
            raise ValueError(f"channels must be one of {', '.join((*CHANNELS, PERSON_FLOW))}, got {self.channels!r}")

    @property
    def step_s(self) -> float:
        """Seconds between two time steps."""
        return self.window_s / self.length

    def as_dict(self) -> dict:
        """The fields as config.json records them; `ClipSpec(**...)` reads them back."""
        return asdict(self)


def sample_indices(frames: int, length: int) -> np.ndarray:
    """Indices int (length,) of `length` frames spread evenly over a video, the last repeated when there are fewer."""
    if frames < 1 or length < 1:
        raise ValueError(f"frames and length must be positive, got {frames} and {length}")
    if frames <= length:
        return np.minimum(np.arange(length), frames - 1)
    return np.linspace(0, frames - 1, length).round().astype(int)


class FrameSampler:
    """Turns a stream of frames into a clip's time steps, one every `spec.step_s` seconds of the stream's own time."""

    def __init__(self, spec: ClipSpec):
        self.spec = spec
        self._next_time: float | None = None
        self._recent: deque[tuple[float, np.ndarray]] = deque()
        self._region = MotionRegion()
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def push(self, frame: np.ndarray, time_s: float) -> np.ndarray | None:
        """float32 (size, size, 3) in [-1, 1] when a time step is due at `time_s`, else None.

        frame: uint8 BGR (H, W, 3). After a gap in time the steps go on from the new time; none is invented.
        """
        return self.look(frame, time_s) if self.remember(frame, time_s) else None

    def remember(self, frame: np.ndarray, time_s: float) -> bool:
        """Keep what later time steps need of a frame; whether one is due now. Cheap."""
        if self.spec.channels != "rgb":
            self._remember(halve_large(frame)[0], time_s)
        if self._next_time is not None and time_s < self._next_time - 1e-6:
            return False
        late = self._next_time is None or time_s - self._next_time > self.spec.step_s
        self._next_time = (time_s if late else self._next_time) + self.spec.step_s
        return True

    def look(self, frame: np.ndarray, time_s: float) -> np.ndarray:
        """The time step of the frame that was remembered last."""
        return self._rgb_step(halve_large(frame)[0]) if self.spec.channels == "rgb" else self._flow_step(time_s)

    def _rgb_step(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        cut = self._cut(frame, np.array([width / 2, height / 2]), np.array([width, height], float))
        return cv2.cvtColor(cut, cv2.COLOR_BGR2RGB).astype(np.float32) / 127.5 - 1

    def _flow_step(self, time_s: float) -> np.ndarray:
        now, (then_s, then) = self._recent[-1][1], self._at(time_s - FLOW_LAG_S)
        speed = np.zeros((*now.shape, 2), np.float32)
        if then_s < time_s:
            flow, camera = self._flow_between(then, now)
            heights = (time_s - then_s) * now.shape[0]
            speed = (flow - ego_motion_flow(camera, now.shape)) / heights  # frame heights per second
        before = self._at(time_s - self.spec.lag_s)[1]
        if before is not now:
            before = stabilise(before, self._flow_between(before, now)[1])
        change = cv2.absdiff(now, before)
        if self.spec.channels == "masked_flow":
            speed *= flow_mask(change)[..., None]
        centre, side = self._region.update(change, time_s)
        speed *= now.shape[0] / side  # sides of the square per second: near and far people look alike
        speed /= np.abs(speed) + FLOW_HALF
        cut = self._cut(np.dstack([1.2 * speed, change]), centre, np.array([side, side]))
        return np.clip(cut - np.float32([0, 0, 1]), -1, 1)  # outside the frame nothing moves and nothing changes

    def _flow_between(self, then: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(flow (H, W, 2) in pixels, its ego-motion) from one kept frame to another."""
        flow = self._flow.calc(*(np.clip(40 * gray + 128, 0, 255).astype(np.uint8) for gray in (then, now)), None)
        return flow, estimate_ego_motion(flow, now)

    def _cut(self, image: np.ndarray, centre: np.ndarray, sides: np.ndarray) -> np.ndarray:
        """Region with this centre and these (width, height) as (size, size)."""
        scale = self.spec.size / sides
        matrix = np.array(
            [
                [scale[0], 0, self.spec.size / 2 - scale[0] * centre[0]],
                [0, scale[1], self.spec.size / 2 - scale[1] * centre[1]],
            ]
        )
        if scale.min() < 0.5:  # shrink by averaging first, else warping would alias
            image = cv2.resize(image, None, fx=scale[0], fy=scale[1], interpolation=cv2.INTER_AREA)
            matrix = np.array([[1, 0, matrix[0, 2]], [0, 1, matrix[1, 2]]])
        return cv2.warpAffine(image, matrix, (self.spec.size, self.spec.size), flags=cv2.INTER_LINEAR)

    def _remember(self, frame: np.ndarray, time_s: float) -> None:
        """Keep the frame small, gray and with local mean 0 and deviation 1: dark and bright corners look alike."""
        if self._recent and frame_size(frame) != self._recent[-1][1].shape:
            self._recent.clear()
            self._region = MotionRegion()
        rows, columns = frame_size(frame)
        gray = cv2.cvtColor(cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        self._recent.append((time_s, normalise_locally(gray)))
        while self._recent[0][0] < time_s - 4 * self.spec.lag_s and len(self._recent) > 2:
            self._recent.popleft()

    def _at(self, time_s: float) -> tuple[float, np.ndarray]:
        return min(self._recent, key=lambda item: abs(item[0] - time_s))


def steps_of(frames: Iterable[tuple[np.ndarray, float]], spec: ClipSpec) -> np.ndarray:
    """float32 (n, size, size, 3): all time steps of a stream of (uint8 BGR frame, time in seconds)."""
    sampler = FrameSampler(spec)
    steps = (sampler.push(frame, time_s) for frame, time_s in frames)
    return np.array([step for step in steps if step is not None], np.float32)


def video_steps(path: Path | str, spec: ClipSpec) -> np.ndarray:
    """float32 (n, size, size, 3) in [-1, 1]: all time steps of a video file. Raises VideoError."""
    return steps_of(read_frames(path), spec)


def windows(steps: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """(k, length, ...): half-overlapping windows over steps or their features (n, ...), n >= 1.

    Fewer than `spec.length` steps are padded by repeating the last one; the last window always ends with the last step.
    """
    length = spec.length
    if len(steps) <= length:
        return steps[sample_indices(len(steps), length)][None]
    starts = np.linspace(0, len(steps) - length, 1 + int(np.ceil((len(steps) - length) / (length / 2))))
    return np.stack([steps[start : start + length] for start in starts.round().astype(int)])


def mean_over_windows(classify: Callable, features: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """float32 (classes,): a video's probabilities, the mean over its windows.

    classify: float32 (k, length, features) to (k, classes). features: (n, features) of all its time steps, n >= 1.
    """
    return classify(windows(features.astype(np.float32), spec)).mean(axis=0)
