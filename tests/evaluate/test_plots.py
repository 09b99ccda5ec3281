"""helpers.evaluate.plots: figures inside their frame, images in their own colours."""

from __future__ import annotations

import io
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.evaluate import plots
from helpers.evaluate.metrics import Predictions


def random_predictions(classes: tuple[str, ...], count: int, seed: int = 0) -> Predictions:
    """Scores that are right about half of the time."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(len(classes), size=count)
    scores = generator.normal(size=(count, len(classes)))
    scores[np.arange(count), targets] += 1.5
    rows = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions([f"{number}.png" for number in range(count)], [classes[i] for i in targets], classes, rows)


ROWS = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0], [0.2, 0.7, 0.1]]
FIVE = Predictions(tuple("12345"), ("bend",) * 3 + ("jump",) * 2, ("bend", "jump", "walk"), np.array(ROWS))
HISTORIES = {
    name: {
        "loss": list(np.exp(-steps / pace)),
        "val_loss": list(np.exp(-steps / pace) + 0.2),
        "accuracy": list(1 - np.exp(-steps / pace)),
        "val_accuracy": list(0.9 - np.exp(-steps / pace)),
    }
    for name, pace, steps in (
        ("SGD", 9, np.arange(12)),
        ("Adam", 5, np.arange(12)),
        ("Adagrad", 20, np.arange(12)),
        ("AdamW + cosine", 7, np.arange(8)),
    )
}
EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


MANY = tuple(f"a_rather_long_action_name_{number}" for number in range(101))


FIGURES = {
    "confusion, 7 classes": lambda: plots.plot_confusion(random_predictions(EMOTIONS, 300)),
    "confusion, a class without files": lambda: plots.plot_confusion(FIVE),
    "confusion, 13 classes": lambda: plots.plot_confusion(random_predictions(MANY[:13], 300)),
    "confusion, 101 classes": lambda: plots.plot_confusion(random_predictions(MANY, 500)),
    "histories": lambda: plots.plot_histories(HISTORIES),
    "histories, one epoch": lambda: plots.plot_histories(
        {"smoke": {"loss": [2.0], "val_loss": [2.1], "accuracy": [0.2], "val_accuracy": [0.1]}}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_renders_quietly_with_everything_inside(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = FIGURES[name]()
        file = io.BytesIO()
        figure.savefig(file, format="png")
    assert len(file.getvalue()) < 200_000, "a notebook holds eight of them in 1.5 MB"
    assert plt.get_fignums() == [], "an open pyplot figure would be shown a second time"
    drawn = figure.get_tightbbox()  # in inches, everything that is drawn
    width, height = figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01


def test_confusion_has_rows_with_files_and_columns_that_something_is_in():
    classes = ("bend", "jump", "walk", "wave")  # nothing is "jump", "wave" is neither true nor predicted
    rows = np.eye(4)[[0, 1, 2, 1]] * 0.6 + 0.1
    found = Predictions(tuple("1234"), ("bend", "bend", "walk", "walk"), classes, rows)
    ax = plots.plot_confusion(found).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bend", "walk"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["bend", "walk", "jump"]
    numbers = [text.get_text() for text in ax.texts]
    assert numbers == ["0.50\n1", "", "0.50\n1", "", "0.50\n1", "0.50\n1"]


def test_confusion_can_share_a_figure():
    figure, axes = plt.subplots(1, 2)
    plt.close(figure)
    assert plots.plot_confusion(FIVE, axes[0]) is figure
    assert "accuracy 0.600, n = 5" in axes[0].get_title()
