"""Time steps that follow a person: joints from the pose, and optical flow in a square around the trunk.

`PersonSampler` takes one frame after the other, as a camera gives them; a video file goes through the same object.
Where nobody is found the square follows what moves, and the joints are zeros.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from helpers.action.clips import ClipSpec
from helpers.action.joints import COUNT, joint_row
from helpers.action.motion import (
    FLOW_HALF,
    FLOW_LAG_S,
    WORK_HEIGHT,
    MotionRegion,
    ego_motion_flow,
    estimate_ego_motion,
    flow_mask,
    halve_large,
    normalise_locally,
    stabilise,
)
from helpers.action.pose import Pose, PoseEstimator

KEPT_ROWS = 240  # frames are kept gray and at most so high: enough for somebody six metres away
TORSOS = 4.0  # side of the square around a person, in torso lengths: all of them, arms up
GLIDE = 0.5  # how far the square goes towards the person at each step
SMALLEST_FLOW = 32  # pixels of a frame's shorter side: in smaller ones nothing is looked for
PATIENCE = 4  # steps for which the square waits where the person was lost


def live_memory(spec: ClipSpec) -> int:
    """The time steps that a live answer looks back on: a whole window would still show the action before."""
    return 5 * spec.length // 8


@dataclass(frozen=True, eq=False)
class TimeStep:
    """What the network is shown of one moment.

    image: float32 (size, size, 3) in [-1, 1]: masked optical flow to the right, downwards, and how much changed.
    joints: float32 (ROW,), see `joints.joint_row`. pose: where the limbs are in the frame, None when nobody was found.
    """

    image: np.ndarray
    joints: np.ndarray
    pose: Pose | None


@dataclass(frozen=True)
class CameraAugmentation:
    """One draw of another camera, the same for all frames of a clip.

    mirror: left-right. gamma: exponent on 0..1 brightness. speed: > 1 plays faster. zoom: > 1 cuts into the frame.
    centre: (x, y) of the cut in shares of the frame. rows: the frame is reduced to so many at most. shake: deviation of
    the camera's shift in shares of the height. roll: of its angle in radians. noise: deviation in gray levels.
    frame: factor on the side of the person's square. offset: of its centre in shares of the side.
    """

    mirror: bool = False
    gamma: float = 1.0
    speed: float = 1.0
    zoom: float = 1.0
    centre: tuple[float, float] = (0.5, 0.5)
    rows: int = 480
    shake: float = 0.0
    roll: float = 0.0
    noise: float = 0.0
    frame: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> CameraAugmentation:
        """Half of the cameras are shaky, two fifths noisy, half mirrored; all differ in framing, light and speed."""
        shaky, noisy = rng.random() < 0.5, rng.random() < 0.4
        return cls(
            mirror=bool(rng.random() < 0.5),
            gamma=float(np.exp(rng.uniform(-0.5, 0.5))),
            speed=float(np.exp(rng.uniform(-0.22, 0.22))),
            zoom=float(np.exp(rng.uniform(-0.35, 0.25))),
            centre=(float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.44, 0.56))),
            rows=int(rng.choice([160, 240, 360, 480])),
            shake=float(rng.uniform(0, 0.012)) * shaky,
            roll=float(rng.uniform(0, 0.015)) * shaky,
            noise=float(rng.uniform(0, 8)) * noisy,
            frame=float(np.exp(rng.uniform(-0.15, 0.15))),
            offset=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.06, 0.06))),
            seed=int(rng.integers(1 << 30)),
        )

    def frames(self, frames: Iterable[tuple[np.ndarray, float]]) -> Iterable[tuple[np.ndarray, float]]:
        """A stream of (uint8 BGR frame, time in seconds) as this camera would have seen it."""
        rng = np.random.default_rng(self.seed)
        hertz, phases = rng.uniform([0.2, 0.8, 2.5], [0.8, 2.5, 6.0], (3, 3)), rng.uniform(0, 2 * np.pi, (3, 3))
        for frame, time_s in frames:
            time_s = time_s / self.speed
            sway = (np.sin(2 * np.pi * hertz * time_s + phases) / (1, 1.5, 2.5)).sum(axis=1)  # across, down, roll
            yield self._expose(self._aim(frame, sway), rng), time_s

    def _aim(self, frame: np.ndarray, sway: np.ndarray) -> np.ndarray:
        """Reduced, cut, shaken; beyond its edges the frame is continued by its last pixels."""
        height, width = frame.shape[:2]
        rows = min(height, self.rows)
        columns = max(1, round(width * rows / height))
        scale, angle = rows / height * self.zoom, self.roll * sway[2]
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        x, y = np.array(self.centre if self.zoom > 1 else (0.5, 0.5)) * (width, height)
        across, down = columns / 2 + self.shake * rows * sway[0], rows / 2 + self.shake * rows * sway[1]
        matrix = np.array([[c, -s, across - c * x + s * y], [s, c, down - s * x - c * y]])
        if scale < 0.6:  # average first, else warping would alias
            share = 1 / round(1 / scale)
            frame = cv2.resize(frame, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            matrix[:, :2] /= share
        return cv2.warpAffine(frame, matrix, (columns, rows), borderMode=cv2.BORDER_REPLICATE)

    def _expose(self, frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.mirror:
            frame = cv2.flip(frame, 1)
        if self.gamma != 1:
            frame = cv2.LUT(frame, (255 * (np.arange(256) / 255) ** self.gamma).round().astype(np.uint8))
        if self.noise:
            grain = rng.standard_normal(frame.shape, np.float32) * self.noise
            frame = np.clip(frame + grain, 0, 255).astype(np.uint8)
        return frame


NO_AUGMENTATION = CameraAugmentation(rows=1 << 20)  # as in evaluation and live


class PersonSampler:
    """Turns a stream of frames into a clip's time steps, one every `spec.step_s` seconds of the stream's own time.

    estimator: finds the pose; None when its weights are missing, then the square follows what moves.
    """

    def __init__(
        self,
        spec: ClipSpec,
        estimator: PoseEstimator | None,
        augmentation: CameraAugmentation = NO_AUGMENTATION,
    ):
        self.spec, self.estimator, self.augmentation = spec, estimator, augmentation
        self._next_time: float | None = None
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._forget()

    def _forget(self) -> None:
        self._recent: deque[tuple[float, np.ndarray]] = deque()
        self._region, self._square, self._lost = MotionRegion(), None, 0
        if self.estimator:
            self.estimator.reset()

    def push(self, frame: np.ndarray, time_s: float) -> TimeStep | None:
        """The time step that is due at `time_s`, else None. frame: uint8 BGR (H, W, 3).

        After a gap in time the steps go on from the new time; none is invented.
        """
        return self.look(frame, time_s) if self.remember(frame, time_s) else None

    def remember(self, frame: np.ndarray, time_s: float) -> bool:
        """Keep a frame small and gray; whether a time step is due. Takes a fraction of a millisecond."""
        gray = _reduced(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), KEPT_ROWS)
        if self._recent and gray.shape != self._recent[-1][1].shape:
            self._forget()
        self._recent.append((time_s, gray))
        while self._recent[0][0] < time_s - 4 * self.spec.lag_s and len(self._recent) > 2:
            self._recent.popleft()
        if self._next_time is not None and time_s < self._next_time - 1e-6:
            return False
        late = self._next_time is None or time_s - self._next_time > self.spec.step_s
        self._next_time = (time_s if late else self._next_time) + self.spec.step_s
        return True

    def look(self, frame: np.ndarray, time_s: float) -> TimeStep:
        """The time step of the frame that was remembered last."""
        frame, factor = halve_large(frame)
        pose = self.estimator.find(frame) if self.estimator else None
        (_, now), (then_s, then), (before_s, before) = (
            self._at(time_s - lag) for lag in (0, FLOW_LAG_S, self.spec.lag_s)
        )
        scale = now.shape[0] / frame.shape[0]
        centre, side = self._place(pose, scale, time_s, now, before)
        image = self._image((now, then, before), (time_s - then_s, time_s - before_s), centre, side)
        flow = None
        if pose is not None:
            local = (pose.points * scale - centre) * (self.spec.size / side) + self.spec.size / 2
            flow = _sample(cv2.blur(image[..., :2], (5, 5)), local)
            if factor > 1:
                pose = Pose((pose.points + 0.5) * factor - 0.5, pose.visibility, pose.score)
        return TimeStep(image, joint_row(pose, frame.shape[0] * factor, flow), pose)

    def _at(self, time_s: float) -> tuple[float, np.ndarray]:
        return min(self._recent, key=lambda item: abs(item[0] - time_s))

    def _place(
        self, pose: Pose | None, scale: float, time_s: float, now: np.ndarray, before: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Centre and side of the square to look at, in pixels of the kept frames."""
        change = self.augmentation
        if pose is not None:
            side = TORSOS * pose.torso * scale * change.frame
            target = np.array([*(pose.trunk * scale + side * np.array(change.offset)), side])
            fresh = self._square is None or self._lost > PATIENCE
            self._square = target if fresh else self._square + GLIDE * (target - self._square)
            self._lost = 0
            return self._square[:2].copy(), float(self._square[2])
        self._lost += 1
        if self._square is not None and self._lost <= PATIENCE:
            return self._square[:2].copy(), float(self._square[2])
        height, width = now.shape
        if min(height, width) < SMALLEST_FLOW:
            return np.array([width / 2, height / 2]), float(max(height, width))
        new, old = (normalise_locally(_reduced(gray, WORK_HEIGHT)) for gray in (now, before))
        if before is not now:
            old = stabilise(old, self._flow_between(old, new)[1])
        centre, side = self._region.update(cv2.absdiff(new, old), time_s)
        scale = now.shape[0] / new.shape[0]
        side = side * scale * change.frame
        return centre * scale + side * np.array(change.offset), side

    def _image(
        self, frames: tuple[np.ndarray, ...], lags_s: tuple[float, float], centre: np.ndarray, side: float
    ) -> np.ndarray:
        """The network's image of a square. frames: gray, now, FLOW_LAG_S ago, spec.lag_s ago; lags_s: the true lags."""
        size = self.spec.size
        inside = self._cut(np.ones_like(frames[0]), centre, side, cv2.BORDER_CONSTANT).astype(np.float32)
        now, then, before = (normalise_locally(self._cut(gray, centre, side)) for gray in frames)
        speed, change = np.zeros((size, size, 2), np.float32), np.zeros((size, size), np.float32)
        if lags_s[0] > 0:
            flow, camera = self._flow_between(then, now)
            speed = (flow - ego_motion_flow(camera, now.shape)) / (lags_s[0] * size)  # sides of the square per second
        if lags_s[1] > 0:
            change = cv2.absdiff(now, stabilise(before, self._flow_between(before, now)[1])) * inside
        speed *= (flow_mask(change) * inside)[..., None]
        speed = 1.2 * speed / (np.abs(speed) + FLOW_HALF)
        return np.clip(np.dstack([speed, change]) - np.float32([0, 0, 1]), -1, 1).astype(np.float32)

    def _flow_between(self, then: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(flow (H, W, 2) in pixels, its ego-motion) from one locally normalised frame to another."""
        flow = self._flow.calc(*(np.clip(40 * gray + 128, 0, 255).astype(np.uint8) for gray in (then, now)), None)
        return flow, estimate_ego_motion(flow, now)

    def _cut(self, gray: np.ndarray, centre: np.ndarray, side: float, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        """A square of a gray frame as (size, size)."""
        scale = self.spec.size / side
        matrix = np.array([[scale, 0, 0], [0, scale, 0]], float)
        matrix[:, 2] = self.spec.size / 2 - scale * centre
        if scale < 0.5:  # average first, else warping would alias
            columns, rows = (max(1, round(length * scale)) for length in gray.shape[::-1])
            gray = cv2.resize(gray, (columns, rows), interpolation=cv2.INTER_AREA)
            matrix[:, :2] /= scale
        return cv2.warpAffine(gray, matrix, (self.spec.size, self.spec.size), borderMode=border)


def _reduced(gray: np.ndarray, rows: int) -> np.ndarray:
    """A gray frame with at most so many rows."""
    height, width = gray.shape
    if height <= rows:
        return gray
    return cv2.resize(gray, (max(1, round(width * rows / height)), rows), interpolation=cv2.INTER_AREA)


def _sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """float32 (15, 2): an image (H, W, 2) at points (15, 2), bilinear, 0 outside."""
    x, y = (np.ascontiguousarray(points[:, axis, None], np.float32) for axis in (0, 1))
    return cv2.remap(np.ascontiguousarray(image), x, y, cv2.INTER_LINEAR).reshape(COUNT, 2)


def person_steps(
    frames: Iterable[tuple[np.ndarray, float]],
    spec: ClipSpec,
    estimator: PoseEstimator | None,
    *,
    augmentation: CameraAugmentation = NO_AUGMENTATION,
) -> tuple[np.ndarray, np.ndarray]:
    """All time steps of a stream of (uint8 BGR frame, time in seconds): images float32 (n, size, size, 3) and rows of
    joints float32 (n, ROW)."""
    sampler = PersonSampler(spec, estimator, augmentation)
    stream = frames if augmentation == NO_AUGMENTATION else augmentation.frames(frames)
    steps = [step for frame, time_s in stream if (step := sampler.push(frame, time_s)) is not None]
    return np.array([step.image for step in steps], np.float32), np.array([step.joints for step in steps], np.float32)
