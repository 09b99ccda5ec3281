"""Metrics against hand-computed and published values, figures inside their frame, the command."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import cv2
import matplotlib.cbook
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from helpers.action.classifier import ActionClassifier, save_action
from helpers.action.clips import ClipSpec, video_steps
from helpers.data.images import read_image
from helpers.emotion.classifier import EmotionClassifier, save_emotion
from helpers.emotion.faces import FaceFinder, FaceSpec
from helpers.errors import DataError
from helpers.evaluate import __main__ as evaluate_main
from helpers.evaluate import metrics as metrics_module
from helpers.evaluate import plots, predict
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


def random_predictions(classes: tuple[str, ...], count: int, seed: int = 0) -> Predictions:
    """Scores that are right about half of the time."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(len(classes), size=count)
    scores = generator.normal(size=(count, len(classes)))
    scores[np.arange(count), targets] += 1.5
    rows = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions([f"{number}.png" for number in range(count)], [classes[i] for i in targets], classes, rows)


# ---------------------------------------------------------------------------------- predictions

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
    for name in ("cut.npz", "text.npz", "empty.npz", "other.npz", "pickle.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            Predictions.load(tmp_path / name)


# -------------------------------------------------------------------------------------- metrics


def test_summary_equals_hand_computed_values():
    metrics = metrics_module.summarise(FIVE, skipped=2)
    # bend: 3 predicted, 2 of them right, 3 true: 2/3, 2/3, 2/3.
    # jump: 2 predicted, 1 of them right, 2 true: 1/2, 1/2, 1/2.
    assert metrics.accuracy == pytest.approx(3 / 5)
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 2)  # walk, which no label names, is left out
    assert (metrics.n, metrics.skipped, metrics.absent) == (5, 2, (("walk", 0),))
    assert [row.label for row in metrics.per_class] == ["bend", "jump"]
    bend = metrics.per_class[0]
    assert (bend.precision, bend.recall, bend.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3)) and bend.support == 3
    np.testing.assert_array_equal(metrics_module.confusion_counts(FIVE), [[2, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_a_class_that_is_only_predicted_costs_recall_but_is_not_averaged():
    metrics = metrics_module.summarise(make_predictions("bb", [[1, 0, 0], [0, 0, 1]]))
    assert metrics.absent == (("jump", 0), ("walk", 1))
    assert metrics.macro_f1 == pytest.approx(2 * 1 * 0.5 / 1.5)  # bend alone: precision 1, recall 1/2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_summary_equals_scikit_learn(seed):
    predictions = random_predictions(CLASSES, 200, seed)
    metrics = metrics_module.summarise(predictions)
    assert metrics.accuracy == pytest.approx(accuracy_score(predictions.labels, predictions.predicted))
    assert metrics.macro_f1 == pytest.approx(f1_score(predictions.labels, predictions.predicted, average="macro"))


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
    with pytest.raises(ValueError, match="not a proportion"):
        metrics_module.wilson_interval(successes, n)


def test_bootstrap_draws_whole_groups():
    # 10 people with 10 clips each; a person is either always right or always wrong.
    clustered = make_predictions("b" * 100, [[1, 0, 0] if number < 50 else [0, 1, 0] for number in range(100)])
    by_person = [f"person{number // 10}" for number in range(100)]
    alone = [str(number) for number in range(100)]
    low, high = metrics_module.bootstrap_accuracy(clustered, by_person, seed=0)
    low_alone, high_alone = metrics_module.bootstrap_accuracy(clustered, alone, seed=0)
    assert (low, high) == pytest.approx((0.2, 0.8), abs=0.11)  # binomial of 10 people: 2 to 8
    # single clips: as Wilson, within the step of 1/100
    assert (low_alone, high_alone) == pytest.approx(metrics_module.wilson_interval(50, 100), abs=0.015)
    assert metrics_module.bootstrap_accuracy(clustered, by_person, seed=0) == (low, high)
    assert metrics_module.bootstrap_accuracy(clustered, ["one"] * 100, seed=0) == (0.5, 0.5)


def test_bootstrap_needs_a_group_per_file():
    with pytest.raises(ValueError, match="5 files"):
        metrics_module.bootstrap_accuracy(FIVE, FIVE.groups, seed=0)


HALF, SURE = [0.6, 0.4], [1.0, 0.0]
CALIBRATION = [
    ([SURE, SURE], [0, 0], 2, 0.0, "certain and right"),
    ([SURE, SURE], [1, 1], 2, 1.0, "certain and wrong"),
    ([HALF] * 5, [0, 0, 0, 1, 1], 15, 0.0, "60 % sure and right in 60 %"),
    # bin (0.5, 1] holds all four: mean confidence 0.8, accuracy 0.5
    ([HALF, HALF, SURE, SURE], [0, 1, 0, 1], 2, 0.3, "one bin hides nothing here: |0.5 - 0.8|"),
    # with 10 bins: |0.5 - 0.6| for one half and |0.5 - 1.0| for the other
    ([HALF, HALF, SURE, SURE], [0, 1, 0, 1], 10, 0.3, "two bins, weighted by their files"),
    # 0.6 right, 1.0 wrong: |1 - 0.6| and |0 - 1| in two bins, but |0.5 - 0.8| when they share one
    ([HALF, SURE], [0, 1], 10, 0.7, "errors of opposite sign do not cancel across bins"),
    ([HALF, SURE], [0, 1], 2, 0.3, "but do within one"),
    # 0.5 belongs to the bin (0, 0.5], as in the paper: |1 - 0.5| and |0 - 0.6|
    ([[0.5, 0.5], HALF], [0, 1], 2, 0.55, "an upper edge belongs to its bin"),
]


@pytest.mark.parametrize("rows, targets, bins, expected, reason", CALIBRATION, ids=[row[4] for row in CALIBRATION])
def test_expected_calibration_error_equals_hand_computed_values(rows, targets, bins, expected, reason):
    error = metrics_module.expected_calibration_error(np.array(rows), np.array(targets), bins)
    assert error == pytest.approx(expected, abs=1e-9)


def test_worst_errors_are_the_most_confident_mistakes():
    # files 1 (0.6) and 3 (0.9) of FIVE are wrong
    assert metrics_module.worst_errors(FIVE, 5).tolist() == [3, 1]
    assert metrics_module.worst_errors(FIVE, 1).tolist() == [3]


def test_rejection_curve_equals_hand_computed_values():
    # FIVE by confidence: 0.5 right, 0.6 wrong, 0.7 right, 0.8 right, 0.9 wrong
    thresholds, precision, recall = metrics_module.rejection_curve(FIVE)
    assert thresholds == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert precision == pytest.approx([3 / 5, 2 / 4, 2 / 3, 1 / 2, 0])
    assert recall == pytest.approx([3 / 5, 2 / 5, 2 / 5, 1 / 5, 0])


def test_recordings_without_an_action_lower_precision_only():
    thresholds, precision, recall = metrics_module.rejection_curve(FIVE, no_action_confidence=[0.65])
    assert thresholds == pytest.approx([0.5, 0.6, 0.65, 0.7, 0.8, 0.9])
    assert precision == pytest.approx([3 / 6, 2 / 5, 2 / 4, 2 / 3, 1 / 2, 0])
    assert recall == pytest.approx([3 / 5, 2 / 5, 2 / 5, 2 / 5, 1 / 5, 0])


# ----------------------------------------------------------------------------------------- text


def test_metrics_line_is_the_documented_one():
    metrics = metrics_module.Metrics(accuracy=0.7121, macro_f1=0.65499, n=1230, skipped=2, per_class=())
    assert metrics_module.metrics_line(metrics) == "accuracy=0.712 macro_f1=0.655 n=1230 skipped=2"


def test_table_is_aligned_and_complete():
    assert metrics_module.format_table(metrics_module.summarise(FIVE)) == "\n".join(
        [
            "class       precision  recall     f1  support",
            "bend            0.667   0.667  0.667        3",
            "jump            0.500   0.500  0.500        2",
            "macro mean      0.583   0.583  0.583        5",
            "accuracy 0.600 = 3 of 5, 95 % interval 0.231 to 0.882",
            "classes of the model without a file here: 1, predicted 0 times",
        ]
    )


def test_accuracies_of_several_sets_stand_below_each_other():
    figures = "n=    5  accuracy 0.600 (0.231..0.882)  macro-F1 0.583"
    assert metrics_module.format_accuracies({"all": FIVE, "indoors": FIVE}) == f"all      {figures}\nindoors  {figures}"


def test_table_of_many_classes_fits_a_notebook_cell():
    metrics = metrics_module.summarise(random_predictions(tuple(f"action{number:03d}" for number in range(101)), 800))
    lines = metrics_module.format_table(metrics).splitlines()
    assert len(lines) <= 25 and "83 more classes" in lines[-3]
    assert len(metrics_module.format_table(metrics, max_rows=101).splitlines()) == 104


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


# -------------------------------------------------------------------------------------- figures

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
MANY = tuple(f"a_rather_long_action_name_{number}" for number in range(101))
STRIP = np.zeros((40, 90, 120, 3), dtype=np.uint8)
FACES = np.zeros((7, 48, 48), dtype=np.uint8)
FIGURES = {
    "confusion, 7 classes": lambda: plots.plot_confusion(random_predictions(EMOTIONS, 300)),
    "confusion, a class without files": lambda: plots.plot_confusion(FIVE),
    "confusion, 101 classes": lambda: plots.plot_confusion(random_predictions(MANY, 500)),
    "histories": lambda: plots.plot_histories(HISTORIES),
    "histories, one epoch": lambda: plots.plot_histories(
        {"smoke": {"loss": [2.0], "val_loss": [2.1], "accuracy": [0.2], "val_accuracy": [0.1]}}
    ),
    "rejection": lambda: plots.plot_precision_recall(random_predictions(EMOTIONS, 300), [0.3, 0.4], threshold=0.6),
    "reliability": lambda: plots.plot_reliability(random_predictions(EMOTIONS, 300)),
    "clip strip": lambda: plots.plot_clip_strip(STRIP, "true wave_two_hands, predicted jumping_jack 0.93"),
    "clip strip, one frame": lambda: plots.plot_clip_strip(STRIP[:1], "one frame"),
    "model input": lambda: plots.plot_clip_strip(np.zeros((16, 96, 96, 3), np.float32), "motion input"),
    "image grid, last row not full": lambda: plots.plot_image_grid(FACES, ["surprise\nas disgust 0.99"] * 7, 4),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_renders_quietly_with_everything_inside(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = FIGURES[name]()
        file = io.BytesIO()
        figure.savefig(file, format="png")
    assert len(file.getvalue()) < 150_000
    assert plt.get_fignums() == [], "an open pyplot figure would be shown a second time"
    drawn = figure.get_tightbbox()  # in inches, everything that is drawn
    width, height = figure.get_size_inches()
    assert drawn.x0 >= -0.01 and drawn.y0 >= -0.01 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01


def test_confusion_can_share_a_figure():
    figure, axes = plt.subplots(1, 2)
    plt.close(figure)
    assert plots.plot_confusion(FIVE, axes[0]) is figure
    assert "accuracy 0.600, n = 5" in axes[0].get_title()


BLUE = np.zeros((4, 4, 3), dtype=np.uint8)
BLUE[..., 2] = 255  # in RGB
SHOWN = [
    (BLUE[..., ::-1], [0, 0, 255], "a frame as OpenCV reads it, BGR"),
    (BLUE.astype(np.float32) / 127.5 - 1, [0, 0, 255], "a time step, RGB in [-1, 1]"),
    (np.full((4, 4), 7, dtype=np.uint8), 7, "a gray crop"),
    (np.zeros((4, 4, 1), dtype=np.float32), 127, "a face as the model sees it"),
    (np.full((4, 4, 1), 3.0, dtype=np.float32), 255, "standardised faces reach beyond 1"),
]


@pytest.mark.parametrize("image, expected, reason", SHOWN, ids=[row[2] for row in SHOWN])
def test_images_are_shown_in_their_own_colours(image, expected, reason):
    shown = plots.plot_image_grid([image], [reason], 1).axes[0].images[0].get_array()
    assert shown[0, 0].tolist() == expected


def test_metrics_need_no_tensorflow():
    code = "import sys, helpers.evaluate as _; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# ----------------------------------------------------------------- the deployed path, on real files

STEPS = 8
RATE = 20  # frames a second


@pytest.fixture(scope="module")
def action_model(tmp_path_factory) -> Path:
    """A saved action model of the real structure: one small layer as backbone, random weights."""
    import keras
    from keras import layers

    from helpers.action.model import build_action_head, join_action_model

    keras.utils.set_random_seed(1)
    picture = keras.Input((32, 32, 3))
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, strides=4, activation="relu")(picture))
    model = join_action_model(keras.Model(picture, features), build_action_head(3, STEPS, features=8, units=4))
    folder = tmp_path_factory.mktemp("action")
    save_action(folder, model, CLASSES, ClipSpec(length=STEPS, window_s=1.0, size=32))
    return folder


@pytest.fixture(scope="module")
def emotion_model(tmp_path_factory) -> Path:
    """A saved Mini-Xception of one block with random weights."""
    import keras

    from helpers.emotion.model import build_mini_xception

    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("emotion")
    save_emotion(folder, build_mini_xception(7, 48, stem=4, widths=(8,)), EMOTIONS, FaceSpec())
    return folder


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A photo with one real face (NASA, public domain, shipped by matplotlib), uint8 BGR."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)


def write_image(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def write_video(path: Path, frames: int, speed: int = 3) -> Path:
    """A bright square that moves to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (160, 120))
    for number in range(frames):
        frame = np.full((120, 160, 3), 40, dtype=np.uint8)
        frame[40:80, (10 + number * speed) % 120 :][:, :30] = 220
        writer.write(frame)
    writer.release()
    return path


def run(capfd, *arguments) -> tuple[int, list[str], list[str]]:
    """(exit code, lines of stdout, lines of stderr that the package itself wrote)."""
    code = evaluate_main.main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return (
        code,
        out.splitlines(),
        [line for line in err.splitlines() if line.startswith(("skipped", "error"))],
    )


@pytest.fixture
def faces(tmp_path, photo) -> Path:
    """Two usable face crops, and one of everything that is not."""
    face = cv2.resize(photo[50:230, 170:350], (48, 48), interpolation=cv2.INTER_AREA)
    write_image(tmp_path / "faces" / "happy" / "good.png", face)
    whole = write_image(tmp_path / "faces" / "sad" / "good.jpg", face).read_bytes()
    (tmp_path / "faces" / "sad" / "cut_off.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "faces" / "sad" / "zero.jpg").write_bytes(b"")
    (tmp_path / "faces" / "sad" / "text.png").write_text("not an image")
    (tmp_path / "faces" / "sad" / "notes.txt").write_text("a file of another kind")
    (tmp_path / "faces" / "fear").mkdir()
    return tmp_path / "faces"


def test_emotion_scores_what_it_can_and_names_the_rest(capfd, tmp_path, faces, emotion_model):
    code, out, err = run(capfd, "emotion", faces, "--model", emotion_model, "--csv", tmp_path / "out.csv")
    assert code == 0
    assert out[0].startswith("accuracy=") and out[0].endswith("n=2 skipped=5")
    assert [line.split()[0] for line in out[1:4]] == ["class", "happy", "sad"]
    for name in ("cut_off.jpg", "zero.jpg", "text.png", "notes.txt", "fear"):
        assert sum(f"{name}: " in line for line in err) == 1, f"{name} is not named once"
    assert len(err) == 5

    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "file",
        "label",
        "predicted",
        "confidence",
        *(f"p_{name}" for name in EMOTIONS),
    ]
    assert [(row["file"], row["label"]) for row in rows] == [
        ("happy/good.png", "happy"),
        ("sad/good.jpg", "sad"),
    ]
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in EMOTIONS}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert row["predicted"] == max(shares, key=shares.get)
        assert float(row["confidence"]) == pytest.approx(max(shares.values()))


def test_emotion_uses_the_deployed_classifier_and_preprocessing(faces, emotion_model):
    predictions, skipped = predict.evaluate_emotion(faces, emotion_model)
    classifier, finder = EmotionClassifier.load(emotion_model), FaceFinder()
    crops = [classifier.preprocessor.from_thumbnail(read_image(faces / name), finder) for name in predictions.files]
    expected = classifier.predict(classifier.preprocessor.normalise(np.array(crops)))
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)
    assert predictions.classes == EMOTIONS and len(skipped) == 5


def test_detection_takes_the_largest_face_and_names_photos_without_one(capfd, tmp_path, photo, emotion_model):
    small = cv2.resize(photo, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    two = np.full((600, 900, 3), 90, dtype=np.uint8)
    two[: small.shape[0], : small.shape[1]] = small
    two[:, 380 : 380 + photo.shape[1]] = photo[:600]
    write_image(tmp_path / "photos" / "neutral" / "one.png", photo)
    write_image(tmp_path / "photos" / "neutral" / "two.png", two)
    write_image(tmp_path / "photos" / "neutral" / "wall.png", np.full((200, 200, 3), 90, dtype=np.uint8))

    code, out, err = run(capfd, "emotion", tmp_path / "photos", "--model", emotion_model, "--detect")
    assert code == 0 and out[0].endswith("n=2 skipped=1")
    assert len(err) == 1 and "wall.png: no face" in err[0]
    predictions, _ = predict.evaluate_emotion(tmp_path / "photos", emotion_model, detect=True)
    np.testing.assert_allclose(
        predictions.probabilities[0],
        predictions.probabilities[1],
        atol=0.02,
        err_msg="the large face of `two` is the face of `one`",
    )


def test_fer2013_layout_is_scored_on_its_test_part(capfd, tmp_path, faces, emotion_model):
    for part, label in (("train", "happy"), ("train", "sad"), ("test", "happy")):
        target = tmp_path / "fer" / part / label
        target.mkdir(parents=True)
        shutil.copy(faces / "happy" / "good.png", target / f"{part}.png")
    with zipfile.ZipFile(tmp_path / "fer.zip", "w") as archive:
        for path in sorted((tmp_path / "fer").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "fer"))
    for source in (tmp_path / "fer", tmp_path / "fer.zip"):
        code, out, _ = run(capfd, "emotion", source, "--model", emotion_model, "--csv", tmp_path / "out.csv")
        assert code == 0 and out[0].endswith("n=1 skipped=0")
        assert "happy/test.png,happy," in (tmp_path / "out.csv").read_text()


@pytest.fixture
def videos(tmp_path) -> Path:
    """Three usable videos, one of them a single frame, and one of everything that is not."""
    folder = tmp_path / "videos"
    write_video(folder / "bend" / "long.avi", frames=5 * RATE)
    write_video(folder / "bend" / "one_frame.avi", frames=1)
    write_video(folder / "walk" / "short.avi", frames=RATE // 2)
    (folder / "walk" / "zero.mp4").write_bytes(b"")
    (folder / "walk" / "text.avi").write_text("not a video")
    (folder / "jump").mkdir()
    return folder


def test_action_scores_what_it_can_and_names_the_rest(capfd, tmp_path, videos, action_model):
    code, out, err = run(capfd, "action", videos, "--model", action_model, "--csv", tmp_path / "out.csv")
    assert code == 0 and out[0].endswith("n=3 skipped=3")
    for name in ("zero.mp4", "text.avi", "jump"):
        assert sum(f"{name}: " in line for line in err) == 1, f"{name} is not named once"
    assert len(err) == 3
    assert "classes of the model without a file here: 1" in out[-1]
    files = [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()]
    assert files == ["file", "bend/long.avi", "bend/one_frame.avi", "walk/short.avi"]


def test_action_averages_half_overlapping_windows(videos, action_model):
    predictions, _ = predict.evaluate_action(videos, action_model)
    classifier = ActionClassifier.load(action_model)
    features = classifier.encode(video_steps(videos / "bend" / "long.avi", classifier.spec))
    assert len(features) == 40  # 5 s with 8 steps a second
    by_hand = [classifier.classify(features[None, start : start + STEPS])[0] for start in range(0, 33, STEPS // 2)]
    np.testing.assert_allclose(predictions.probabilities[0], np.mean(by_hand, axis=0), atol=1e-5)


def test_an_unknown_class_folder_is_an_error_that_lists_both(capfd, videos, action_model):
    write_video(videos / "dance" / "one.avi", frames=5)
    code, out, err = run(capfd, "action", videos, "--model", action_model)
    assert code == 2 and out == [] and len(err) == 1
    assert "dance" in err[0] and all(name in err[0] for name in CLASSES)


def make_bad_source(folder: Path, kind: str) -> Path:
    source = folder / kind
    if kind == "empty folder":
        source.mkdir()
    elif kind == "empty class folder":
        (source / "bend").mkdir(parents=True)
    elif kind == "only unusable files":
        (source / "bend").mkdir(parents=True)
        (source / "bend" / "zero.mp4").write_bytes(b"")
    elif kind == "text.zip":
        source.write_text("not a zip")
    return source


@pytest.mark.parametrize(
    "kind, message",
    [
        ("empty folder", "no class folder"),
        ("empty class folder", "bend"),
        ("only unusable files", "nothing to score: no file could be used (1 skipped)"),
        ("text.zip", "not a usable zip"),
        ("missing folder", "no such file or folder"),
    ],
)
def test_a_bad_source_is_one_line_and_exit_code_2(capfd, tmp_path, action_model, kind, message):
    code, out, err = run(capfd, "action", make_bad_source(tmp_path, kind), "--model", action_model)
    errors = [line for line in err if line.startswith("error")]
    assert code == 2 and out == [] and len(errors) == 1 and message in errors[0]
    assert kind in errors[0] or "zero.mp4" in err[0], "the message does not name the file"


def damage(model: Path, kind: str) -> None:
    if kind == "labels.json missing":
        (model / "labels.json").unlink()
    elif kind == "labels.json of another model":
        (model / "labels.json").write_text('["bend", "jump"]')
    elif kind == "model cut off":
        file = model / "emotion_model.tflite"
        file.write_bytes(file.read_bytes()[:1000])
    elif kind == "folder missing":
        shutil.rmtree(model)


@pytest.mark.parametrize(
    "kind, named",
    [
        ("labels.json missing", "labels.json"),
        ("labels.json of another model", "labels.json"),
        ("model cut off", "emotion_model.tflite"),
        ("folder missing", "broken"),
    ],
)
def test_a_bad_model_is_one_line_and_exit_code_2(capfd, tmp_path, faces, emotion_model, kind, named):
    shutil.copytree(emotion_model, tmp_path / "broken")
    damage(tmp_path / "broken", kind)
    code, out, err = run(capfd, "emotion", faces, "--model", tmp_path / "broken")
    assert code == 2 and out == [] and len(err) == 1 and named in err[0]


def test_a_model_that_gives_no_numbers_is_named_as_such(capfd, tmp_path, faces):
    import keras
    from keras import layers

    face = keras.Input((48, 48, 1))
    model = keras.Model(face, layers.Dense(7, activation="softmax")(layers.Flatten()(face)))
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    save_emotion(tmp_path, model, EMOTIONS, FaceSpec())
    code, out, err = run(capfd, "emotion", faces, "--model", tmp_path)
    assert code == 2 and out == [] and "not finite" in err[-1]


def test_a_csv_that_cannot_be_written_is_told_before_the_work(capfd, tmp_path, faces, emotion_model):
    code, out, err = run(capfd, "emotion", faces, "--model", emotion_model, "--csv", tmp_path / "no" / "out.csv")
    assert code == 2 and out == [] and "out.csv" in err[0]


@pytest.mark.parametrize("arguments", [[], ["gesture", "folder"], ["action"], ["action", "folder", "--detect"]])
def test_wrong_arguments_exit_with_code_2(arguments):
    with pytest.raises(SystemExit) as exit_code:
        evaluate_main.main(arguments)
    assert exit_code.value.code == 2


def test_the_command_itself(faces, emotion_model):
    """As a user types it, with what libraries print on stderr."""
    command = [sys.executable, "-m", "helpers.evaluate", "emotion", faces, "--model", emotion_model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[0].endswith("n=2 skipped=5")
    assert "Traceback" not in done.stderr and "|" not in done.stderr, "no progress bar without a terminal"
