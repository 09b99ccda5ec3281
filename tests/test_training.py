"""helpers.training: class weights, schedules and optimizers by hand, runs that survive a kill, profiles."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas
import pytest

from helpers import training
from helpers.errors import DataError
from helpers.evaluate.metrics import Predictions


@pytest.mark.parametrize(
    "targets, cap, expected, reason",
    [
        ([0, 0, 1, 1], 3, [1, 1], "balanced classes weigh the same"),
        ([0, 0, 0, 1], 10, [2 / 3, 2], "inverse frequency: 4 / (2 * 3) and 4 / (2 * 1), mean already 1"),
        (
            [0] * 6 + [1] * 3 + [2],
            2,
            [0.5556 / 0.8667, 1.1111 / 0.8667, 2 / 0.8667],
            "10/3 is cut to 2, then all scaled",
        ),
        ([0] * 6 + [1] * 3 + [2], 0.1, [1, 1, 1], "a cap below all of them leaves no difference"),
    ],
)
def test_class_weights_by_hand(targets, cap, expected, reason):
    targets = np.array(targets)
    weights = training.capped_class_weights(targets, len(expected), cap)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, err_msg=reason)
    assert weights.dtype == np.float32 and weights[targets].mean() == pytest.approx(1)


def test_a_class_without_samples_has_a_finite_weight():
    weights = training.capped_class_weights(np.array([0, 0, 1]), 3, 4)
    assert np.isfinite(weights).all() and weights[[0, 0, 1]].mean() == pytest.approx(1)


@pytest.mark.parametrize(
    "step, expected, reason",
    [
        (0, 0.0, "starts at nothing"),
        (5, 0.05, "half of the ten warm-up steps"),
        (10, 0.1, "the top"),
        (10 + 95, 0.05, "half of the cosine"),
        (10 + 190 // 3, 0.1 * (1 + np.cos(np.pi * (190 // 3) / 190)) / 2, "a third of it"),
        (200, 0.0, "ends at nothing"),
        (250, 0.0, "and stays there"),
    ],
)
def test_the_schedule_by_hand(step, expected, reason):
    schedule = training.cosine_with_warmup(0.1, 200)  # 5 % of 200 are 10 steps of warm-up
    assert float(schedule(step)) == pytest.approx(expected, abs=1e-6), reason


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_schedule_of_a_very_short_training_is_finite(steps):
    schedule = training.cosine_with_warmup(0.1, steps)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    assert np.isfinite(rates).all() and min(rates) >= 0 and max(rates) <= 0.1 + 1e-6


@pytest.mark.parametrize(
    "name, kind, first_rate",
    [
        ("sgd", "SGD", 0.01),
        ("adam", "Adam", 0.01),
        ("adagrad", "Adagrad", 0.01),
        ("adam_cosine", "Adam", 0),
        ("adamw", "AdamW", 0),
    ],
)
def test_optimizers_are_what_they_are_called(name, kind, first_rate):
    """The course compares constant rates; the schedule's warm-up begins at 0."""
    optimizer = training.make_optimizer(name, 0.01, 100)
    assert type(optimizer).__name__ == kind and float(optimizer.learning_rate) == pytest.approx(first_rate)


def test_an_unknown_optimizer_lists_the_known():
    with pytest.raises(ValueError, match="sgd, adam, adagrad, adam_cosine, adamw, got 'rmsprop'"):
        training.make_optimizer("rmsprop", 0.01, 100)


