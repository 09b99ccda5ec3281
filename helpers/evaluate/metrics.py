"""Metrics and intervals over predictions: NumPy and scikit-learn only."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from helpers.errors import DataError


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
            raise ValueError(
                f"{count} files need {count} labels and {count} or no groups, "
                f"not {len(self.labels)} and {len(self.groups)}"
            )
        if np.shape(self.probabilities) != (count, len(self.classes)):
            raise ValueError(
                f"probabilities of {count} files and {len(self.classes)} classes "
                f"cannot have the shape {np.shape(self.probabilities)}"
            )
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
        names = {
            key: tuple(getattr(self, key)[i] for i in index) if getattr(self, key) else ()
            for key in ("files", "labels", "groups")
        }
        return replace(self, **names, probabilities=self.probabilities[index])

    def save(self, path: Path | str) -> None:
        """Write an `.npz` of plain arrays: no pickle, so that loading it never runs code."""
        np.savez_compressed(
            path,
            files=np.array(self.files, dtype=str),
            labels=np.array(self.labels, dtype=str),
            classes=np.array(self.classes, dtype=str),
            groups=np.array(self.groups, dtype=str),
            probabilities=np.asarray(self.probabilities, dtype=np.float32),
        )

    @classmethod
    def load(cls, path: Path | str) -> Predictions:
        """Read what `save` wrote; DataError when the file is missing, cut off or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = {key: tuple(arrays[key].tolist()) for key in ("files", "labels", "classes", "groups")}
                return cls(**names, probabilities=arrays["probabilities"])
        except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: cannot be read as predictions ({error}); evaluate the model again to write it anew"
            ) from error


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
    columns = precision_recall_fscore_support(predictions.labels, predicted, labels=present, zero_division=0)
    rows = tuple(
        ClassScore(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(present, *columns, strict=True)
    )
    absent = tuple((name, int(np.sum(predicted == name))) for name in predictions.classes if name not in present)
    return Metrics(
        float(np.mean(predictions.correct)), float(np.mean(columns[2])), len(predictions.files), skipped, rows, absent
    )


def confusion_counts(predictions: Predictions) -> np.ndarray:
    """int (C, C): files of the true class (row) that were given the predicted class (column)."""
    return confusion_matrix(predictions.labels, predictions.predicted, labels=list(predictions.classes))


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


def bootstrap_accuracy(
    predictions: Predictions, groups: Sequence[str], seed: int = 0, rounds: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
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


def reliability_bins(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """How far confidence and accuracy are apart, 0 (calibrated) to 1, weighted by files per bin.

    probabilities (N, C), targets int (N,). Source: Guo et al., "On calibration of modern neural
    networks", ICML 2017, equation 3, with its 15 bins.
    """
    if len(targets) == 0 or len(probabilities) != len(targets):
        raise ValueError(
            f"{len(probabilities)} rows of probabilities need as many targets, at least one, not {len(targets)}"
        )
    counts, mean_confidence, accuracy = reliability_bins(probabilities, np.asarray(targets), bins)
    return float(np.sum(counts * np.abs(accuracy - mean_confidence)) / np.sum(counts))


def worst_errors(predictions: Predictions, k: int) -> np.ndarray:
    """int (<= k,): positions of the mistakes, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:k]


def rejection_curve(
    predictions: Predictions,
    no_action_confidence: Sequence[float] = (),
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


def metrics_line(metrics: Metrics) -> str:
    """The line a machine can read: `accuracy=0.712 macro_f1=0.655 n=1230 skipped=2`."""
    return f"accuracy={metrics.accuracy:.3f} macro_f1={metrics.macro_f1:.3f} n={metrics.n} skipped={metrics.skipped}"


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
        lines.append(f"classes of the model without a file here: {len(metrics.absent)}, predicted {wrongly} times")
    return "\n".join(lines)


def format_accuracies(sets: Mapping[str, Predictions]) -> str:
    """One line per set of predictions: n, accuracy with its 95 % Wilson interval, macro-F1."""
    width, lines = max(len(name) for name in sets), []
    for name, predictions in sets.items():
        metrics = summarise(predictions)
        low, high = wilson_interval(int(predictions.correct.sum()), metrics.n)
        lines.append(
            f"{name:<{width}}  n={metrics.n:5}  accuracy {metrics.accuracy:.3f} ({low:.3f}..{high:.3f})  "
            f"macro-F1 {metrics.macro_f1:.3f}"
        )
    return "\n".join(lines)


def _row(width: int, score: ClassScore) -> str:
    return f"{score.label:<{width}}  {score.precision:9.3f}  {score.recall:6.3f}  {score.f1:5.3f}  {score.support:7d}"


def _mean_of_classes(metrics: Metrics) -> ClassScore:
    precision = np.mean([row.precision for row in metrics.per_class])
    recall = np.mean([row.recall for row in metrics.per_class])
    return ClassScore("macro mean", precision, recall, metrics.macro_f1, metrics.n)


def _accuracy_sentence(metrics: Metrics) -> str:
    right = round(metrics.accuracy * metrics.n)
    low, high = wilson_interval(right, metrics.n)
    return f"accuracy {metrics.accuracy:.3f} = {right} of {metrics.n}, 95 % interval {low:.3f} to {high:.3f}"


def format_histories(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Plain-text table of what `plot_histories` draws: each run at its best validation accuracy, or, where there is
    no validation, at its last epoch."""
    width = max(len("run"), *(len(name) for name in histories))
    lines = [f"{'run':<{width}}  epochs       shown  val_accuracy  val_loss  accuracy   loss"]
    for name, history in histories.items():
        count = len(history["accuracy"])
        shown = int(np.argmax(history["val_accuracy"])) if "val_accuracy" in history else count - 1
        validation = [f"{history[key][shown]:.3f}" if key in history else "-" for key in ("val_accuracy", "val_loss")]
        lines.append(
            f"{name:<{width}}  {count:6d}  {shown + 1:10d}  {validation[0]:>12}  {validation[1]:>8}  "
            f"{history['accuracy'][shown]:8.3f}  {history['loss'][shown]:5.3f}"
        )
    return "\n".join(lines)
