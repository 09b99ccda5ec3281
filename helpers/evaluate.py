"""Metrics, figures and the command line that scores the deployed models on folders of files.

    python -m helpers.evaluate action  FOLDER_OR_ZIP [--model DIR] [--csv OUT.csv]
    python -m helpers.evaluate emotion FOLDER_OR_ZIP [--model DIR] [--csv OUT.csv] [--detect]

Everything above the line "The deployed path" is NumPy, scikit-learn and matplotlib only: a notebook
can score committed predictions without TensorFlow and without a data set.
"""

from __future__ import annotations

import argparse
import csv
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tqdm import tqdm

from helpers.artifacts import DEFAULT_ACTION, DEFAULT_EMOTION, ActionClassifier, EmotionClassifier
from helpers.clips import video_steps, windows
from helpers.datasets import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    DataError,
    Sample,
    Skipped,
    class_folders,
    list_samples,
)
from helpers.faces import FaceFinder, crop_samples

# ---------------------------------------------------------------------------------- predictions


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said about N files, and what is true: all that the metrics below need.

    files: N names, `<class>/<file>`.  labels: N true class names.
    classes: the C class names of the model, in the order of its outputs.
    probabilities: float (N, C), rows sum to 1.
    groups: N names of the person, place or sequence a file comes from; empty when not known.
    Raises ValueError when the parts do not fit together.
    """

    files: Sequence[str]
    labels: Sequence[str]
    classes: Sequence[str]
    probabilities: np.ndarray
    groups: Sequence[str] = ()

    def __post_init__(self) -> None:
        count = len(self.files)
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"a class is named twice: {', '.join(self.classes)}")
        if len(self.labels) != count or len(self.groups) not in (0, count):
            raise ValueError(f"{count} files need {count} labels and {count} or no groups, "
                             f"not {len(self.labels)} and {len(self.groups)}")
        if np.shape(self.probabilities) != (count, len(self.classes)):
            raise ValueError(f"probabilities of {count} files and {len(self.classes)} classes "
                             f"cannot have the shape {np.shape(self.probabilities)}")
        if not np.allclose(np.sum(self.probabilities, axis=1), 1.0, atol=1e-3):
            raise ValueError("each row of probabilities must sum to 1")
        unknown = sorted(set(self.labels) - set(self.classes))
        if unknown:
            raise ValueError(f"labels {', '.join(unknown)} are none of {', '.join(self.classes)}")

    @property
    def targets(self) -> np.ndarray:
        """int (N,): index of the true class."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.labels], dtype=int)

    @property
    def predicted(self) -> np.ndarray:
        """str (N,): name of the most probable class, without any rejection threshold."""
        return np.array(self.classes)[np.argmax(self.probabilities, axis=1)]

    @property
    def confidence(self) -> np.ndarray:
        """float (N,): probability of the most probable class, in [1/C, 1]."""
        return np.max(self.probabilities, axis=1)

    @property
    def correct(self) -> np.ndarray:
        """bool (N,): is the most probable class the true one?"""
        return np.argmax(self.probabilities, axis=1) == self.targets

    def part(self, chosen: np.ndarray) -> Predictions:
        """The predictions of the files for which bool `chosen` (N,) is true."""
        index = np.flatnonzero(chosen)
        names = {key: tuple(getattr(self, key)[i] for i in index) if getattr(self, key) else ()
                 for key in ("files", "labels", "groups")}
        return replace(self, **names, probabilities=self.probabilities[index])

    def save(self, path: Path | str) -> None:
        """Write an `.npz` of plain arrays: no pickle, so that loading it never runs code."""
        np.savez_compressed(
            path, files=np.array(self.files, dtype=str), labels=np.array(self.labels, dtype=str),
            classes=np.array(self.classes, dtype=str), groups=np.array(self.groups, dtype=str),
            probabilities=np.asarray(self.probabilities, dtype=np.float32))

    @classmethod
    def load(cls, path: Path | str) -> Predictions:
        """Read what `save` wrote; DataError when the file is missing, cut off or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = {key: tuple(arrays[key].tolist())
                         for key in ("files", "labels", "classes", "groups")}
                return cls(**names, probabilities=arrays["probabilities"])
        except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: cannot be read as predictions ({error}); "
                            "evaluate the model again to write it anew") from error


# -------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class, each in [0, 1], and how many files truly are of it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Metrics:
    """Scores over n files. `skipped` files could not be used and count in nothing else.

    `per_class` and `macro_f1` cover the classes that occur in the labels: a class without a file
    has no recall, and a folder may hold only some of the model's classes.
    `absent` lists the other classes, each with how often it was (wrongly) predicted.
    """

    accuracy: float
    macro_f1: float
    n: int
    skipped: int
    per_class: tuple[ClassScore, ...]
    absent: tuple[tuple[str, int], ...] = ()


def summarise(predictions: Predictions, skipped: int = 0) -> Metrics:
    """Accuracy, macro-F1 and a row per class that occurs; DataError when nothing can be scored."""
    if len(predictions.files) == 0:
        raise DataError(f"nothing to score: no file could be used ({skipped} skipped)")
    present = [name for name in predictions.classes if name in set(predictions.labels)]
    predicted = predictions.predicted
    columns = precision_recall_fscore_support(
        predictions.labels, predicted, labels=present, zero_division=0)
    rows = tuple(ClassScore(label, float(precision), float(recall), float(f1), int(support))
                 for label, precision, recall, f1, support in zip(present, *columns, strict=True))
    absent = tuple((name, int(np.sum(predicted == name)))
                   for name in predictions.classes if name not in present)
    return Metrics(float(np.mean(predictions.correct)), float(np.mean(columns[2])),
                   len(predictions.files), skipped, rows, absent)


def confusion_counts(predictions: Predictions) -> np.ndarray:
    """int (C, C): files of the true class (row) that were given the predicted class (column)."""
    return confusion_matrix(predictions.labels, predictions.predicted,
                            labels=list(predictions.classes))


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for a proportion, each in [0, 1]: right also for few files and for 0 % or 100 %.

    Assumes independent files; for several files of one person use `bootstrap_accuracy`.
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927) 209-212; recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} are not a proportion")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    half_width = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - half_width) / (1 + z * z / n), (centre + half_width) / (1 + z * z / n)
    return max(0.0, float(low)), min(1.0, float(high))


def bootstrap_accuracy(predictions: Predictions, groups: Sequence[str], seed: int = 0,
                       rounds: int = 2000, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the accuracy when the files of one person or place rise and fall together.

    Percentile bootstrap that draws whole groups with replacement: Field and Welsh, "Bootstrapping
    clustered data", JRSS B 69 (2007) 369-390. With fewer than about ten groups it is too narrow.
    """
    if len(groups) != len(predictions.files) or len(groups) == 0:
        raise ValueError(f"{len(predictions.files)} files need as many groups, not {len(groups)}")
    _, group_of_file = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(group_of_file)
    hits = np.bincount(group_of_file, weights=predictions.correct)
    drawn = np.random.default_rng(seed).integers(len(sizes), size=(rounds, len(sizes)))
    accuracies = hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(accuracies, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def reliability_bins(probabilities: np.ndarray, targets: np.ndarray,
                     bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per equal-width confidence bin: count int (bins,), mean confidence, accuracy float (bins,).

    A bin holds the confidences in (lower edge, upper edge]; the means of an empty bin are 0.
    """
    confidence = np.max(probabilities, axis=1)
    correct = np.argmax(probabilities, axis=1) == targets
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    bin_of_file = np.digitize(confidence, inner_edges, right=True)
    counts = np.bincount(bin_of_file, minlength=bins)
    divisor = np.maximum(counts, 1)
    mean_confidence = np.bincount(bin_of_file, weights=confidence, minlength=bins) / divisor
    accuracy = np.bincount(bin_of_file, weights=correct, minlength=bins) / divisor
    return counts, mean_confidence, accuracy


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray,
                               bins: int = 15) -> float:
    """How far confidence and accuracy are apart, 0 (calibrated) to 1, weighted by files per bin.

    probabilities (N, C), targets int (N,). Source: Guo et al., "On calibration of modern neural
    networks", ICML 2017, equation 3, with its 15 bins.
    """
    if len(targets) == 0 or len(probabilities) != len(targets):
        raise ValueError(f"{len(probabilities)} rows of probabilities need as many targets, "
                         f"at least one, not {len(targets)}")
    counts, mean_confidence, accuracy = reliability_bins(probabilities, np.asarray(targets), bins)
    return float(np.sum(counts * np.abs(accuracy - mean_confidence)) / np.sum(counts))


def worst_errors(predictions: Predictions, k: int) -> np.ndarray:
    """int (<= k,): positions of the mistakes, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:k]


def rejection_curve(predictions: Predictions, no_action_confidence: Sequence[float] = (),
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is gained and lost when answers below a confidence threshold are not shown.

    Returns thresholds (ascending), precision (right among the shown) and recall (shown and right
    among all N), each float (T,). `no_action_confidence` holds the confidences of recordings that
    show no known action: whatever is shown for them is wrong, so they lower precision only.
    """
    never_right = np.zeros(len(no_action_confidence), dtype=bool)
    confidence = np.append(predictions.confidence, no_action_confidence)
    correct = np.append(predictions.correct, never_right)
    thresholds = np.unique(confidence)
    shown = confidence[None, :] >= thresholds[:, None]
    right = (shown & correct).sum(axis=1)
    return thresholds, right / shown.sum(axis=1), right / len(predictions.files)


# ----------------------------------------------------------------------------------------- text


def metrics_line(metrics: Metrics) -> str:
    """The line a machine can read: `accuracy=0.712 macro_f1=0.655 n=1230 skipped=2`."""
    return (f"accuracy={metrics.accuracy:.3f} macro_f1={metrics.macro_f1:.3f} "
            f"n={metrics.n} skipped={metrics.skipped}")


def format_table(metrics: Metrics, max_rows: int = 18) -> str:
    """Plain-text table of the classes, their mean, and the accuracy with its 95 % Wilson interval.

    More than `max_rows` classes: those with the lowest F1, so that a notebook cell stays short.
    """
    rows = list(metrics.per_class)
    if len(rows) > max_rows:
        rows = sorted(rows, key=lambda row: row.f1)[:max_rows]
    width = max(len("macro mean"), *(len(row.label) for row in rows))
    lines = [f"{'class':<{width}}  precision  recall     f1  support"]
    lines += [_row(width, row) for row in rows]
    if len(rows) < len(metrics.per_class):
        lines.append(f"... and {len(metrics.per_class) - len(rows)} more classes with a higher f1")
    lines.append(_row(width, _mean_of_classes(metrics)))
    lines.append(_accuracy_sentence(metrics))
    if metrics.absent:
        wrongly = sum(count for _, count in metrics.absent)
        lines.append(f"classes of the model without a file here: {len(metrics.absent)}, "
                     f"predicted {wrongly} times")
    return "\n".join(lines)


def format_accuracies(sets: Mapping[str, Predictions]) -> str:
    """One line per set of predictions: n, accuracy with its 95 % Wilson interval, macro-F1."""
    width, lines = max(len(name) for name in sets), []
    for name, predictions in sets.items():
        metrics = summarise(predictions)
        low, high = wilson_interval(int(predictions.correct.sum()), metrics.n)
        lines.append(f"{name:<{width}}  n={metrics.n:5}  accuracy {metrics.accuracy:.3f} ({low:.3f}..{high:.3f})  "
                     f"macro-F1 {metrics.macro_f1:.3f}")
    return "\n".join(lines)


def _row(width: int, score: ClassScore) -> str:
    return (f"{score.label:<{width}}  {score.precision:9.3f}  {score.recall:6.3f}  "
            f"{score.f1:5.3f}  {score.support:7d}")


def _mean_of_classes(metrics: Metrics) -> ClassScore:
    precision = np.mean([row.precision for row in metrics.per_class])
    recall = np.mean([row.recall for row in metrics.per_class])
    return ClassScore("macro mean", precision, recall, metrics.macro_f1, metrics.n)


def _accuracy_sentence(metrics: Metrics) -> str:
    right = round(metrics.accuracy * metrics.n)
    low, high = wilson_interval(right, metrics.n)
    return (f"accuracy {metrics.accuracy:.3f} = {right} of {metrics.n}, "
            f"95 % interval {low:.3f} to {high:.3f}")


def format_histories(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Plain-text table of what `plot_histories` draws: each run at its best validation accuracy, or, where there is
    no validation, at its last epoch."""
    width = max(len("run"), *(len(name) for name in histories))
    lines = [f"{'run':<{width}}  epochs       shown  val_accuracy  val_loss  accuracy   loss"]
    for name, history in histories.items():
        count = len(history["accuracy"])
        shown = int(np.argmax(history["val_accuracy"])) if "val_accuracy" in history else count - 1
        validation = [f"{history[key][shown]:.3f}" if key in history else "-" for key in ("val_accuracy", "val_loss")]
        lines.append(f"{name:<{width}}  {count:6d}  {shown + 1:10d}  {validation[0]:>12}  {validation[1]:>8}  "
                     f"{history['accuracy'][shown]:8.3f}  {history['loss'][shown]:5.3f}")
    return "\n".join(lines)


# -------------------------------------------------------------------------------------- figures
# Each function returns its figure, closed for pyplot: a notebook shows a returned figure by itself
# and would show one that pyplot still holds a second time.

_DPI = 80  # an 8-inch figure is 640 pixels wide: readable in a notebook, a few tens of kB
_COUNTS_UP_TO = 12  # classes; with more the numbers in the cells of a confusion matrix overlap
_NAMES_UP_TO = 40  # class names along an axis; with more only every second, third, ... is written


def _new_figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6, 4),
                **options) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=_DPI, layout="constrained",
                                squeeze=False, **options)
    plt.close(figure)
    return figure, axes