class Blobs(keras.utils.PyDataset):
    """Two clouds of points. From epoch `flip` on the labels are swapped, so that training makes the model worse."""

    def __init__(self, flip: int = 99, seconds: float = 0.0, batches: int = 4):
        super().__init__()
        rng = np.random.default_rng(0)
        self.labels = np.arange(40) % 2
        self.points = (rng.normal(0, 0.3, (40, 2)) + 2 * self.labels[:, None] - 1).astype(np.float32)
        self.flip, self.seconds, self.batches, self.epoch = flip, seconds, batches, 0

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        time.sleep(self.seconds)
        part = slice(index * 40 // self.batches, (index + 1) * 40 // self.batches)
        labels = self.labels[part] if self.epoch < self.flip else 1 - self.labels[part]
        return self.points[part], np.eye(2, dtype=np.float32)[labels]

    def on_epoch_end(self):
        self.epoch += 1

    @property
    def truth(self):
        return self.points, np.eye(2, dtype=np.float32)[self.labels]


def blob_model(optimizer: keras.optimizers.Optimizer | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(
        optimizer or keras.optimizers.SGD(0.3),
        "categorical_crossentropy",
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    return model


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # the last call has nothing to train
def test_a_second_call_continues_and_keeps_what_was(tmp_path):
    def model():
        return blob_model(keras.optimizers.AdamW(training.cosine_with_warmup(0.1, 16)))

    data, again = Blobs(), model()
    first = training.fit(model(), data, data.truth, epochs=2, work=tmp_path, seed=0)
    assert set(first) == {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"} and len(first["loss"]) == 2
    resumed = training.fit(again, data, data.truth, epochs=4, work=tmp_path, seed=0, keep_best=False)
    assert len(resumed["loss"]) == 4
    for key, values in first.items():
        assert resumed[key][:2] == values, f"{key} of the finished epochs changed"
    assert int(again.optimizer.iterations) == 16, "the schedule goes on where it was: 4 epochs of 4 batches"
    assert resumed["loss"][2] < resumed["loss"][0], "from the trained weights, not from new ones"
    assert training.fit(model(), data, data.truth, epochs=4, work=tmp_path, seed=0) == resumed, (
        "finished: not trained again"
    )


def test_resumed_weights_are_those_of_an_uninterrupted_training(tmp_path):
    """One batch, the same in every epoch: stopping must make no difference at all."""
    data, whole, parts = Blobs(batches=1), blob_model(), blob_model()
    expected = training.fit(whole, data, data.truth, epochs=4, work=tmp_path / "whole", seed=0, keep_best=False)
    training.fit(blob_model(), data, data.truth, epochs=2, work=tmp_path / "parts", seed=0, keep_best=False)
    resumed = training.fit(parts, data, data.truth, epochs=4, work=tmp_path / "parts", seed=0, keep_best=False)
    np.testing.assert_allclose(resumed["val_loss"], expected["val_loss"], rtol=1e-5)
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


class Counted(Blobs):
    """The first batch of epoch k is point k alone: what is trained tells which epoch's batches were given."""

    def __getitem__(self, index):
        points, labels = super().__getitem__(index)
        return points[self.epoch : self.epoch + 1], labels[self.epoch : self.epoch + 1]


def test_a_resumed_training_goes_on_with_the_next_epochs_batches(tmp_path):
    whole, parts = blob_model(), blob_model()
    training.fit(whole, Counted(batches=1), None, epochs=4, work=tmp_path / "whole", seed=0)
    training.fit(blob_model(), Counted(batches=1), None, epochs=2, work=tmp_path / "parts", seed=0)
    training.fit(parts, Counted(batches=1), None, epochs=4, work=tmp_path / "parts", seed=0)
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("keep_best, resumed", [(True, False), (False, False), (True, True)])
def test_which_epochs_weights_are_left(tmp_path, keep_best, resumed):
    """Labels are swapped after three epochs: the third is the best, the last is bad."""
    data, model = Blobs(flip=3), blob_model(keras.optimizers.SGD(1.0))
    if resumed:  # killed after the fourth epoch: the best epoch lies before the restart
        training.fit(
            blob_model(keras.optimizers.SGD(1.0)),
            data,
            data.truth,
            epochs=4,
            work=tmp_path,
            seed=0,
            keep_best=keep_best,
        )
    history = training.fit(model, data, data.truth, epochs=9, work=tmp_path, seed=0, keep_best=keep_best)
    assert history["val_accuracy"][-1] < 0.5 < max(history["val_accuracy"])
    accuracy = model.evaluate(*data.truth, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(max(history["val_accuracy"]) if keep_best else history["val_accuracy"][-1])


@pytest.mark.parametrize("terminal", [True, False])
def test_the_epochs_are_counted_at_a_terminal_and_nowhere_else(tmp_path, terminal, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    training.fit(blob_model(), Blobs(batches=1), None, epochs=1, work=tmp_path, seed=0)
    training.fit(blob_model(), Blobs(batches=1), None, epochs=3, work=tmp_path, seed=0)
    assert ("1/3" in screen.getvalue() and "epoch" in screen.getvalue()) if terminal else not screen.getvalue()


def test_without_validation_the_last_epoch_is_left(tmp_path):
    data, model = Blobs(), blob_model()
    history = training.fit(model, data, None, epochs=3, work=tmp_path, seed=0)
    assert set(history) == {"loss", "accuracy", "seconds"} and len(history["loss"]) == 3
    assert model.evaluate(*data.truth, verbose=0, return_dict=True)["accuracy"] > 0.9


def test_a_kill_between_log_and_backup_trains_the_epoch_again(tmp_path):
    """The log knows an epoch that the backup does not: trained twice, counted once, however often that happens."""
    data = Blobs()
    training.fit(blob_model(), data, data.truth, epochs=1, work=tmp_path, seed=0)
    log = tmp_path / "log.csv"
    row = log.read_text().splitlines()[1]
    log.write_text(log.read_text() + 2 * ("1" + row[row.index(",") :] + "\n"))
    history = training.fit(blob_model(), data, data.truth, epochs=3, work=tmp_path, seed=0)
    assert len(history["loss"]) == 3 and history["loss"][0] > history["loss"][1] > history["loss"][2]


def test_a_kill_while_the_backup_is_written_falls_back_to_the_one_before(tmp_path):
    data = Blobs()
    training.fit(blob_model(), data, data.truth, epochs=3, work=tmp_path, seed=0)
    backup = tmp_path / "backup" / "latest.weights.h5"
    backup.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    history = training.fit(blob_model(), data, data.truth, epochs=5, work=tmp_path, seed=0)
    assert len(history["loss"]) == 5


@pytest.mark.training
def test_a_kill_in_the_middle_of_training(tmp_path):
    """A real SIGKILL in the third epoch or later; another process goes on."""
    code = (
        "from pathlib import Path; from test_training import Blobs, blob_model; from helpers import training\n"
        "data = Blobs(seconds=0.1)\n"
        f"training.fit(blob_model(), data, data.truth, epochs=1000, work=Path({str(tmp_path)!r}), seed=0)"
    )
    places = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": places})
    log = tmp_path / "log.csv"
    try:
        deadline = time.monotonic() + 90
        while not (log.is_file() and log.read_text().count("\n") >= 3) and time.monotonic() < deadline:
            assert process.poll() is None, "the training ended by itself"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = pandas.read_csv(log)
    assert len(before) >= 2
    data = Blobs()
    history = training.fit(blob_model(), data, data.truth, epochs=len(before) + 3, work=tmp_path, seed=0)
    assert len(history["loss"]) == len(before) + 3
    np.testing.assert_allclose(history["loss"][: len(before) - 1], before["loss"][:-1])
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("epochs, text", [(1, ""), (3, ""), (3, '{"epoch": ')])
def test_a_kill_while_the_number_of_the_epoch_is_written(epochs, text, tmp_path):
    """Keras's backup then holds a file that is empty or cut off: the epoch before counts, or the beginning. The last
    epoch is trained again, on its own batches and not on those of the next one, where the labels are swapped."""
    data = Blobs(flip=epochs + 1)  # Keras calls on_epoch_end once before the first epoch
    before = training.fit(blob_model(), data, data.truth, epochs=epochs, work=tmp_path, seed=0)
    (tmp_path / "backup" / "training_metadata.json").write_text(text)
    data = Blobs(flip=epochs + 1)
    history = training.fit(blob_model(), data, data.truth, epochs=epochs + 2, work=tmp_path, seed=0)
    assert len(history["loss"]) == epochs + 2
    assert history["loss"][:epochs] == pytest.approx(before["loss"], rel=0.05)  # batches come in another order


CONFIG = {"epochs": 5, "optimizer": "adam", "learning_rate": 0.01, "face": {"size": 48}}


class Trainer:
    """A training function that writes one file and remembers with what it was called."""

    def __init__(self):
        self.calls: list[dict] = []

    def __call__(self, config: dict, folder: Path) -> dict:
        self.calls.append(config)
        (folder / "model.txt").write_text(config["optimizer"])
        (folder / "work").mkdir()
        (folder / "work" / "checkpoint").write_text("not to be committed")
        accuracy = [k / 10 for k in range(config["epochs"])]
        return {"loss": [1.0 - a for a in accuracy], "val_accuracy": accuracy, "seconds": [6.0] * config["epochs"]}


def test_the_profile_is_cached_unless_told(monkeypatch):
    monkeypatch.delenv("HAR_PROFILE", raising=False)
    assert training.profile() == "cached"
    monkeypatch.setenv("HAR_PROFILE", "quick")
    with pytest.raises(DataError, match="HAR_PROFILE='quick'.*cached, smoke, full"):
        training.profile()


def test_full_trains_once_and_cached_shows_it(folders, monkeypatch, capsys):
    monkeypatch.setenv("HAR_PROFILE", "full")
    train = Trainer()
    run = training.fit_or_load("emotion/small", CONFIG, train)
    assert train.calls == [CONFIG] and run.folder == folders / "artifacts" / "emotion" / "small"
    assert sorted(path.name for path in run.folder.iterdir()) == ["history.json", "model.txt"]
    assert run.history["val_accuracy"] == [0.0, 0.1, 0.2, 0.3, 0.4] and run.best() == (5, 0.4)
    assert run.best("loss") == (5, 0.6) and run.provenance["minutes"] == 0.5 and run.provenance["epochs"] == 5

    assert training.fit_or_load("emotion/small", CONFIG, train) == run and len(train.calls) == 1, "finished: kept"
    monkeypatch.setenv("HAR_PROFILE", "cached")
    capsys.readouterr()
    assert training.fit_or_load("emotion/small", CONFIG, train) == run and len(train.calls) == 1
    line = capsys.readouterr().out
    assert line.startswith("emotion/small: 5 epochs, trained 20") and line.count("\n") == 1
    assert training.fit_or_load("emotion/small", {**CONFIG, "face": {"size": np.int64(48).item()}}, train) == run


def test_full_trains_anew_when_the_configuration_changed(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "full")
    train = Trainer()
    training.fit_or_load("run", CONFIG, train)
    run = training.fit_or_load("run", {**CONFIG, "optimizer": "sgd"}, train)
    assert len(train.calls) == 2 and run.config["optimizer"] == "sgd"
    assert (run.folder / "model.txt").read_text() == "sgd"


def test_the_rows_of_a_study_share_a_readable_file_and_leave_no_other(folders, monkeypatch, capsys):
    monkeypatch.setenv("HAR_PROFILE", "full")
    train = Trainer()

    def ablate(config, folder):
        return {**train(config, folder), "result": {"predicted": ("a", "b")}}

    first = training.fit_or_load("studies/ablation", CONFIG, ablate, row="no mixup, 2 s")
    second = training.fit_or_load("studies/ablation", {**CONFIG, "optimizer": "sgd"}, ablate, row="sgd")
    assert first.result == {"predicted": ["a", "b"]} and first.history["val_accuracy"][-1] == 0.4
    path = folders / "artifacts" / "studies" / "ablation.json"
    assert [p for p in (folders / "artifacts").rglob("*") if p.is_file()] == [path]
    assert list(json.loads(path.read_text())) == ["no mixup, 2 s", "sgd"] and path.read_text().count("\n") == 14
    monkeypatch.setenv("HAR_PROFILE", "cached")
    capsys.readouterr()
    assert training.fit_or_load("studies/ablation", CONFIG, ablate, row="no mixup, 2 s") == first
    assert capsys.readouterr().out.startswith("studies/ablation, no mixup, 2 s: 5 epochs, trained 20")
    assert training.load_run(path, "sgd") == second and len(train.calls) == 2
    with pytest.raises(DataError, match="optimizer: recorded 'sgd', asked 'adam'"):
        training.fit_or_load("studies/ablation", CONFIG, ablate, row="sgd")
    with pytest.raises(DataError, match="ablation.json: .*without the row 'another'"):
        training.load_run(path, "another")
    monkeypatch.setenv("HAR_PROFILE", "full")
    training.fit_or_load("studies/ablation", CONFIG, ablate, row="sgd")
    assert len(train.calls) == 3 and training.load_run(path, "no mixup, 2 s") == first, "other rows stay"


def test_a_training_that_went_on_elsewhere_names_both_machines(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "full")
    names = iter(("16 cores", "2 cores", "2 cores"))
    monkeypatch.setattr(training, "machine", lambda: next(names))

    def train(config, folder):
        for epochs in (1, 2, 3):
            history = training.fit(blob_model(), Blobs(), None, epochs=epochs, work=folder / "work", seed=0)
        return history

    assert training.fit_or_load("a", CONFIG, train).provenance["machine"] == "16 cores, then 2 cores"


def test_an_interrupted_full_training_leaves_no_artifact_and_finds_its_files_again(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "full")

    def interrupted(config, folder):
        (folder / "epoch1").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit_or_load("a/b", CONFIG, interrupted)
    assert not (folders / "artifacts").exists()
    if os.name == "posix":
        assert (folders / ".cache/training").stat().st_mode & 0o777 == 0o700, "nobody else can have put anything there"
    found = []

    def continued(config, folder):
        found.extend(path.name for path in folder.iterdir())
        return {"loss": [1.0]}

    training.fit_or_load("a/b", {**CONFIG, "epochs": 6}, continued)
    assert found == [], "another configuration starts anew"
    training.fit_or_load("a/b", CONFIG, continued)
    assert found == ["epoch1"]


def test_two_processes_never_train_into_one_folder(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "full")
    inner = Trainer()

    def train(config, folder):
        with pytest.raises(DataError, match=r"a-\w+\.lock: another run is writing"):
            training.fit_or_load("a", CONFIG, inner)
        return {"loss": [1.0]}

    training.fit_or_load("a", CONFIG, train)
    assert not inner.calls
    assert not list((folders / ".cache/training").glob("*.lock*")), "the lock goes with the training"


def test_cached_without_a_run_says_how_to_get_one(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "cached")
    with pytest.raises(DataError, match=r"nothing.history\.json: no such run.*HAR_PROFILE=full.*make retrain"):
        training.fit_or_load("nothing", CONFIG, Trainer())


RECORD = {
    "config": CONFIG,
    "history": {"loss": [1.0]},
    "provenance": {"date": "2026-01-01", "minutes": 1.5, "epochs": 1, "machine": "2 cores"},
}
DAMAGED = [  # text of the record, why
    ("", "empty"),
    ("{", "cut off"),
    ("[]", "a list"),
    ("{}", "nothing in it"),
    (json.dumps({"config": {}}), "only a part"),
    (json.dumps({**RECORD, "history": [1.0]}), "a list for a map"),
    (json.dumps({**RECORD, "history": {"loss": ["1.0"]}}), "numbers in quotes"),
    (json.dumps({**RECORD, "provenance": {}}), "nothing about its making"),
    (json.dumps({**RECORD, "provenance": {**RECORD["provenance"], "minutes": "1.5"}}), "minutes in quotes"),
    (json.dumps({**RECORD, "result": 3}), "a number for a map"),
    ("[" * 100_000, "nested without end"),
]


@pytest.mark.parametrize("row", [None, "first"], ids=["run", "row of a study"])
@pytest.mark.parametrize("text, reason", DAMAGED, ids=[reason for _, reason in DAMAGED])
def test_a_damaged_record_is_named(folders, monkeypatch, text, reason, row):
    monkeypatch.setenv("HAR_PROFILE", "cached")
    path = folders / "artifacts" / ("run/history.json" if row is None else "run.json")
    path.parent.mkdir(parents=True)
    path.write_text(text if row is None else f'{{"{row}": {text}}}')
    with pytest.raises(DataError, match=rf"{path.name}: (damaged|not valid JSON)"):
        training.fit_or_load("run", CONFIG, Trainer(), row=row)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {}}', '{"config": [], "result": {}}'])
def test_a_damaged_measurement_is_named(folders, monkeypatch, text):
    monkeypatch.setenv("HAR_PROFILE", "cached")
    (folders / "artifacts").mkdir()
    (folders / "artifacts" / "sizes.json").write_text(text)
    with pytest.raises(DataError, match=r"sizes\.json: (damaged|not valid JSON)"):
        training.measure_or_load("sizes", {}, dict)
    with pytest.raises(DataError, match=r"sizes\.json: (damaged|not valid JSON)"):
        training.measured("sizes")


def test_a_training_that_diverged_is_recorded_and_read(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "full")
    run = training.fit_or_load("run", CONFIG, lambda config, folder: {"loss": [1.0, float("nan")]}, row="too fast")
    assert np.isnan(training.load_run(run.folder, "too fast").history["loss"][1])


@pytest.mark.parametrize(
    "change, lines",
    [
        ({"learning_rate": 0.02}, ["learning_rate: recorded 0.01, asked 0.02"]),
        ({"face": {"size": 64}}, ["face: recorded {'size': 48}, asked {'size': 64}"]),
        ({"mixup": 0.2}, ["mixup: recorded None, asked 0.2"]),
        ({"optimizer": "sgd", "epochs": 6}, ["epochs: recorded 5, asked 6", "optimizer: recorded 'adam', asked 'sgd'"]),
    ],
)
def test_a_stale_result_is_never_shown(folders, monkeypatch, change, lines):
    monkeypatch.setenv("HAR_PROFILE", "full")
    training.fit_or_load("run", CONFIG, Trainer())
    monkeypatch.setenv("HAR_PROFILE", "cached")
    with pytest.raises(DataError, match="another configuration") as error:
        training.fit_or_load("run", {**CONFIG, **change}, Trainer())
    assert [line.strip() for line in str(error.value).splitlines()[1:-1]] == lines
    assert "make retrain" in str(error.value)


def test_smoke_trains_for_two_epochs_and_writes_nothing(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "smoke")
    train = Trainer()
    run = training.fit_or_load("run", CONFIG, train)
    assert train.calls == [{**CONFIG, "epochs": 2}] and len(run.history["loss"]) == 2
    assert list(folders.iterdir()) == []
    training.fit_or_load("run", CONFIG, train, epochs_in_smoke=3)
    assert train.calls[-1]["epochs"] == 3


def test_a_measurement_is_computed_in_full_and_loaded_in_cached(folders, monkeypatch):
    calls = []

    def compute():
        calls.append(1)
        return {"median": 0.5, "pairs": [(1, 2)]}

    monkeypatch.setenv("HAR_PROFILE", "cached")
    with pytest.raises(DataError, match=r"sizes\.json: not measured yet.*HAR_PROFILE=full"):
        training.measure_or_load("data/sizes", {"n": 3}, compute)
    monkeypatch.setenv("HAR_PROFILE", "smoke")
    assert training.measure_or_load("data/sizes", {"n": 3}, compute) == {"median": 0.5, "pairs": [[1, 2]]}
    assert not (folders / "artifacts").exists()
    monkeypatch.setenv("HAR_PROFILE", "full")
    full = training.measure_or_load("data/sizes", {"n": 3}, compute)
    assert training.measured("data/sizes") == full
    with pytest.raises(DataError, match=r"others\.json: not measured yet"):
        training.measured("data/others")
    monkeypatch.setenv("HAR_PROFILE", "cached")
    assert training.measure_or_load("data/sizes", {"n": 3}, compute) == full and len(calls) == 2
    with pytest.raises(DataError, match="n: recorded 3, asked 4"):
        training.measure_or_load("data/sizes", {"n": 4}, compute)


def test_predictions_are_made_in_full_only(folders, monkeypatch):
    made = Predictions(
        files=("a/1", "b/2"),
        labels=("a", "b"),
        classes=("a", "b"),
        groups=("1", "2"),
        probabilities=np.array([[0.9, 0.1], [0.4, 0.6]], np.float32),
    )
    for name in ("cached", "smoke"):
        monkeypatch.setenv("HAR_PROFILE", name)
        with pytest.raises(DataError, match=r"run.predictions\.npz"):
            training.predict_or_load("run/predictions", lambda: made)
    monkeypatch.setenv("HAR_PROFILE", "full")
    training.predict_or_load("run/predictions", lambda: made)
    monkeypatch.setenv("HAR_PROFILE", "smoke")
    loaded = training.predict_or_load("run/predictions", lambda: pytest.fail("computed again"))
    assert loaded.files == made.files
    np.testing.assert_allclose(loaded.probabilities, made.probabilities, atol=1e-3)


def test_configurations_are_json(folders, monkeypatch):
    """What is recorded is what is compared: tuples become lists on both sides."""
    monkeypatch.setenv("HAR_PROFILE", "full")
    run = training.fit_or_load("run", {**CONFIG, "widths": (8, 16)}, Trainer())
    assert json.loads((run.folder / "history.json").read_text())["config"]["widths"] == [8, 16]
    monkeypatch.setenv("HAR_PROFILE", "cached")
    assert training.fit_or_load("run", {**CONFIG, "widths": (8, 16)}, Trainer()).config == run.config
