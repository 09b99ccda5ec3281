"""Images that are there twice: the same pixels, or copies that were saved anew, cut or mirrored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from sklearn.neighbors import NearestNeighbors

from helpers.data.folders import Sample
from helpers.data.images import read_image


def _pixel_hash(path: Path) -> str:
    """The same text exactly for images of the same size and pixels, whatever the file's bytes."""
    image = read_image(path)
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def duplicate_pixels(train: Iterable[Sample], test: Iterable[Sample]) -> set[Path]:
    """Files of `test` whose pixels are also in `train`; leave them out for a leak-free figure."""
    seen = {_pixel_hash(s.path) for s in train}
    return {s.path for s in test if _pixel_hash(s.path) in seen}


def group_by_pixels(samples: Iterable[Sample]) -> list[Sample]:
    """The same samples, identical images in one group: no split separates copies."""
    return [replace(s, group=_pixel_hash(s.path)) for s in samples]


def nearest_images(train: list[Sample], test: list[Sample], side: int = 24) -> list[tuple[Sample, float]]:
    """For each sample of `test` the image in `train` that is most like it, and their correlation.

    Copies that were saved anew, resized, cut a little differently or mirrored have other pixels
    (`duplicate_pixels` misses them) and still correlate with the original. Images are compared
    in gray, reduced to side x side pixels, without the two outermost rows and columns.
    Correlation: Pearson's, of the pixels, in [-1, 1].
    """
    search = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute")
    search.fit(_small_vectors(train, side))
    vectors = _small_vectors(test, side)
    inner = side - 4
    mirrored = vectors.reshape(-1, inner, inner)[:, :, ::-1].reshape(vectors.shape)
    (straight, one), (turned, two) = (search.kneighbors(part) for part in (vectors, mirrored))
    best = np.where(turned < straight, two, one)[:, 0]
    distance = np.minimum(straight, turned)[:, 0]
    return [(train[index], 1 - float(away)) for index, away in zip(best, distance, strict=True)]


def _small_vectors(samples: list[Sample], side: int) -> np.ndarray:
    """float32 (N, (side - 4) ** 2): reduced gray images as rows of mean 0."""
    rows = []
    for sample in samples:
        gray = cv2.cvtColor(read_image(sample.path), cv2.COLOR_BGR2GRAY)
        small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA)[2:-2, 2:-2]
        rows.append(small.astype(np.float32).ravel() - small.mean())
    return np.array(rows)
