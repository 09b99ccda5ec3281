"""Reading images, and finding images that are there twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from sklearn.neighbors import NearestNeighbors

from helpers.data.folders import Sample
from helpers.errors import DataError


def read_image(path: Path | str) -> np.ndarray:
    """An image file as uint8 BGR (H, W, 3), upright by its EXIF tag, gray repeated, alpha dropped.

    Raises DataError naming the file when it is missing, empty, cut off or not an image.
    """
    path = Path(path)
    try:
        data = path.read_bytes()  # cv2.imread fails on non-ASCII paths on Windows
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not data:
        raise DataError(f"{path}: an empty file (0 bytes). Copy or download it again.")
    if _is_cut_off(data):
        raise DataError(f"{path}: the image is cut off. Copy or download it again.")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(
            f"{path}: not an image that OpenCV can read. Is it damaged, or another kind of file under an image's name?"
        )
    return image


def _is_cut_off(data: bytes) -> bool:
    """Whether the end marker is missing: decoders fill in gray there and do not complain."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False  # other formats: the decoder itself notices
    position = 2
    while data[position : position + 2] not in (b"\xff\xda", b""):  # step over the JPEG headers,
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")  # thumbnail too
    return b"\xff\xd9" not in data[position:]


def pixel_hash(path: Path | str) -> str:
    """The same text exactly for images of the same size and pixels, whatever the file's bytes."""
    image = read_image(path)
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def duplicate_pixels(train: Iterable[Sample], test: Iterable[Sample]) -> set[Path]:
    """Files of `test` whose picture is also in `train`; leave them out for a leak-free figure."""
    seen = {pixel_hash(s.path) for s in train}
    return {s.path for s in test if pixel_hash(s.path) in seen}


def nearest_images(train: list[Sample], test: list[Sample], side: int = 24) -> list[tuple[Sample, float]]:
    """For each sample of `test` the picture in `train` that is most like it, and their correlation.

    Copies that were saved anew, resized, cut a little differently or mirrored have other pixels
    (`duplicate_pixels` misses them) and still correlate with the original. Pictures are compared
    in gray, reduced to side x side pixels, without the two outermost rows and columns.
    Correlation: Pearson's, of the pixels, in [-1, 1].
    """
    search = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute")
    search.fit(_small_vectors(train, side))
    pictures = _small_vectors(test, side)
    inner = side - 4
    mirrored = pictures.reshape(-1, inner, inner)[:, :, ::-1].reshape(pictures.shape)
    (straight, one), (turned, two) = (search.kneighbors(part) for part in (pictures, mirrored))
    best = np.where(turned < straight, two, one)[:, 0]
    distance = np.minimum(straight, turned)[:, 0]
    return [(train[index], 1 - float(away)) for index, away in zip(best, distance, strict=True)]


def _small_vectors(samples: list[Sample], side: int) -> np.ndarray:
    """float32 (N, (side - 4) ** 2): reduced gray pictures as rows of mean 0."""
    rows = []
    for sample in samples:
        gray = cv2.cvtColor(read_image(sample.path), cv2.COLOR_BGR2GRAY)
        small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA)[2:-2, 2:-2]
        rows.append(small.astype(np.float32).ravel() - small.mean())
    return np.array(rows)


def group_by_pixels(samples: Iterable[Sample]) -> list[Sample]:
    """The same samples, identical pictures in one group: no split separates copies."""
    return [replace(s, group=pixel_hash(s.path)) for s in samples]
