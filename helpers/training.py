"""Training that can be stopped, continued and shown again; optimizers and schedules; nothing of either task."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import keras
import numpy as np
import pandas
from tqdm import tqdm

from helpers.data.cache import cache_folder
from helpers.data.files import whole_file
from helpers.data.outputs import OutputFile
from helpers.data.paths import ARTIFACTS
from helpers.distributed import own_folder, own_share
from helpers.errors import DataError
from helpers.model_files import read_json
from helpers.predictions import Predictions

PROFILES = ("cached", "smoke", "full")


def profile() -> str:
    """The value of HAR_PROFILE: "cached" (show committed results), "smoke" (train for seconds) or "full"."""
    name = os.environ.get("HAR_PROFILE", "cached")
    if name not in PROFILES:
        raise DataError(f"HAR_PROFILE={name!r}: must be one of {', '.join(PROFILES)}")
    return name


@dataclass(frozen=True)
class Run:
    """One finished training: where its files are, how it was configured, how it went.

    folder: of a study's row the study's file. history: per epoch lists (loss, accuracy, val_loss, val_accuracy, ...).
    provenance: when, on what, how long. result: what else the training measured, JSON types.
    """

    folder: Path
    config: dict
    history: dict[str, list[float]]
    provenance: dict
    result: dict = field(default_factory=dict)

    def best(self, metric: str = "val_accuracy") -> tuple[int, float]:
        """(epoch counted from 1, value) of the best epoch."""
        values = self.history[metric]
        epoch = int(np.argmin(values) if "loss" in metric else np.argmax(values))
        return epoch + 1, float(values[epoch])


def fit_or_load(
    name: str, config: dict, train: Callable[[dict, Path], dict], *, epochs_in_smoke: int = 2, row: str | None = None
) -> Run:
    """The run `name` (a folder below artifacts/): loaded in the cached profile, trained in the others.

    config: everything that decides the result; JSON types only.
    train: called as train(config, folder). It writes its models and predictions into `folder`, keeps its checkpoints
        in `folder/work`, and returns the history; what it measured besides may stand there under "result" (JSON types).
    row: the run is one of a study: only its record is kept, under this name in artifacts/<name>.json.

    "cached" raises DataError when nothing is committed or when `config` is not what the committed run was trained
    with: a stale result is never shown. "full" continues an interrupted training and keeps a finished one whose
    configuration is the same; delete its folder (or the study's row) to train it again. While another process trains
    the same, it raises DataError. "smoke" trains for `epochs_in_smoke` epochs in a temporary folder.
    """
    config = json.loads(json.dumps(config))
    place = ARTIFACTS / name if row is None else ARTIFACTS / f"{name}.json"
    if profile() == "smoke":
        with tempfile.TemporaryDirectory() as work:
            return _run(Path(work), _train({**config, "epochs": epochs_in_smoke}, train, Path(work)))
    if profile() == "full" and not _finished(place, row, config):
        key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        slug = "-".join(re.findall(r"[\w.]+", f"{name} {row or ''}"))
        work = cache_folder("training") / f"{slug}-{key}"
        with OutputFile(f"{work}.lock"):  # two trainings that write into one folder garble its log
            _keep(place, row, work, _train(config, train, work))
    run = load_run(place, row)
    _check_config(place, run.config, config)
    print(
        f"{name if row is None else f'{name}, {row}'}: {run.provenance['epochs']} epochs, trained "
        f"{run.provenance['date']} in {run.provenance['minutes']:.1f} min on {run.provenance['machine']}"
    )
    return run


def measure_or_load(name: str, config: dict, compute: Callable[[], dict]) -> dict:
    """A measurement on the data sets, kept as artifacts/<name>.json: loaded in the cached profile, else computed.

    config: everything that decides the result. compute: returns a dict of JSON types. Raises DataError in the cached
    profile when nothing is committed or `config` has changed.
    """
    config, path = json.loads(json.dumps(config)), ARTIFACTS / f"{name}.json"
    if profile() == "smoke":
        return json.loads(json.dumps(compute()))
    if profile() == "full":
        _write(path, json.dumps({"config": config, "result": compute()}, indent=1) + "\n")
    record = _read_measurement(path)
    _check_config(path, record["config"], config)
    return record["result"]


def measured(name: str) -> dict:
    """What another notebook measured and kept as artifacts/<name>.json. Raises DataError when it did not."""
    return _read_measurement(ARTIFACTS / f"{name}.json")["result"]


def _read_measurement(path: Path) -> dict:
    record = read_json(path, "not measured yet; run the notebook with HAR_PROFILE=full", nan=True)
    if not isinstance(record, dict) or not all(isinstance(record.get(key), dict) for key in ("config", "result")):
        raise DataError(f"{path}: damaged, no config or no result in it; restore it from git, or measure it anew")
    return record


def _write(path: Path, text: str) -> None:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def predict_or_load(name: str, predict: Callable[[], Predictions]) -> Predictions:
    """Predictions kept as artifacts/<name>.npz: made in the full profile, loaded in the others.

    The smoke profile loads them too: metrics of a network trained for seconds say nothing.
    """
    path = ARTIFACTS / f"{name}.npz"
    if profile() == "full":
        path.parent.mkdir(parents=True, exist_ok=True)
        predict().save(path)
    return Predictions.load(path)


def load_run(place: Path, row: str | None = None) -> Run:
    """The run in folder `place`, or a row of the study's file `place`. Raises DataError when missing or damaged."""
    path = Path(place) / "history.json" if row is None else Path(place)
    content = read_json(path, "no such run; train it with HAR_PROFILE=full (`make retrain`)", nan=True)
    record = content if row is None or not isinstance(content, dict) else content.get(row)
    if not isinstance(record, dict) or not _is_record(record):
        raise DataError(
            f"{path}: damaged{f', or without the row {row!r}' if row else ''}; restore it from git, or train it with "
            "HAR_PROFILE=full"
        )
    return _run(place, record)


def _is_record(record: dict) -> bool:
    config, history, provenance = (record.get(key) for key in ("config", "history", "provenance"))
    if not all(isinstance(part, dict) for part in (config, history, provenance, record.get("result", {}))):
        return False
    numbers = [provenance.get("minutes"), provenance.get("epochs")]
    for values in history.values():
        numbers += values if isinstance(values, list) else [values]
    return {"date", "machine"} <= set(provenance) and all(type(number) in (int, float) for number in numbers)


def _run(place: Path, record: dict) -> Run:
    return Run(Path(place), record["config"], record["history"], record["provenance"], record.get("result", {}))


def _finished(place: Path, row: str | None, config: dict) -> bool:
    path = place / "history.json" if row is None else place
    if not path.is_file() or (row is not None and row not in read_json(path, nan=True)):
        return False
    return load_run(place, row).config == config


def _keep(place: Path, row: str | None, work: Path, record: dict) -> None:
    """A finished training's record, and, when it is no row of a study, the files that it wrote into `work`."""
    if row is not None:
        rows = read_json(place, nan=True) if place.is_file() else {}
        _write_study(place, {**rows, row: record})
        return
    place.mkdir(parents=True, exist_ok=True)
    for path in work.iterdir():
        if path.is_file():
            shutil.move(path, place / path.name)
    _write(place / "history.json", _record_text(record) + "\n")


def _write_study(path: Path, rows: dict[str, dict]) -> None:
    """A study's file: the record of each of its rows, one line per part of a record."""
    parts = [f"{json.dumps(row)}: {_record_text(record)}" for row, record in rows.items()]
    _write(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _record_text(record: dict) -> str:
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()) + "\n}"


def _check_config(folder: Path, recorded: dict, asked: dict) -> None:
    changed = sorted(k for k in {*recorded, *asked} if recorded.get(k) != asked.get(k))
    if changed:
        lines = [f"  {k}: recorded {recorded.get(k)!r}, asked {asked.get(k)!r}" for k in changed]
        raise DataError(
            f"{folder}: was trained with another configuration:\n"
            + "\n".join(lines)
            + "\nSet it back, or train anew with HAR_PROFILE=full (`make retrain`)."
        )


def _train(config: dict, train: Callable[[dict, Path], dict], work: Path) -> dict:
    """The record of a training in `work`, whose checkpoints are removed when it is finished."""
    work.mkdir(parents=True, exist_ok=True)
    history = train(config, work)
    result = history.pop("result", {})
    minutes = sum(history.pop("seconds", [])) / 60
    machines = dict.fromkeys(
        line for path in sorted(work.rglob("machines.txt")) for line in path.read_text().splitlines()
    )
    provenance = {
        "date": date.today().isoformat(),
        "minutes": round(minutes, 2),
        "epochs": len(history["loss"]),
        "machine": ", then ".join(machines) or machine(),
    }
    history = {key: [round(float(v), 6) for v in values] for key, values in history.items()}
    shutil.rmtree(work / "work", ignore_errors=True)
    record = {"config": config, "provenance": provenance, "history": history}
    return {**record, "result": json.loads(json.dumps(result))} if result else record


def machine() -> str:
    """What a training runs on: cores, graphics cards, versions."""
    cards = sum("gpu" in device.lower() for device in keras.distribution.list_devices())
    return (
        f"{os.cpu_count()} cores{f', {cards} GPU' if cards else ''}, Keras {keras.__version__} "
        f"({keras.backend.backend()}), Python {platform.python_version()}"
    )


def fit(
    model: keras.Model, training, validation, *, epochs: int, work: Path, seed: int, keep_best: bool = True
) -> dict[str, list[float]]:
    """`model.fit` that survives being killed: a second call continues after the last finished epoch.

    keep_best: end with the weights of the epoch with the best validation accuracy; otherwise with the last epoch's,
        for when the validation data are what is reported.
    Returns the history of all epochs, also those before a restart, with the seconds that each took. On several devices
    or machines (see `helpers.distributed`) every batch is shared among them.
    """
    keras.utils.set_random_seed(seed)
    work = own_folder(work)
    work.mkdir(parents=True, exist_ok=True)
    log, best, last = work / "log.csv", work / "best.weights.h5", work / "last.weights.h5"
    done = _read_log(log)
    if len(done) < epochs:
        with open(work / "machines.txt", "a") as machines:  # a training may go on on another one
            machines.write(machine() + "\n")
        kept = _epochs_kept(work / "backup")
        while getattr(training, "epoch", kept) < kept:
            training.on_epoch_end()  # to the order and the augmentations of the epoch that comes next
        best_so_far = float(done["val_accuracy"].max()) if "val_accuracy" in done else None
        model.fit(
            own_share(training),
            validation_data=own_share(validation),
            epochs=epochs,
            verbose=0,
            callbacks=[
                _EpochSeconds(),
                _EpochBar(kept),
                keras.callbacks.ModelCheckpoint(last, save_weights_only=True),
                keras.callbacks.ModelCheckpoint(
                    best,
                    monitor="val_accuracy",
                    mode="max",
                    save_best_only=True,
                    save_weights_only=True,
                    initial_value_threshold=best_so_far,
                )
                if validation is not None
                else keras.callbacks.Callback(),
                keras.callbacks.CSVLogger(log, append=True),
                # Last: an epoch counts as done when all of it is on disk. A kill before that trains the epoch again.
                keras.callbacks.BackupAndRestore(work / "backup", double_checkpoint=True, delete_checkpoint=False),
            ],
        )
    with warnings.catch_warnings():  # the optimizer's state in the file is not needed any more
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        model.load_weights(best if keep_best and validation is not None else last)
    table = _read_log(log).drop(columns="epoch")
    measured = [column for column in table if validation is not None or not column.startswith("val_")]
    return {column: table[column].tolist() for column in measured}  # without validation CSVLogger adds empty columns


def _epochs_kept(folder: Path) -> int:
    """How many epochs Keras's backup in `folder` has finished: it goes on with the next one.

    A kill while Keras writes that number leaves a file that is empty or cut off. Then the backup of the epoch before is
    put in place, if there is one; Keras itself does so only for damaged weights.
    """
    number = folder / "training_metadata.json"
    try:
        return json.loads(number.read_text())["epoch"]
    except FileNotFoundError:
        return 0
    except json.JSONDecodeError:
        for path in (number, folder / "latest.weights.h5"):
            path.unlink(missing_ok=True)
            previous = path.with_name(f"{path.name}.bkp")
            if previous.is_file():
                shutil.copy(previous, path)
        return _epochs_kept(folder)


def _read_log(log: Path) -> pandas.DataFrame:
    """One row per epoch; of an epoch that was trained twice the later one."""
    if not log.is_file() or log.stat().st_size == 0:
        return pandas.DataFrame()
    return pandas.read_csv(log).drop_duplicates("epoch", keep="last")


class _EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock seconds of each epoch to the logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["seconds"] = round(time.perf_counter() - self._start, 2)


class _EpochBar(keras.callbacks.Callback):
    """How far the training is and how long it will take, for somebody at a terminal. done: epochs of an earlier run."""

    def __init__(self, done: int):
        super().__init__()
        self._done = done

    def on_train_begin(self, logs=None):
        self._bar = tqdm(total=self.params["epochs"], initial=self._done, unit="epoch", leave=False, disable=None)

    def on_epoch_end(self, epoch, logs=None):
        self._bar.update()

    def on_train_end(self, logs=None):
        self._bar.close()


def capped_class_weights(targets: np.ndarray, classes: int, cap: float) -> np.ndarray:
    """float32 (classes,): inverse class frequency, at most `cap`, then scaled so that the mean over samples is 1.

    Without the cap FER-2013's "disgust" (1.5 % of the faces) would weigh 16 times "happy" and teach noise.
    """
    counts = np.bincount(targets, minlength=classes)
    weights = np.minimum(len(targets) / (classes * np.maximum(counts, 1)), cap)
    return (weights / (weights * counts).sum() * len(targets)).astype(np.float32)


def cosine_with_warmup(
    rate: float, steps: int, warmup_share: float = 0.05
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Learning rate per step: linear from 0 to `rate` in the first share of the steps, then half a cosine to 0
    (Loshchilov & Hutter, 2017, arXiv:1608.03983)."""
    warmup = max(1, int(steps * warmup_share))
    return keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warmup), warmup_target=rate, warmup_steps=warmup)


def make_optimizer(name: str, rate: float, steps: int, *, weight_decay: float = 1e-4) -> keras.optimizers.Optimizer:
    """One of the compared optimizers. `steps` is the length of the whole training in batches.

    "sgd" has Nesterov momentum 0.9; "adam", "adagrad" are Keras's; "adamw" adds weight decay (its share of a weight is
    taken off per step, times the learning rate) and the cosine schedule with warm-up; "adam_cosine" is Adam with that
    schedule. The first three keep a constant rate, as the course compares them.
    """
    optimizers = {
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        "adam": lambda: keras.optimizers.Adam(rate),
        "adagrad": lambda: keras.optimizers.Adagrad(rate),
        "adam_cosine": lambda: keras.optimizers.Adam(cosine_with_warmup(rate, steps)),
        "adamw": lambda: keras.optimizers.AdamW(cosine_with_warmup(rate, steps), weight_decay=weight_decay),
    }
    if name not in optimizers:
        raise ValueError(f"optimizer must be one of {', '.join(optimizers)}, got {name!r}")
    return optimizers[name]()
