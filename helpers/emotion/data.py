"""Labelled faces for training: which files, which are held out for validation, crops, targets that raters soften."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from helpers.data.cache import cached_array, content_key
from helpers.data.duplicates import group_by_pixels
from helpers.data.fer2013 import FER_PLUS, read_manifest
from helpers.data.folders import Sample, list_split
from helpers.data.paths import data_root, find_dataset
from helpers.data.splits import split_groups
from helpers.emotion.faces import FaceFinder, FacePreprocessor, FaceSpec, are_photographs, crop_samples
from helpers.errors import DataError
from helpers.synthetic.samples import cached_emotion_samples
from helpers.training import capped_class_weights, profile

_SPLIT_SEED = 1  # the validation faces stay the same whatever the seed of a training


@dataclass(frozen=True)
class FaceData:
    """Faces that a network can be trained on.

    labels: class names; targets number them. crops uint8 (N, size, size) gray; targets int (N,).
    soft_targets: float32 (N, classes), what training aims at: the labels, softened by raters where there are votes.
    votes: int (N, 10), FER+ raters in the order of `FER_PLUS`; zeros where there are none.
    validation_crops, validation_targets: the held-out part, never trained on.
    """

    labels: tuple[str, ...]
    crops: np.ndarray
    targets: np.ndarray
    soft_targets: np.ndarray
    votes: np.ndarray
    validation_crops: np.ndarray
    validation_targets: np.ndarray

    def class_prior(self, class_weight_cap: float) -> dict[str, float]:
        """The share of each class in what training sees, to six digits: its count times its capped weight.

        class_weight_cap: see `training.capped_class_weights`.
        """
        counts = np.bincount(self.targets, minlength=len(self.labels))
        seen = counts * capped_class_weights(self.targets, len(self.labels), class_weight_cap)
        return dict(zip(self.labels, (seen / seen.sum()).astype(float).round(6).tolist(), strict=True))


def fer_samples(split: str) -> list[Sample]:
    """FER-2013's "train" or "test" faces; in the smoke profile, and where the data set is missing, synthetic ones."""
    return list_split(fer_source(), split)


def fer_source() -> Path:
    """FER-2013's folder or zip; in the smoke profile, and where it is missing, a folder of synthetic faces."""
    source = None if profile() == "smoke" else find_dataset("fer2013")
    return cached_emotion_samples(per_class=60) if source is None else source


def face_data(samples: list[Sample], spec: FaceSpec, *, validation_fraction: float, vote_share: float) -> FaceData:
    """Crops and targets of faces that are already cut out; images with equal pixels stay on one side of the split.

    vote_share: the part of each target that `expected_labels` makes from FER+ votes, where there are any; 0 leaves the
        labels as they are. Raises DataError when a file cannot be read, a class cannot be split or the images are whole
        photographs.
    """
    if are_photographs(samples):
        raise DataError(
            f"{samples[0].path}: these are whole photographs, and what is needed here are faces that are cut out; "
            "`python -m helpers.train emotion FOLDER --output DIR` finds the faces and trains on them"
        )
    inside, outside = split_faces(samples, validation_fraction)
    labels = tuple(sorted({sample.label for sample in inside}))
    crops, targets = face_arrays(inside, labels, spec)
    soft, votes = np.eye(len(labels), dtype=np.float32)[targets], fer_votes(inside)
    if vote_share:
        soft = (1 - vote_share) * soft + vote_share * expected_labels(targets, votes, len(labels))
    return FaceData(labels, crops, targets, soft, votes, *face_arrays(outside, labels, spec))


def split_faces(samples: list[Sample], fraction: float) -> tuple[list[Sample], list[Sample]]:
    """(training, validation) faces; equal images on one side, every class on both."""
    return split_groups(group_by_pixels(samples), fraction, _SPLIT_SEED)


def face_arrays(samples: list[Sample], labels: Sequence[str], spec: FaceSpec) -> tuple[np.ndarray, np.ndarray]:
    """(crops uint8 (N, size, size), targets int (N,)) of images that are already cut to the face; cached on disk."""
    if not samples:
        raise DataError("no face images to read")
    framing = FaceSpec(spec.size, spec.align, spec.expand)  # the crop depends on nothing else
    crops = _cached_crops(content_key(samples), framing.as_dict(), samples)
    return crops, np.array([labels.index(sample.label) for sample in samples])


@cached_array(ignore=("samples",))
def _cached_crops(key: str, spec: dict, samples: list[Sample]) -> np.ndarray:
    return crop_samples(samples, FacePreprocessor(FaceSpec(**spec)), FaceFinder())[0]


def fer_votes(samples: list[Sample]) -> np.ndarray:
    """int (N, 10): FER+ votes of each face from `fer2013_manifest.csv`; zeros where there are none, or no such file."""
    path, votes = data_root() / "fer2013_manifest.csv", np.zeros((len(samples), len(FER_PLUS)), int)
    if path.is_file():
        rows = {Path(row.file).name: row.votes for row in read_manifest(path)}
        for line, sample in zip(votes, samples, strict=True):
            line[:] = [rows.get(sample.path.name, {}).get(name, 0) for name in FER_PLUS]
    return votes


def expected_labels(labels: np.ndarray, votes: np.ndarray, classes: int) -> np.ndarray:
    """float32 (N, classes): which label FER-2013 gives, on average, to a face with these FER+ votes.

    labels: int (N,), FER-2013's. votes: (N, 10) counts of FER+ raters (Barsoum et al., 2016, arXiv:1608.01041) in the
    order of `FER_PLUS`; a row of zeros, where FER+ has no votes, keeps its label.

    FER+ raters call more faces neutral than FER-2013 does, so their votes are not taken as they are: a logistic
    regression from the shares of the votes to FER-2013's label keeps what the raters saw and FER-2013's habits.
    """
    expected = np.eye(classes, dtype=np.float32)[labels]
    rated = votes.sum(axis=1) > 0
    if len(set(labels[rated])) > 1:
        shares = votes[rated] / votes[rated].sum(axis=1, keepdims=True)
        regression = LogisticRegression(C=10.0, max_iter=1000).fit(shares, labels[rated])
        rows = np.zeros((len(shares), classes), np.float32)
        rows[:, regression.classes_] = regression.predict_proba(shares)
        expected[rated] = rows
    return expected
