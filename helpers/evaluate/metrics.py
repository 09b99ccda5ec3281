"""Metrics and intervals over predictions, and their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import classification_report, confusion_matrix, f1_score

from helpers.errors import DataError
from helpers.predictions import Predictions


@dataclass(frozen=True)
class Metrics:
    """Scores over n files. `skipped` files could not be used and count in nothing else.

    macro_f1 and report, scikit-learn's table by class, cover the classes that occur in the labels: a class without a
        file has no recall, and a folder may hold only some of the model's classes.
    """

    accuracy: float
    macro_f1: float
    n: int
    skipped: int
    report: str


def summarise(predictions: Predictions, skipped: int = 0) -> Metrics:
    """Accuracy, macro-F1 and the table of the classes that occur; DataError when nothing can be scored."""
    if len(predictions.files) == 0:
        raise DataError(f"nothing to score: no file could be used ({skipped} skipped)")
    present = [name for name in predictions.classes if name in set(predictions.labels)]
    answers = {"y_true": predictions.labels, "y_pred": predictions.predicted, "labels": present, "zero_division": 0}
    report = classification_report(**answers, digits=3).rstrip()
    absent = [name for name in predictions.classes if name not in present]
    if absent:
        wrongly = int(np.isin(predictions.predicted, absent).sum())
        report += f"\nclasses of the model without a file here: {len(absent)}, predicted {wrongly} times"
    return Metrics(
        accuracy=float(np.mean(predictions.correct)),
        macro_f1=float(f1_score(**answers, average="macro")),
        n=len(predictions.files),
        skipped=skipped,
        report=report,
    )


def metrics_line(metrics: Metrics) -> str:
    """The line a machine can read: `accuracy=0.712 macro_f1=0.655 n=1230 skipped=2`."""
    return f"accuracy={metrics.accuracy:.3f} macro_f1={metrics.macro_f1:.3f} n={metrics.n} skipped={metrics.skipped}"


def format_table(metrics: Metrics) -> str:
    """The classes that occur, and the accuracy with its 95 % Wilson interval."""
    right = round(metrics.accuracy * metrics.n)
    low, high = wilson_interval(right, metrics.n)
    sentence = f"accuracy {metrics.accuracy:.3f} = {right} of {metrics.n}, 95 % interval {low:.3f} to {high:.3f}"
    return f"{metrics.report}\n{sentence}"


def confusion_counts(predictions: Predictions) -> np.ndarray:
    """int (C, C): files of the true class (row) that were given the predicted class (column)."""
    return confusion_matrix(predictions.labels, predictions.predicted, labels=list(predictions.classes))


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % interval for a proportion, each end in [0, 1]: right also for few files and for 0 % or 100 %.

    Assumes independent files; for several files of one person use `group_interval`. Raises ValueError when
    `successes` of `n` are no proportion. Recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def group_interval(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of one value per file when the files of one person or place rise and fall together.

    values: `Predictions.correct` for an accuracy; the difference of two for "is one better?". Percentile bootstrap that
    draws whole groups with replacement: Field and Welsh, "Bootstrapping clustered data", JRSS B 69 (2007) 369-390.
    With fewer than about ten groups it is too narrow. Raises ValueError when there are not as many `groups` as values.
    """
    if len(groups) != len(values) or len(groups) == 0:
        raise ValueError(f"{len(values)} files need as many groups, not {len(groups)}")
    _, group_of_file = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(group_of_file)
    if len(sizes) == 1:  # nothing to draw from
        return float(np.mean(values)), float(np.mean(values))
    drawn = bootstrap(
        (np.bincount(group_of_file, weights=values), sizes),
        lambda sums, sizes, axis: sums.sum(axis) / sizes.sum(axis),
        paired=True,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(drawn.low), float(drawn.high)


def worst_errors(predictions: Predictions, k: int) -> np.ndarray:
    """int (<= k,): positions of the mistakes, the most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:k]


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
