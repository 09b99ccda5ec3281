"""Images that are there twice, with the same pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

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
