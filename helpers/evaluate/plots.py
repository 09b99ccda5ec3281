"""Figures of predictions and histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from helpers.evaluate.metrics import confusion_counts
from helpers.predictions import Predictions

_DPI = 100  # a notebook shows an inch as 96 pixels or fewer: text of 8 points keeps its size
_COUNTS_UP_TO = 16  # classes; with more the numbers in the cells of a confusion matrix overlap
_NAMES_UP_TO = 40  # class names along an axis; with more only every second, third, ... is written


def _new_figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6, 4), **options
) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=_DPI, layout="constrained", squeeze=False, **options)
    plt.close(figure)
    return figure, axes


def plot_confusion(predictions: Predictions, ax: Axes | None = None) -> Figure:
    """Confusion matrix: share of each true class (colour, first number) and count (second number).

    Rows are the classes that have files. Columns are the same, then those that were only predicted. With many classes
    the numbers are left out, with very many also some of the names.
    """
    counts = confusion_counts(predictions)
    true, predicted = counts.sum(axis=1) > 0, counts.sum(axis=0) > 0
    rows, columns = np.flatnonzero(true), np.concatenate([np.flatnonzero(true), np.flatnonzero(~true & predicted)])
    counts = counts[np.ix_(rows, columns)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    if ax is None:
        width, height = (2.6 + 0.45 * min(number, 13) for number in (len(columns), len(rows)))
        ax = _new_figure(size=(width + 0.6, height))[1][0, 0]
    notes = np.array(
        [f"{share:.2f}\n{count}" if count else "" for share, count in zip(shares.flat, counts.flat, strict=True)]
    )
    sns.heatmap(
        shares,
        ax=ax,
        vmin=0,
        vmax=1,
        cmap="Blues",
        square=True,
        fmt="",
        annot_kws={"size": 8},
        annot=notes.reshape(counts.shape) if len(columns) <= _COUNTS_UP_TO else None,
        xticklabels=False,
        yticklabels=False,
        cbar_kws={"label": "share of the true class", "shrink": 0.8},
    )
    size = 10 if len(columns) <= _COUNTS_UP_TO else 8
    for axis, classes, rotation in ((ax.xaxis, columns, 90), (ax.yaxis, rows, 0)):
        named = np.arange(0, len(classes), -(-len(classes) // _NAMES_UP_TO))
        names = [predictions.classes[number] for number in classes[named]]
        axis.set_ticks(named + 0.5, names, rotation=rotation, fontsize=size)
    ax.set(
        xlabel="predicted",
        ylabel="true",
        title=f"accuracy {np.mean(predictions.correct):.3f}, n = {len(predictions.files)}",
    )
    return ax.figure


def plot_histories(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Loss and accuracy by epoch of several runs: {name: Keras `History.history`}.

    Validation solid, training dashed; one colour of seaborn's colour-blind palette per run.
    """
    figure, axes = _new_figure(1, 2, size=(9, 3.6))
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
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=name) for colour, name in zip(colours, histories, strict=True)
    ]
    handles += [
        Line2D([], [], color="gray", linewidth=2, label="validation"),
        Line2D([], [], color="gray", linestyle="--", linewidth=1, label="training"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    return figure
