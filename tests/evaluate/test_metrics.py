"""helpers.evaluate.metrics against hand-computed and published values."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import numpy as np
import pytest

from helpers.errors import DataError
from helpers.evaluate import metrics as metrics_module
from helpers.evaluate.metrics import Predictions

CLASSES = ("bend", "jump", "walk")


def make_predictions(labels: str, rows: list[list[float]], groups: tuple[str, ...] = ()) -> Predictions:
    """`labels` holds one first letter per file: "bbw"."""
    names = {name[0]: name for name in CLASSES}
    return Predictions(
        [f"{number}.avi" for number in range(len(labels))],
        [names[letter] for letter in labels],
        CLASSES,
        np.array(rows, dtype=np.float32).reshape(-1, 3),
        groups,
    )


# Five files. Predicted: bend, jump, bend, bend, jump. `walk` is in no label; `jump` is right once.
FIVE = make_predictions("bbbjj", [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])


BAD_PREDICTIONS = [
    (dict(labels=["bend"]), "2 labels", "a label is missing"),
    (dict(groups=["p1"]), "groups", "groups are for all files or for none"),
    (dict(probabilities=np.full((2, 2), 0.5)), "shape", "one column per class"),
    (dict(probabilities=np.full((2, 3), 0.5)), "sum to 1", "scores that are no probabilities"),
    (dict(probabilities=np.full((2, 3), np.nan)), "sum to 1", "a model that has diverged"),
    (dict(labels=["bend", "fly"]), "fly", "a label that is no class"),
    (dict(classes=("bend", "bend", "walk")), "twice", "a class that is named twice"),
]


@pytest.mark.parametrize("change, message, reason", BAD_PREDICTIONS, ids=[row[2] for row in BAD_PREDICTIONS])
def test_predictions_refuse_parts_that_do_not_fit(change, message, reason):
    fitting = dict(
        files=["a", "b"],
        labels=["bend", "jump"],
        classes=CLASSES,
        probabilities=np.full((2, 3), 1 / 3),
    )
    with pytest.raises(ValueError, match=message):
        Predictions(**(fitting | change))


def test_a_part_of_the_predictions_keeps_what_belongs_together():
    grouped = make_predictions("bjj", [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]], ("p1", "p2", "p3"))
    part = grouped.part(np.array([True, False, True]))
    assert (part.files, part.labels, part.groups) == (("0.avi", "2.avi"), ("bend", "jump"), ("p1", "p3"))
    assert part.correct.tolist() == [True, False] and part.classes == CLASSES
    assert FIVE.part(np.zeros(5, bool)).files == () and FIVE.part(np.ones(5, bool)).groups == ()


def test_predictions_survive_a_round_trip(tmp_path):
    saved = make_predictions("bw", [[0.8, 0.1, 0.1], [0, 0.25, 0.75]], groups=("anna", "bert"))
    saved.save(tmp_path / "predictions.npz")
    loaded = Predictions.load(tmp_path / "predictions.npz")
    for field in ("files", "labels", "classes", "groups"):
        assert list(getattr(loaded, field)) == list(getattr(saved, field))
    np.testing.assert_array_equal(loaded.probabilities, saved.probabilities)
    assert list(loaded.predicted) == ["bend", "walk"] and list(loaded.targets) == [0, 2]


def test_unusable_prediction_files_are_named(tmp_path):
    FIVE.save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    np.savez(tmp_path / "other.npz", files=np.array(["a"]))
    np.savez(tmp_path / "pickle.npz", files=np.array([{"run": "code"}], dtype=object))
    for name, content in (("cut.npz", whole[:-50]), ("text.npz", b"hello"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.float32)) | {"shape": (10**15,)}
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive, archive.open("files.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
    for name in ("cut.npz", "text.npz", "empty.npz", "other.npz", "pickle.npz", "huge.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            Predictions.load(tmp_path / name)


def test_summary_equals_hand_computed_values():
    metrics = metrics_module.summarise(FIVE, skipped=2)
    # bend: 3 predicted, 2 of them right, 3 true: 2/3, 2/3, 2/3.
    # jump: 2 predicted, 1 of them right, 2 true: 1/2, 1/2, 1/2.
    assert metrics.accuracy == pytest.approx(3 / 5)
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)  # walk, which no label names, is left out
    assert (metrics.n, metrics.skipped) == (5, 2)
    np.testing.assert_array_equal(metrics_module.confusion_counts(FIVE), [[2, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_a_class_that_is_only_predicted_costs_recall_but_is_not_averaged():
    metrics = metrics_module.summarise(make_predictions("bb", [[1, 0, 0], [0, 0, 1]]))
    assert "without a file here: 2, predicted 1 times" in metrics.report
    assert metrics.macro_f1 == pytest.approx(2 * 1 * 0.5 / 1.5)  # bend alone: precision 1, recall 1/2


def test_nothing_to_score_is_an_error_not_a_zero():
    with pytest.raises(DataError, match="4 skipped"):
        metrics_module.summarise(make_predictions("", []), skipped=4)


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion: comparison of seven
# methods", Statistics in Medicine 17 (1998) 857-872, table I, method 3.
PUBLISHED_INTERVALS = [
    (81, 263, 0.2553, 0.3662, "a usual proportion"),
    (15, 148, 0.0624, 0.1605, "a small one"),
    (0, 20, 0.0000, 0.1611, "none: the normal approximation has no width here"),
    (1, 29, 0.0061, 0.1718, "one: the normal approximation goes below zero here"),
]


@pytest.mark.parametrize(
    "successes, n, low, high, reason",
    PUBLISHED_INTERVALS,
    ids=[row[4] for row in PUBLISHED_INTERVALS],
)
def test_wilson_interval_equals_published_values(successes, n, low, high, reason):
    assert metrics_module.wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = metrics_module.wilson_interval(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize("successes, n", [(1, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="n|k"):
        metrics_module.wilson_interval(successes, n)


def test_bootstrap_draws_whole_groups():
    # 10 people with 10 clips each; a person is either always right or always wrong.
    clustered = make_predictions("b" * 100, [[1, 0, 0] if number < 50 else [0, 1, 0] for number in range(100)])
    by_person = [f"person{number // 10}" for number in range(100)]
    alone = [str(number) for number in range(100)]
    low, high = metrics_module.group_interval(clustered.correct, by_person, seed=0)
    low_alone, high_alone = metrics_module.group_interval(clustered.correct, alone, seed=0)
    assert (low, high) == pytest.approx((0.2, 0.8), abs=0.11)  # binomial of 10 people: 2 to 8
    # single clips: as Wilson, within the step of 1/100
    assert (low_alone, high_alone) == pytest.approx(metrics_module.wilson_interval(50, 100), abs=0.015)
    assert metrics_module.group_interval(clustered.correct, by_person, seed=0) == (low, high)
    assert metrics_module.group_interval(clustered.correct, ["one"] * 100, seed=0) == (0.5, 0.5)


def test_bootstrap_needs_a_group_per_file():
    with pytest.raises(ValueError, match="5 files"):
        metrics_module.group_interval(FIVE.correct, FIVE.groups, seed=0)


def test_worst_errors_are_the_most_confident_mistakes():
    # files 1 (0.6) and 3 (0.9) of FIVE are wrong
    assert metrics_module.worst_errors(FIVE, 5).tolist() == [3, 1]
    assert metrics_module.worst_errors(FIVE, 1).tolist() == [3]


def test_metrics_line_is_the_documented_one():
    metrics = metrics_module.Metrics(accuracy=0.7121, macro_f1=0.65499, n=1230, skipped=2, report="")
    assert metrics_module.metrics_line(metrics) == "accuracy=0.712 macro_f1=0.655 n=1230 skipped=2"


def test_table_names_the_classes_that_occur_and_counts_the_others():
    lines = [line.split() for line in metrics_module.format_table(metrics_module.summarise(FIVE)).splitlines()]
    assert ["bend", "0.667", "0.667", "0.667", "3"] in lines and ["jump", "0.500", "0.500", "0.500", "2"] in lines
    assert not any(line[:1] == ["walk"] for line in lines)
    assert " ".join(lines[-2]) == "classes of the model without a file here: 1, predicted 0 times"
    assert " ".join(lines[-1]) == "accuracy 0.600 = 3 of 5, 95 % interval 0.231 to 0.882"


def test_accuracies_of_several_sets_stand_below_each_other():
    figures = "n=    5  accuracy 0.600 (0.231..0.882)  macro-F1 0.583"
    assert metrics_module.format_accuracies({"all": FIVE, "indoors": FIVE}) == f"all      {figures}\nindoors  {figures}"


def test_history_table_shows_the_best_epoch():
    history = {
        "loss": [2, 1, 0.5],
        "val_loss": [2, 1.5, 3],
        "accuracy": [0.3, 0.6, 0.9],
        "val_accuracy": [0.3, 0.5, 0.4],
    }
    assert metrics_module.format_histories({"Adam": history}).splitlines()[1].split() == [
        "Adam",
        "3",
        "2",
        "0.500",
        "1.500",
        "0.600",
        "1.000",
    ]


def test_metrics_need_no_tensorflow():
    code = "import sys, helpers.evaluate.metrics, helpers.evaluate.plots; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
