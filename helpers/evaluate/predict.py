"""The deployed models on folders of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.action.classifier import ActionClassifier
from helpers.action.clips import video_steps, windows
from helpers.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from helpers.data.folders import Sample, Skipped, class_folders, list_samples
from helpers.emotion.classifier import EmotionClassifier
from helpers.emotion.faces import FaceFinder, crop_samples
from helpers.errors import DataError
from helpers.evaluate.metrics import Predictions

_BATCH = 256  # faces: few megabytes, and no faster when larger


def evaluate_action(source: Path | str, model_dir: Path | str) -> tuple[Predictions, list[Skipped]]:
    """Score the action model in `model_dir` on class folders (or zips) of videos.

    Returns the predictions and what was left out. Raises DataError when the model or the source
    cannot be used, and when a class folder's name is none of the model's labels.
    """
    classifier = ActionClassifier.load(model_dir)
    samples, left_out = _labelled_samples(source, classifier.labels, VIDEO_SUFFIXES)
    predictions, skipped = predict_actions(samples, classifier)
    return replace(predictions, groups=()), left_out + skipped


def evaluate_emotion(
    source: Path | str, model_dir: Path | str, detect: bool = False
) -> tuple[Predictions, list[Skipped]]:
    """Score the emotion model in `model_dir` on class folders (or zips) of images.

    detect: the images are full photos in which the face is found first (the largest one when there
    are several); without it they are already cut to the face, as in FER-2013.
    Returns and raises as `evaluate_action` does.
    """
    classifier = EmotionClassifier.load(model_dir)
    samples, left_out = _labelled_samples(source, classifier.labels, IMAGE_SUFFIXES)
    predictions, skipped = predict_emotions(samples, classifier, detect)
    return replace(predictions, groups=()), left_out + skipped


def predict_actions(samples: Sequence[Sample], classifier: ActionClassifier) -> tuple[Predictions, list[Skipped]]:
    """Class probabilities of each video: the mean over all its windows; what was left out."""
    rows, used, skipped = [], [], []
    for sample in _progress(samples):
        try:
            rows.append(_video_probabilities(sample.path, classifier))
            used.append(sample)
        except DataError as error:
            skipped.append(Skipped(sample.path, str(error)))
    return _predictions(used, classifier.labels, rows), skipped


def _video_probabilities(path: Path, classifier: ActionClassifier) -> np.ndarray:
    features = classifier.encode(video_steps(path, classifier.spec))
    return classifier.classify(windows(features, classifier.spec)).mean(axis=0)


def predict_emotions(
    samples: Sequence[Sample], classifier: EmotionClassifier, detect: bool = False
) -> tuple[Predictions, list[Skipped]]:
    """Class probabilities of each image, one forward pass; what was left out. `detect` as above."""
    skipped: list[Skipped] = []
    preprocessor = classifier.preprocessor
    crops, used = crop_samples(_progress(samples), preprocessor, FaceFinder(), detect, skipped)
    rows: list[np.ndarray] = []
    for start in range(0, len(crops), _BATCH):
        rows.extend(classifier.predict(preprocessor.normalise(crops[start : start + _BATCH])))
    return _predictions(used, classifier.labels, rows), skipped


def _predictions(samples: Sequence[Sample], classes: Sequence[str], rows: Sequence[np.ndarray]) -> Predictions:
    probabilities = np.array(rows, dtype=np.float32).reshape(len(samples), len(classes))
    if not np.isfinite(probabilities).all():
        raise DataError(
            "the model's outputs are not finite: it is damaged or diverged in training; restore it or train it again"
        )
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # quantised rows sum to 1 only nearly
    return Predictions(
        files=tuple(f"{sample.label}/{sample.path.name}" for sample in samples),
        labels=tuple(sample.label for sample in samples),
        classes=tuple(classes),
        probabilities=probabilities,
        groups=tuple(sample.group for sample in samples),
    )


def _progress(samples: Sequence[Sample]) -> Iterator[Sample]:
    return tqdm(samples, unit="file", leave=False, disable=None)  # None: only for a terminal


def _labelled_samples(
    source: Path | str, labels: Sequence[str], suffixes: frozenset[str]
) -> tuple[list[Sample], list[Skipped]]:
    """The files to score, from the part `test` of a source that is split into train and test."""
    root = class_folders(source)
    parts = {folder.name.lower(): folder for folder in root.iterdir() if folder.is_dir()}
    skipped: list[Skipped] = []
    samples = list_samples(parts["test"] if {"train", "test"} <= set(parts) else root, suffixes, skipped, grouped=False)
    unknown = sorted({sample.label for sample in samples} - set(labels))
    if unknown:
        raise DataError(
            f"{source}: the class folders {', '.join(unknown)} are none of the model's "
            f"labels {', '.join(labels)}; rename the folders or take them out"
        )
    return samples, skipped
