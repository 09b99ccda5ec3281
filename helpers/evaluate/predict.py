"""The deployed models on folders of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.action.classifier import ActionClassifier
from helpers.action.clips import NONE, mean_over_windows, windows
from helpers.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from helpers.data.folders import Sample, Skipped, class_folders, list_samples
from helpers.data.videos import read_frames, shortfall
from helpers.emotion.classifier import EmotionClassifier
from helpers.emotion.faces import FaceFinder, crop_samples
from helpers.errors import DataError
from helpers.predictions import Predictions
from helpers.smoothing import HysteresisSmoother, Smoothing

_BATCH = 256  # faces: few megabytes, and no faster when larger


@dataclass(frozen=True)
class Rejection:
    """What the live system would show for whole clips, with the model's own threshold.

    answered: share of the action clips that get an answer at any time. right: share of these whose longest-shown answer
    is right. false_alarms: share of the `negatives` clips without an action that get any answer. A share of no clip at
    all is not a number.
    """

    answered: float
    right: float
    false_alarms: float
    negatives: int

    def line(self) -> str:
        """The line a machine can read: `answered=0.78 right=0.91 false_alarms=0.06 negatives=132`."""
        return (
            f"answered={self.answered:.2f} right={self.right:.2f} "
            f"false_alarms={self.false_alarms:.2f} negatives={self.negatives}"
        )


@dataclass(frozen=True)
class Evaluation:
    """What a model made of a folder: of each file that could be used its answer, and what was left out.

    incomplete: the videos that were scored although a part of them could not be decoded.
    """

    predictions: Predictions
    skipped: list[Skipped]
    incomplete: list[Skipped] = field(default_factory=list)
    rejection: Rejection | None = None


def evaluate_action(
    source: Path | str, model: Path | str, *, reject: bool = False, scaling: str | None = None
) -> Evaluation:
    """Score an action model on class folders (or zips) of videos.

    The predictions hold a row for each clip that shows an action: the mean over its half-overlapping windows. Clips in
    a class folder `none` count in the rejection alone, which is measured when `reject` is true. scaling: see
    `ActionClassifier.load`. Raises DataError when the model or the source cannot be used, and when a class folder's
    name is none of the model's labels.
    """
    classifier = ActionClassifier.load(model, scaling=scaling)
    samples, skipped = _labelled_samples(source, (*classifier.labels, NONE), VIDEO_SUFFIXES)
    if not reject:
        samples = [sample for sample in samples if sample.label != NONE]
    rows, shown, used, incomplete = [], [], [], []
    for sample in _progress(samples):
        damaged: list[int] = []
        try:
            features, times = _encode_video(sample.path, classifier, damaged)
        except DataError as error:
            skipped.append(Skipped(sample.path, str(error)))
            continue
        used.append(sample)
        if short := shortfall(sample.path, times[-1]):
            incomplete.append(Skipped(sample.path, short))
        elif damaged:
            incomplete.append(Skipped(sample.path, f"frames that cannot be decoded: {', '.join(map(str, damaged))}"))
        rows.append(mean_over_windows(classifier.classify, features, classifier.spec))
        if reject:
            shown.append(_longest_shown(features, times, classifier))
    known = [index for index, sample in enumerate(used) if sample.label != NONE]
    predictions = Predictions.from_samples(
        [used[index] for index in known], classifier.labels, [rows[index] for index in known]
    )
    rejection = _rejection([sample.label for sample in used], shown) if reject else None
    return Evaluation(replace(predictions, groups=()), skipped, incomplete, rejection)


def _encode_video(path: Path, classifier: ActionClassifier, damaged: list[int]) -> tuple[np.ndarray, list[float]]:
    """(features (n, F) of the time steps, their n times and the last frame's, in seconds)."""
    sampler, steps, times, time_s = classifier.sampler(), [], [], 0.0
    for frame, time_s in read_frames(path, damaged):
        step = sampler.push(frame, time_s)
        if step is not None:
            steps.append(step)
            times.append(time_s)
    return classifier.encode(steps), [*times, time_s]


def _longest_shown(features: np.ndarray, times: list[float], classifier: ActionClassifier) -> str | None:
    """The action that the live display shows for the longest time, None when it shows none at all."""
    answer, seconds = HysteresisSmoother(), {}
    for end in range(classifier.shortest, len(features) + 1):
        seen = features[max(0, end - classifier.memory) : end]
        probabilities = classifier.classify(windows(seen, classifier.spec))[0]
        answer.update(probabilities, times[end - 1], classifier.threshold, Smoothing())
        if answer.index is not None:
            label = classifier.labels[answer.index]
            seconds[label] = seconds.get(label, 0.0) + times[end] - times[end - 1]
    return max(seconds, key=seconds.get) if seconds else None


def _rejection(labels: Sequence[str], shown: Sequence[str | None]) -> Rejection:
    """labels: of N clips, `none` for those without an action. shown: N labels of the longest-shown answers."""
    pairs = list(zip(labels, shown, strict=True))
    answered = [answer is not None for label, answer in pairs if label != NONE]
    right = [label == answer for label, answer in pairs if label != NONE and answer is not None]
    alarms = [answer is not None for label, answer in pairs if label == NONE]
    return Rejection(_share(answered), _share(right), _share(alarms), len(alarms))


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")


def evaluate_emotion(source: Path | str, model: Path | str, detect: bool = False) -> Evaluation:
    """Score an emotion model on class folders (or zips) of images.

    detect: the images are full photos in which the face is found first (the largest one when there
    are several); without it they are already cut to the face, as in FER-2013.
    Raises as `evaluate_action` does.
    """
    classifier = EmotionClassifier.load(model, strict=True)  # an assumed order of labels gives a wrong figure
    samples, left_out = _labelled_samples(source, classifier.labels, IMAGE_SUFFIXES)
    predictions, skipped = predict_emotions(samples, classifier, detect)
    return Evaluation(replace(predictions, groups=()), left_out + skipped)


def predict_emotions(
    samples: Sequence[Sample], classifier: EmotionClassifier, detect: bool = False
) -> tuple[Predictions, list[Skipped]]:
    """Class probabilities of each image, one forward pass; what was left out. `detect` as above."""
    skipped: list[Skipped] = []
    preprocessor = classifier.preprocessor
    crops, used = crop_samples(_progress(samples), preprocessor, FaceFinder(), detect=detect, skipped=skipped)
    rows: list[np.ndarray] = []
    for start in range(0, len(crops), _BATCH):
        rows.extend(classifier.predict(preprocessor.normalise(crops[start : start + _BATCH])))
    return Predictions.from_samples(used, classifier.labels, rows), skipped


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
