"""Arrays that cost minutes, kept on disk and keyed by their inputs."""

from __future__ import annotations

import hashlib

import joblib
import numpy as np

from helpers.data.folders import Sample
from helpers.data.paths import REPOSITORY

memory = joblib.Memory(REPOSITORY / ".cache" / "arrays", verbose=0)  # arrays that cost minutes, keyed by their inputs


def content_key(samples: list[Sample]) -> str:
    """SHA-256 over the content of the files: a changed, added or removed file never reads an old cache entry."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(hashlib.sha256(sample.path.read_bytes()).digest())
    return digest.hexdigest()


def weights_key(model) -> str:
    """SHA-256 over a model's weights."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
