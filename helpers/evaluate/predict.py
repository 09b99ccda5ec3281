"""The deployed models on folders of files."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.action.classifier import ActionClassifier
from helpers.action.clips import NONE, mean_over_windows, windows
from helpers.action.rejection import LiveAnswers, Rejection, measure_rejection
from helpers.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from helpers.data.folders import Sample, Skipped, class_folders, list_samples
from helpers.data.jobs import map_files
from helpers.data.videos import read_frames, shortfall
from helpers.emotion.classifier import EmotionClassifier
from helpers.emotion.faces import FaceFinder, are_photographs, crop_samples
from helpers.errors import DataError
from helpers.predictions import Predictions

_BATCH = 256  # faces: few megabytes, and no faster when larger


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
    source: Path | str, model: Path | str, *, reject: bool = False, scaling: str | None = None, jobs: int = 1
) -> Evaluation:
    """Score an action model on class folders (or zips) of videos.

    The predictions hold a row for each clip that shows an action: the mean over its half-overlapping windows. Clips in
    a class folder `none` count in the rejection alone, which is measured when `reject` is true. scaling: see
    `ActionClassifier.load`. jobs: processes that work on the videos. Raises DataError when the model or the source
    cannot be used, and when a class folder's name is none of the model's labels.
    """
    scorer = _ClipScorer(model, scaling, reject)
    labels = scorer.classifier.labels
    samples, skipped = _labelled_samples(source, (*labels, NONE), VIDEO_SUFFIXES)
    if not reject:
        samples = [sample for sample in samples if sample.label != NONE]
    scored = map_files(scorer, samples, jobs, skipped=skipped, progress=_progress)
    incomplete = [Skipped(sample.path, clip.incomplete) for sample, clip in scored if clip.incomplete]
    known = [(sample, clip.row) for sample, clip in scored if sample.label != NONE]
    predictions = Predictions.from_samples([sample for sample, _ in known], labels, [row for _, row in known])
    rejection = None
    if reject:
        targets = [(*labels, NONE).index(sample.label) for sample, _ in scored]
        rejection = measure_rejection([clip.live for _, clip in scored], targets, scorer.classifier.threshold)
    return Evaluation(replace(predictions, groups=()), skipped, incomplete, rejection)


@dataclass(frozen=True)
class _Scored:
    """Probabilities of a clip, those that the live system would compute step by step, and what of it is missing."""

    row: np.ndarray
    live: LiveAnswers | None
    incomplete: str


class _ClipScorer:
    """What an action model makes of a video. A copy of it in another process loads the model there."""

    def __init__(self, model: Path | str, scaling: str | None, reject: bool):
        self.classifier = ActionClassifier.load(model, scaling=scaling)
        self._made_from = model, scaling, reject

    def __reduce__(self) -> tuple:
        return _load_quietly, self._made_from

    def __call__(self, sample: Sample) -> _Scored:
        damaged: list[int] = []
        features, times = _encode_video(sample.path, self.classifier, damaged)
        incomplete = shortfall(sample.path, times[-1])
        if damaged and not incomplete:
            incomplete = f"frames that cannot be decoded: {', '.join(map(str, damaged))}"
        row = mean_over_windows(self.classifier.classify, features, self.classifier.spec)
        _, _, reject = self._made_from
        return _Scored(row, _live_answers(features, times, self.classifier) if reject else None, incomplete)


def _load_quietly(*arguments) -> _ClipScorer:
    """What there is to say about the model the first process has said."""
    with redirect_stderr(io.StringIO()):
        return _ClipScorer(*arguments)


def _encode_video(path: Path, classifier: ActionClassifier, damaged: list[int]) -> tuple[np.ndarray, list[float]]:
    """(features (n, F) of the time steps, their n times and the last frame's, in seconds)."""
    sampler, steps, times, time_s = classifier.sampler(), [], [], 0.0
    for frame, time_s in read_frames(path, damaged):
        step = sampler.push(frame, time_s)
        if step is not None:
            steps.append(step)
            times.append(time_s)
    return classifier.encode(steps), [*times, time_s]


def _live_answers(features: np.ndarray, times: list[float], classifier: ActionClassifier) -> LiveAnswers:
    """What the live system computes after each time step. features: (n, F). times: of the steps, in seconds."""
    ends = range(classifier.shortest, len(features) + 1)
    seen = (windows(features[max(0, end - classifier.memory) : end], classifier.spec) for end in ends)
    rows = [classifier.classify(window)[0] for window in seen]
    return LiveAnswers(
        np.reshape(rows, (len(rows), len(classifier.labels))), np.array([times[end - 1] for end in ends])
    )


def evaluate_emotion(source: Path | str, model: Path | str, detect: bool = False, jobs: int = 1) -> Evaluation:
    """Score an emotion model on class folders (or zips) of images.

    detect: the images are full photos in which the face is found first (the largest one when there
    are several); without it they are already cut to the face, as in FER-2013.
    jobs: processes that cut out the faces. Raises as `evaluate_action` does.
    """
    classifier = EmotionClassifier.load(model, strict=True)  # an assumed order of labels gives a wrong figure
    samples, left_out = _labelled_samples(source, classifier.labels, IMAGE_SUFFIXES)
    if not detect and are_photographs(samples):
        print(
            "warning: these look like whole photographs, but are scored as faces that are already cut out; with "
            "--detect the face is found first",
            file=sys.stderr,
        )
    predictions, skipped = predict_emotions(samples, classifier, detect, jobs)
    return Evaluation(replace(predictions, groups=()), left_out + skipped)


def predict_emotions(
    samples: Sequence[Sample], classifier: EmotionClassifier, detect: bool = False, jobs: int = 1
) -> tuple[Predictions, list[Skipped]]:
    """Class probabilities of each image, one forward pass; what was left out. `detect` and `jobs` as above."""
    skipped: list[Skipped] = []
    preprocessor = classifier.preprocessor
    crops, used = crop_samples(
        samples, preprocessor, FaceFinder(), detect=detect, skipped=skipped, jobs=jobs, progress=_progress
    )
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