def plot_confusion(predictions: Predictions, ax: Axes | None = None) -> Figure:
    """Confusion matrix: share of each true class (colour, first number) and count (second number).

    A class without a file keeps an empty row. With many classes the numbers are left out, with
    very many also some of the names.
    """
    counts = confusion_counts(predictions)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if ax is None:
        side = 3.2 + 0.5 * min(len(counts), 12)
        ax = _new_figure(size=(side + 0.6, side))[1][0, 0]
    notes = np.array([f"{share:.2f}\n{count}" if count else ""
                      for share, count in zip(shares.flat, counts.flat, strict=True)])
    sns.heatmap(shares, ax=ax, vmin=0, vmax=1, cmap="Blues", square=True, fmt="",
                annot_kws={"size": 8},
                annot=notes.reshape(counts.shape) if len(counts) <= _COUNTS_UP_TO else None,
                xticklabels=False, yticklabels=False,
                cbar_kws={"label": "share of the true class", "shrink": 0.8})
    named = np.arange(0, len(counts), -(-len(counts) // _NAMES_UP_TO))
    names = [predictions.classes[number] for number in named]
    size = 10 if len(counts) <= _COUNTS_UP_TO else 8
    ax.set_xticks(named + 0.5, names, rotation=90, fontsize=size)
    ax.set_yticks(named + 0.5, names, rotation=0, fontsize=size)
    ax.set(xlabel="predicted", ylabel="true",
           title=f"accuracy {np.mean(predictions.correct):.3f}, n = {len(predictions.files)}")
    return ax.figure


def plot_histories(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Loss and accuracy by epoch of several runs: {name: Keras `History.history`}.

    Validation solid, training dashed; one colour of seaborn's colour-blind palette per run.
    """
    figure, axes = _new_figure(1, 2, size=(10, 3.8))
    colours = sns.color_palette("colorblind", len(histories))
    for ax, key in zip(axes[0], ("loss", "accuracy"), strict=True):
        for colour, history in zip(colours, histories.values(), strict=True):
            epochs = np.arange(1, len(history[key]) + 1)
            ax.plot(epochs, history[key], color=colour, linestyle="--", linewidth=1)
            if f"val_{key}" in history:
                ax.plot(epochs, history[f"val_{key}"], color=colour, linewidth=2)
        ax.set(xlabel="epoch", ylabel=key)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    handles = [Line2D([], [], color=colour, linewidth=2, label=name)
               for colour, name in zip(colours, histories, strict=True)]
    handles += [Line2D([], [], color="gray", linewidth=2, label="validation"),
                Line2D([], [], color="gray", linestyle="--", linewidth=1, label="training")]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6),
                  frameon=False)
    return figure


def plot_precision_recall(predictions: Predictions, no_action_confidence: Sequence[float] = (),
                          threshold: float | None = None) -> Figure:
    """Precision and recall against the confidence threshold below which no answer is shown.

    See `rejection_curve` for both terms; `threshold` in [0, 1] marks the chosen one.
    """
    thresholds, precision, recall = rejection_curve(predictions, no_action_confidence)
    precision_colour, recall_colour = sns.color_palette("colorblind", 2)
    figure, axes = _new_figure(size=(6.5, 4))
    ax = axes[0, 0]
    ax.plot(thresholds, precision, color=precision_colour, label="precision: right among the shown")
    ax.plot(thresholds, recall, color=recall_colour, linestyle="--",
            label="recall: shown and right among all")
    if threshold is not None:
        ax.axvline(threshold, color="gray", linestyle=":", label=f"threshold {threshold:.2f}")
    ax.set(xlabel="confidence threshold", ylabel="share", xlim=(0, 1), ylim=(0, 1.02))
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=1, frameon=False)
    return figure


def plot_reliability(predictions: Predictions, bins: int = 15) -> Figure:
    """Accuracy against confidence, the number of files per bin below it; the diagonal is ideal."""
    counts, mean_confidence, accuracy = reliability_bins(
        predictions.probabilities, predictions.targets, bins)
    error = expected_calibration_error(predictions.probabilities, predictions.targets, bins)
    used = counts > 0
    figure, (top, bottom) = _new_figure(2, 1, size=(5.5, 5), sharex=True, height_ratios=[3, 1])
    top[0].plot([0, 1], [0, 1], color="gray", linestyle=":", label="calibrated")
    top[0].plot(mean_confidence[used], accuracy[used], marker="o", label="this model")
    top[0].set(ylabel="accuracy", ylim=(0, 1.02), title=f"expected calibration error {error:.3f}")
    top[0].legend(loc="upper left", frameon=False)
    bottom[0].bar((np.arange(bins) + 0.5) / bins, counts, width=0.9 / bins)
    bottom[0].set(xlabel="confidence", ylabel="files", xlim=(0, 1))
    return figure


def _displayable(image: np.ndarray) -> np.ndarray:
    """uint8 BGR or gray, or float in [-1, 1] (RGB, motion or gray), to uint8 RGB or gray (H, W)."""
    if image.dtype == np.uint8:
        return image[..., ::-1] if image.ndim == 3 else image
    return np.clip((np.squeeze(image) + 1) * 127.5, 0, 255).astype(np.uint8)


def plot_clip_strip(frames: np.ndarray, title: str, count: int = 8) -> Figure:
    """`count` frames of one clip, evenly spaced, side by side with their numbers.

    frames: (n, H, W, 3), uint8 BGR as read, or the time steps that the model sees, in [-1, 1].
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    titles = [f"frame {number}" for number in chosen]
    columns = max(len(chosen), 4)  # a short clip, too, leaves room for the title
    figure = plot_image_grid(frames[chosen], titles, columns)
    figure.suptitle(title, fontsize=10)
    return figure


def plot_image_grid(images: Sequence[np.ndarray], titles: Sequence[str], columns: int) -> Figure:
    """Images in rows of `columns`, a title (may hold line breaks) above each.

    images: uint8 (H, W) gray or (H, W, 3) BGR as read, or a model's input in [-1, 1], (H, W, 1)
    or (H, W, 3) RGB; sizes may differ.
    """
    rows = -(-len(images) // columns)
    title_lines = max(title.count("\n") + 1 for title in titles)
    height = rows * (1.5 + 0.17 * title_lines)
    figure, axes = _new_figure(rows, columns, size=(1.5 * columns, height))
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(_displayable(image), cmap="gray", vmin=0, vmax=255)
        ax.set_title(title, fontsize=8)
    return figure


# ---------------------------------------------------------------------------- the deployed path

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


def evaluate_emotion(source: Path | str, model_dir: Path | str,
                     detect: bool = False) -> tuple[Predictions, list[Skipped]]:
    """Score the emotion model in `model_dir` on class folders (or zips) of images.

    detect: the images are full photos in which the face is found first (the largest one when there
    are several); without it they are already cut to the face, as in FER-2013.
    Returns and raises as `evaluate_action` does.
    """
    classifier = EmotionClassifier.load(model_dir)
    samples, left_out = _labelled_samples(source, classifier.labels, IMAGE_SUFFIXES)
    predictions, skipped = predict_emotions(samples, classifier, detect)
    return replace(predictions, groups=()), left_out + skipped


def predict_actions(samples: Sequence[Sample],
                    classifier: ActionClassifier) -> tuple[Predictions, list[Skipped]]:
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


def predict_emotions(samples: Sequence[Sample], classifier: EmotionClassifier,
                     detect: bool = False) -> tuple[Predictions, list[Skipped]]:
    """Class probabilities of each image, one forward pass; what was left out. `detect` as above."""
    skipped: list[Skipped] = []
    preprocessor = classifier.preprocessor
    crops, used = crop_samples(_progress(samples), preprocessor, FaceFinder(), detect, skipped)
    rows: list[np.ndarray] = []
    for start in range(0, len(crops), _BATCH):
        rows.extend(classifier.predict(preprocessor.normalise(crops[start:start + _BATCH])))
    return _predictions(used, classifier.labels, rows), skipped


def _predictions(samples: Sequence[Sample], classes: Sequence[str],
                 rows: Sequence[np.ndarray]) -> Predictions:
    probabilities = np.array(rows, dtype=np.float32).reshape(len(samples), len(classes))
    if not np.isfinite(probabilities).all():
        raise DataError("the model's outputs are not finite: it is damaged or diverged in "
                        "training; restore it or train it again")
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # quantised rows sum to 1 only nearly
    return Predictions(files=tuple(f"{sample.label}/{sample.path.name}" for sample in samples),
                       labels=tuple(sample.label for sample in samples), classes=tuple(classes),
                       probabilities=probabilities,
                       groups=tuple(sample.group for sample in samples))


def _progress(samples: Sequence[Sample]) -> Iterator[Sample]:
    return tqdm(samples, unit="file", leave=False, disable=None)  # None: only for a terminal


def _labelled_samples(source: Path | str, labels: Sequence[str],
                      suffixes: frozenset[str]) -> tuple[list[Sample], list[Skipped]]:
    """The files to score, from the part `test` of a source that is split into train and test."""
    root = class_folders(source)
    parts = {folder.name.lower(): folder for folder in root.iterdir() if folder.is_dir()}
    skipped: list[Skipped] = []
    samples = list_samples(parts["test"] if {"train", "test"} <= set(parts) else root,
                           suffixes, skipped, grouped=False)
    unknown = sorted({sample.label for sample in samples} - set(labels))
    if unknown:
        raise DataError(f"{source}: the class folders {', '.join(unknown)} are none of the model's "
                        f"labels {', '.join(labels)}; rename the folders or take them out")
    return samples, skipped


# --------------------------------------------------------------------------------- command line


def write_csv(path: Path | str, predictions: Predictions) -> None:
    """One row per file: `file,label,predicted,confidence` and a column `p_<class>` per class."""
    columns = [f"p_{name}" for name in predictions.classes]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "predicted", "confidence", *columns])
        names = zip(predictions.files, predictions.labels, predictions.predicted, strict=True)
        for name, row in zip(names, predictions.probabilities, strict=True):
            writer.writerow([*name, f"{row.max():.6f}", *(f"{value:.6f}" for value in row)])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.evaluate",
                                     description="Score a model on class folders of files.")
    tasks = parser.add_subparsers(dest="task", required=True)
    action = tasks.add_parser("action", help="score the action model on videos")
    emotion = tasks.add_parser("emotion", help="score the emotion model on images of faces")
    for command, default in ((action, DEFAULT_ACTION), (emotion, DEFAULT_EMOTION)):
        command.add_argument("source", metavar="FOLDER_OR_ZIP",
                             help="class folders, or zips of them")
        command.add_argument("--model", metavar="DIR", default=default,
                             help="default: %(default)s")
        command.add_argument("--csv", metavar="OUT.csv", help="write a row per file here")
    emotion.add_argument("--detect", action="store_true",
                         help="find and align the face in a full photo first")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 when model or source cannot be used."""
    options = _parse(arguments)
    try:
        # Said before the work, which may take an hour.
        if options.csv and not Path(options.csv).absolute().parent.is_dir():
            raise DataError(f"{options.csv}: its folder does not exist; create it first")
        if options.task == "action":
            predictions, skipped = evaluate_action(options.source, options.model)
        else:
            predictions, skipped = evaluate_emotion(options.source, options.model, options.detect)
        for item in skipped:
            reason = item.reason.removeprefix(f"{item.path}: ")
            print(f"skipped {item.path}: {reason}", file=sys.stderr)
        metrics = summarise(predictions, len(skipped))
        print(metrics_line(metrics))
        print(format_table(metrics, max_rows=len(metrics.per_class)))
        if options.csv:
            write_csv(options.csv, predictions)
    except (DataError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
