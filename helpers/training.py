"""Training that can be stopped, continued, and shown again: data feeding, losses, schedules, `fit_or_load`."""
from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from threading import Lock

import cv2
import joblib
import keras
import numpy as np
import pandas
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from helpers import artifacts, models, samples
from helpers.artifacts import ARTIFACTS, KerasFunction
from helpers.clips import Augmentation, ClipSpec, steps_of, video_steps, windows
from helpers.datasets import (
    FER_PLUS,
    REPOSITORY,
    DataError,
    Sample,
    Skipped,
    data_root,
    find_dataset,
    group_by_pixels,
    leave_groups_out,
    list_samples,
    list_split,
    read_manifest,
    split_groups,
)
from helpers.evaluate import Predictions, predict_emotions
from helpers.faces import FaceFinder, FacePreprocessor, FaceSpec, crop_samples

PROFILES = ("cached", "smoke", "full")
WORK = REPOSITORY / ".cache" / "training"  # checkpoints of unfinished trainings

memory = joblib.Memory(REPOSITORY / ".cache" / "arrays", verbose=0)  # arrays that cost minutes, keyed by their inputs


def profile() -> str:
    """The value of HAR_PROFILE: "cached" (show committed results), "smoke" (train for seconds) or "full"."""
    name = os.environ.get("HAR_PROFILE", "cached")
    if name not in PROFILES:
        raise DataError(f"HAR_PROFILE={name!r}: must be one of {', '.join(PROFILES)}")
    return name


# --------------------------------------------------------------------------------------------------- fit or load

@dataclass(frozen=True)
class Run:
    """One finished training: where its files are, how it was configured, how it went.

    history: per epoch lists (loss, accuracy, val_loss, val_accuracy, ...). provenance: when, on what, how long.
    """

    folder: Path
    config: dict
    history: dict[str, list[float]]
    provenance: dict

    def best(self, metric: str = "val_accuracy") -> tuple[int, float]:
        """(epoch counted from 1, value) of the best epoch."""
        values = self.history[metric]
        epoch = int(np.argmin(values) if "loss" in metric else np.argmax(values))
        return epoch + 1, float(values[epoch])


def fit_or_load(name: str, config: dict, train: Callable[[dict, Path], dict], epochs_in_smoke: int = 2) -> Run:
    """The run `name` (a folder below artifacts/): loaded in the cached profile, trained in the others.

    config: everything that decides the result; JSON types only.
    train: called as train(config, folder). It writes its models and predictions into `folder`, keeps its checkpoints
        in `folder/work`, and returns the history.

    "cached" raises DataError when nothing is committed or when `config` is not what the committed run was trained
    with: a stale result is never shown. "full" continues an interrupted training and keeps a finished one whose
    configuration is the same; delete its folder to train it again. "smoke" trains for `epochs_in_smoke` epochs in a
    temporary folder.
    """
    config = json.loads(json.dumps(config))
    folder = ARTIFACTS / name
    if profile() == "smoke":
        with tempfile.TemporaryDirectory() as temporary:
            return _train({**config, "epochs": epochs_in_smoke}, train, Path(temporary) / "run", Path(temporary))
    if profile() == "full" and not _finished(folder, config):
        key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        _train(config, train, WORK / f"{name.replace('/', '-')}-{key}", folder)
    run = load_run(folder)
    _check_config(folder, run.config, config)
    print(f"{name}: {run.provenance['epochs']} epochs, trained {run.provenance['date']} in "
          f"{run.provenance['minutes']:.1f} min on {run.provenance['machine']}")
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
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"config": config, "result": compute()}, indent=1) + "\n")
    record = _read_measurement(path)
    _check_config(path, record["config"], config)
    return record["result"]


def measured(name: str) -> dict:
    """What another notebook measured and kept as artifacts/<name>.json. Raises DataError when it did not."""
    return _read_measurement(ARTIFACTS / f"{name}.json")["result"]


def _read_measurement(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: not measured yet; run the notebook with HAR_PROFILE=full") from None


def predict_or_load(name: str, predict: Callable[[], Predictions]) -> Predictions:
    """Predictions kept as artifacts/<name>.npz: made in the full profile, loaded in the others.

    The smoke profile loads them too: metrics of a network trained for seconds say nothing.
    """
    path = ARTIFACTS / f"{name}.npz"
    if profile() == "full":
        path.parent.mkdir(parents=True, exist_ok=True)
        predict().save(path)
    return Predictions.load(path)


def load_run(folder: Path) -> Run:
    """The run recorded in `folder`/history.json. Raises DataError when it is missing or damaged."""
    path = Path(folder) / "history.json"
    try:
        record = json.loads(path.read_text())
        return Run(Path(folder), record["config"], record["history"], record["provenance"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such run; train it with HAR_PROFILE=full (`make retrain`)") from None
    except (json.JSONDecodeError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); restore it from git or delete the folder and retrain") from error


def _finished(folder: Path, config: dict) -> bool:
    return (folder / "history.json").is_file() and load_run(folder).config == config


def _check_config(folder: Path, recorded: dict, asked: dict) -> None:
    changed = sorted(k for k in {*recorded, *asked} if recorded.get(k) != asked.get(k))
    if changed:
        lines = [f"  {k}: recorded {recorded.get(k)!r}, asked {asked.get(k)!r}" for k in changed]
        raise DataError(f"{folder}: was trained with another configuration:\n" + "\n".join(lines)
                        + "\nSet it back, or train anew with HAR_PROFILE=full (`make retrain`).")


def _train(config: dict, train: Callable[[dict, Path], dict], work: Path, folder: Path) -> Run:
    """Train in `work`; move what it wrote to `folder` only when it is finished."""
    work.mkdir(parents=True, exist_ok=True)
    history = train(config, work)
    minutes = sum(history.pop("seconds", [])) / 60
    machines = dict.fromkeys(line for path in sorted(work.rglob("machines.txt")) for line in path.read_text().splitlines())
    provenance = {"date": date.today().isoformat(), "minutes": round(minutes, 2), "epochs": len(history["loss"]),
                  "machine": ", then ".join(machines) or machine()}
    history = {key: [round(float(v), 6) for v in values] for key, values in history.items()}
    shutil.rmtree(work / "work", ignore_errors=True)
    (work / "history.json").write_text(json.dumps({"config": config, "provenance": provenance, "history": history}))
    folder.mkdir(parents=True, exist_ok=True)
    for path in work.iterdir():
        if path.is_file():
            shutil.move(path, folder / path.name)
    return load_run(folder)


def machine() -> str:
    """What a training runs on: cores, graphics cards, versions."""
    cards = sum("gpu" in device.lower() for device in keras.distribution.list_devices())
    return (f"{os.cpu_count()} cores{f', {cards} GPU' if cards else ''}, Keras {keras.__version__} "
            f"({keras.backend.backend()}), Python {platform.python_version()}")


def fit(model: keras.Model, training, validation, epochs: int, work: Path, seed: int,
        keep_best: bool = True) -> dict[str, list[float]]:
    """`model.fit` that survives being killed: a second call continues after the last finished epoch.

    keep_best: end with the weights of the epoch with the best validation accuracy; otherwise with the last epoch's,
        for when the validation data are what is reported.
    Returns the history of all epochs, also those before a restart, with the seconds that each took.
    """
    keras.utils.set_random_seed(seed)
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
        model.fit(training, validation_data=validation, epochs=epochs, verbose=0, callbacks=[
            EpochSeconds(),
            keras.callbacks.ModelCheckpoint(last, save_weights_only=True),
            keras.callbacks.ModelCheckpoint(best, monitor="val_accuracy", mode="max", save_best_only=True,
                                            save_weights_only=True, initial_value_threshold=best_so_far)
            if validation is not None else keras.callbacks.Callback(),
            keras.callbacks.CSVLogger(log, append=True),
            # Last: an epoch counts as done when all of it is on disk. A kill before that trains the epoch again.
            keras.callbacks.BackupAndRestore(work / "backup", double_checkpoint=True, delete_checkpoint=False),
        ])
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


class EpochSeconds(keras.callbacks.Callback):
    """Adds the wall-clock seconds of each epoch to the logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["seconds"] = round(time.perf_counter() - self._start, 2)


# --------------------------------------------------------------------------------------------------- ingredients

def capped_class_weights(targets: np.ndarray, classes: int, cap: float) -> np.ndarray:
    """float32 (classes,): inverse class frequency, at most `cap`, then scaled so that the mean over samples is 1.

    Without the cap FER-2013's "disgust" (1.5 % of the faces) would weigh 16 times "happy" and teach noise.
    """
    counts = np.bincount(targets, minlength=classes)
    weights = np.minimum(len(targets) / (classes * np.maximum(counts, 1)), cap)
    return (weights / (weights * counts).sum() * len(targets)).astype(np.float32)


def mixup(images: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Blend each sample of a batch with another one (Zhang et al., 2018, arXiv:1710.09412).

    images (N, ...), targets (N, classes) one-hot or soft. The share of the first is drawn per sample from
    Beta(alpha, alpha) and is at least one half, so a sample stays mostly itself.
    """
    if alpha <= 0:
        return images, targets
    partner, share = draw_mixup(len(images), alpha, rng)
    return blend(images, images[partner], share), blend(targets, targets[partner], share)


def draw_mixup(count: int, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For `count` samples the partner int (N,) that each is blended with, and its own share float32 (N,)."""
    share = rng.beta(alpha, alpha, count).astype(np.float32)
    return rng.permutation(count), np.maximum(share, 1 - share)


def blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """share * first + (1 - share) * second, row by row."""
    share = share.reshape(-1, *[1] * (first.ndim - 1))
    return share * first + (1 - share) * second


def cosine_with_warmup(rate: float, steps: int, warmup_share: float = 0.05) -> keras.optimizers.schedules.LearningRateSchedule:
    """Learning rate per step: linear from 0 to `rate` in the first share of the steps, then half a cosine to 0
    (Loshchilov & Hutter, 2017, arXiv:1608.03983)."""
    warmup = max(1, int(steps * warmup_share))
    return keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warmup), warmup_target=rate, warmup_steps=warmup)


def make_optimizer(name: str, rate: float, steps: int, weight_decay: float = 1e-4) -> keras.optimizers.Optimizer:
    """One of the compared optimizers. `steps` is the length of the whole training in batches.

    "sgd" has Nesterov momentum 0.9; "adam", "adagrad" are Keras's; "adamw" adds weight decay (its share of a weight is
    taken off per step, times the learning rate) and the cosine schedule with warm-up. The first three keep a constant
    rate, as the course compares them.
    """
    optimizers = {
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        "adam": lambda: keras.optimizers.Adam(rate),
        "adagrad": lambda: keras.optimizers.Adagrad(rate),
        "adamw": lambda: keras.optimizers.AdamW(cosine_with_warmup(rate, steps), weight_decay=weight_decay),
    }
    if name not in optimizers:
        raise ValueError(f"optimizer must be one of {', '.join(optimizers)}, got {name!r}")
    return optimizers[name]()


# --------------------------------------------------------------------------------------------------- emotion

def fer_samples(split: str) -> list[Sample]:
    """FER-2013's "train" or "test" faces; in the smoke profile, and where the data set is missing, drawn ones."""
    source = None if profile() == "smoke" else find_dataset("fer2013")
    if source is None:
        source = samples.write_emotion_samples(REPOSITORY / ".cache" / "drawn_faces", per_class=60)
    return list_split(source, split)


def fer_parts(config: dict) -> tuple[list[Sample], list[Sample]]:
    """FER-2013's training faces, and the validation faces that are cut off them; equal pictures stay on one side.

    config: validation_fraction, seed.
    """
    return split_groups(group_by_pixels(fer_samples("train")), config["validation_fraction"], config["seed"])


def expected_labels(labels: np.ndarray, votes: np.ndarray, classes: int) -> np.ndarray:
    """float32 (N, classes): which label FER-2013 gives, on average, to a face with these FER+ votes.

    labels: int (N,), FER-2013's. votes: (N, 10) counts of FER+ raters (Barsoum et al., 2016, arXiv:1608.01041) in the
    order of `datasets.FER_PLUS`; a row of zeros, where FER+ has no votes, keeps its label.

    FER+ raters call more faces neutral than FER-2013 does, so their votes are not taken as they are: a logistic
    regression from the shares of the votes to FER-2013's label keeps what the raters saw and FER-2013's habits.
    """
    expected = np.eye(classes, dtype=np.float32)[labels]
    rated = votes.sum(axis=1) > 0
    if rated.any():
        shares = votes[rated] / votes[rated].sum(axis=1, keepdims=True)
        regression = LogisticRegression(C=10.0, max_iter=1000).fit(shares, labels[rated])
        rows = np.zeros((len(shares), classes), np.float32)
        rows[:, regression.classes_] = regression.predict_proba(shares)
        expected[rated] = rows
    return expected


def fer_votes(samples: list[Sample]) -> np.ndarray:
    """int (N, 10): FER+ votes of each face from `fer2013_manifest.csv`; zeros where there are none, or no such file."""
    path, votes = data_root() / "fer2013_manifest.csv", np.zeros((len(samples), len(FER_PLUS)), int)
    if path.is_file():
        rows = {Path(row.file).name: row.votes for row in read_manifest(path)}
        for line, sample in zip(votes, samples, strict=True):
            line[:] = [rows.get(sample.path.name, {}).get(name, 0) for name in FER_PLUS]
    return votes


def content_key(samples: list[Sample]) -> str:
    """SHA-256 over the content of the files: a changed, added or removed file never reads an old cache entry."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(hashlib.sha256(sample.path.read_bytes()).digest())
    return digest.hexdigest()


def face_arrays(samples: list[Sample], labels: tuple[str, ...], spec: FaceSpec) -> tuple[np.ndarray, np.ndarray]:
    """(crops uint8 (N, size, size), targets int (N,)) of images that are already cut to the face; cached on disk."""
    if not samples:
        raise DataError("no face images to read")
    framing = FaceSpec(spec.size, spec.align, spec.expand)  # the crop depends on nothing else
    crops = _cached_crops(content_key(samples), framing.as_dict(), samples)
    return crops, np.array([labels.index(sample.label) for sample in samples])


@memory.cache(ignore=["samples"])
def _cached_crops(key: str, spec: dict, samples: list[Sample]) -> np.ndarray:
    return crop_samples(samples, FacePreprocessor(FaceSpec(**spec)), FaceFinder())[0]


def augment_faces(crops: np.ndarray, rng: np.random.Generator, degrees: float = 12, shift: float = 0.08,
                  zoom: float = 0.12, stretch: float = 0.0) -> np.ndarray:
    """Random mirror, rotation (degrees), shift and zoom (shares of the side) of uint8 crops (N, size, size).

    The ranges cover the alignment's own errors. Light is not varied: CLAHE and standardisation remove it.
    stretch: the face's height is multiplied by exp(u / 2) and its width divided by it, u between -stretch and stretch:
        0.25 covers photos of 4:5 and 5:4 that somebody squeezed to a square.
    """
    size = crops.shape[1]
    out = np.empty_like(crops)
    for index, crop in enumerate(crops):
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-degrees, degrees), 1 + rng.uniform(-zoom, zoom))
        matrix[:, 2] += rng.uniform(-shift, shift, 2) * size
        if stretch:
            taller = np.exp(rng.uniform(-stretch, stretch) / 2)
            sides = np.array([1 / taller, taller])
            matrix[:, 2] += matrix[:, :2] @ ((1 - sides) * size / 2)
            matrix[:, :2] *= sides
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        out[index] = cv2.warpAffine(np.ascontiguousarray(crop), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return out


def disturb(image: np.ndarray, noise: float, blur: float, rng: np.random.Generator) -> np.ndarray:
    """An image, uint8 of any shape, as a worse camera gives it: blurred, then noisy.

    blur: standard deviation of the Gaussian filter, in pixels; up to 0.2 it is none. noise: that of the Gaussian noise, in gray levels.
    """
    if blur > 0.2:  # the neighbours' weights in a narrower filter are below 1 in 255
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return np.clip(np.rint(image + noise * rng.standard_normal(image.shape, np.float32)), 0, 255).astype(np.uint8)


def disturb_faces(crops: np.ndarray, rng: np.random.Generator, noise: float, blur: float) -> np.ndarray:
    """Each of uint8 crops (N, size, size) disturbed (`disturb`) by its own amounts, drawn evenly from 0 to `noise` and `blur`.

    With neither, the crops themselves, and nothing is drawn from rng.
    """
    if not (noise or blur):
        return crops
    out = np.empty_like(crops)
    for index, crop in enumerate(crops):
        sigma, deviation = rng.uniform(0, blur), rng.uniform(0, noise)
        out[index] = disturb(crop, deviation, sigma, rng)
    return out


def resize_faces(images: np.ndarray, side: int | None) -> np.ndarray:
    """float32 (N, size, size, 1) to (N, side, side, 1), averaging over areas; None and the same side change nothing."""
    if side is None or side == images.shape[1]:
        return images
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])[..., None]


@dataclass(frozen=True)
class FaceView:
    """One fixed look at all training faces: augmented pictures, and with whom each is blended (`mixup`).

    pictures: uint8 (N, size, size), already equalised. partner: int (N,). share: float32 (N,), of the face itself.
    """

    pictures: np.ndarray
    partner: np.ndarray
    share: np.ndarray

    def images(self, chosen: np.ndarray, preprocessor: FacePreprocessor) -> np.ndarray:
        """float32 (B, size, size, 1): the blended faces with these indices, as a network takes them."""
        first, second = (preprocessor.scale(self.pictures[which]) for which in (chosen, self.partner[chosen]))
        return blend(first, second, self.share[chosen])

    def targets(self, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """float32 (B, classes): their targets, of those of all faces (N, classes)."""
        return blend(rows[chosen], rows[self.partner[chosen]], self.share[chosen])


def face_view(crops: np.ndarray, preprocessor: FacePreprocessor, number: int, mixup_alpha: float, stretch: float = 0.0,
              noise: float = 0.0, blur: float = 0.0) -> FaceView:
    """View `number` of crops uint8 (N, size, size): the same number gives the same pictures, on any machine.

    Noise and blur (`disturb_faces`) change neither the faces' places nor who is blended with whom.
    """
    rng = np.random.default_rng((2015, number))
    pictures = augment_faces(crops, rng, stretch=stretch)
    blends = draw_mixup(len(crops), mixup_alpha, rng)
    return FaceView(preprocessor.equalise(disturb_faces(pictures, rng, noise, blur)), *blends)


def teach(teacher: keras.Model, crops: np.ndarray, preprocessor: FacePreprocessor, views: int,
          mixup_alpha: float, stretch: float = 0.0, batch: int = 256) -> np.ndarray:
    """float32 (views, N, classes): what a network answers to `face_view` 0, 1, ... of crops (N, size, size).

    What a student is trained on (distillation: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531; the same view, blended
    too, for teacher and student: Beyer et al., 2022, arXiv:2106.05237).
    """
    function = KerasFunction(teacher)
    answers = np.empty((views, len(crops), teacher.output_shape[-1]), np.float32)
    for number in range(views):
        view = face_view(crops, preprocessor, number, mixup_alpha, stretch)
        for start in range(0, len(crops), batch):
            chosen = np.arange(start, min(start + batch, len(crops)))
            answers[number, chosen] = function(view.images(chosen, preprocessor), batch)
    return answers


class FaceBatches(keras.utils.PyDataset):
    """Shuffled, augmented batches of faces: crops -> augment -> the evaluation's own normalisation -> side -> mixup.

    stretch: how much `augment_faces` may change the ratio of a face's sides. noise, blur: see `disturb_faces`; the
        teachers saw the same faces without.
    side: the pictures are reduced to this many pixels in front of mixup; None leaves them as they are.
    answers: float32 (views, N, classes), what teachers say to each `face_view` (`teach`). They make `teacher_share` of
        the targets, and epoch after epoch shows one view after the other.
    Gives (images float32 (B, side, side, 1), targets float32 (B, classes), weights float32 (B,)).
    """

    def __init__(self, crops: np.ndarray, targets: np.ndarray, preprocessor: FacePreprocessor, batch: int, seed: int,
                 mixup_alpha: float = 0.0, weights: np.ndarray | None = None, augment: bool = True,
                 side: int | None = None, answers: np.ndarray | None = None, teacher_share: float = 0.0, stretch: float = 0.0,
                 noise: float = 0.0, blur: float = 0.0):
        super().__init__(workers=max(1, (os.cpu_count() or 1) // 4))  # two cores are busy enough with the training itself
        self.side, self.answers, self.teacher_share, self._view, self._lock = side, answers, teacher_share, None, Lock()
        self.crops, self.targets, self.preprocessor, self.batch = crops, targets, preprocessor, batch
        self.seed, self.mixup_alpha, self.augment, self.epoch = seed, mixup_alpha, augment, 0
        self.stretch, self.noise, self.blur = stretch, noise, blur
        self.weights = np.ones(targets.shape[1], np.float32) if weights is None else weights
        self.order = np.random.default_rng(seed).permutation(len(crops))

    def __len__(self) -> int:
        return int(np.ceil(len(self.crops) / self.batch))

    def __getitem__(self, index: int):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.batch:(index + 1) * self.batch]
        if self.answers is not None:
            number = self.epoch % len(self.answers)
            view = self._taught_view(number)
            images = resize_faces(view.images(chosen, self.preprocessor), self.side)
            targets = self.teacher_share * self.answers[number, chosen] + (1 - self.teacher_share) * view.targets(self.targets, chosen)
        else:
            crops = augment_faces(self.crops[chosen], rng, stretch=self.stretch) if self.augment else self.crops[chosen]
            crops = disturb_faces(crops, rng, self.noise, self.blur)
            images = resize_faces(self.preprocessor.normalise(crops), self.side)
            images, targets = mixup(images, self.targets[chosen], self.mixup_alpha, rng)
        return images, targets, targets @ self.weights

    def _taught_view(self, number: int) -> FaceView:
        with self._lock:
            if self._view is None or self._view[0] != number:
                self._view = number, face_view(self.crops, self.preprocessor, number, self.mixup_alpha, self.stretch, self.noise,
                                               self.blur)
            return self._view[1]

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.crops))


def compile_emotion(model: keras.Model, optimizer: keras.optimizers.Optimizer, smoothing: float, gamma: float) -> None:
    """Cross-entropy with label smoothing (Szegedy et al., 2016) and a mild focal factor (Lin et al., 2017)."""
    loss = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma, label_smoothing=smoothing)
    model.compile(optimizer, loss, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy"),
                                            keras.metrics.F1Score(average="macro", name="macro_f1")])


def train_emotion(model: keras.Model, config: dict, data: dict, work: Path) -> dict[str, list[float]]:
    """Train `model` on face crops as `config` says; returns the history.

    config: optimizer, learning_rate, batch, epochs, label_smoothing, focal_gamma, mixup_alpha, class_weight_cap, seed;
        optionally weight_decay, augment (bool), stretch, noise, blur, precision (`models.trainable_twin`), and side, to
        train on reduced pictures (progressive resizing: cheap epochs first).
    data: train and val crops uint8 (N, size, size); train_targets and val_targets int (N,); preprocessor; optionally
        soft_targets float32 (N, classes) to train on instead of the labels, and answers (`teach`), which are worth
        config["teacher_share"] of the targets.
    work: folder of the checkpoints.
    """
    classes, side = model.output_shape[-1], config.get("side") or model.input_shape[1]
    one_hot = np.eye(classes, dtype=np.float32)
    targets = data["soft_targets"] if "soft_targets" in data else one_hot[data["train_targets"]]
    batches = FaceBatches(data["train"], targets, data["preprocessor"], config["batch"], config["seed"],
                          config["mixup_alpha"],
                          capped_class_weights(data["train_targets"], classes, config["class_weight_cap"]),
                          config.get("augment", True), side, data.get("answers"), config.get("teacher_share", 0.0),
                          config.get("stretch", 0.0), config.get("noise", 0.0), config.get("blur", 0.0))
    optimizer = make_optimizer(config["optimizer"], config["learning_rate"], len(batches) * config["epochs"],
                               config.get("weight_decay", 1e-4))
    twin = models.trainable_twin(model, side, config.get("precision", "float32"))
    compile_emotion(twin, optimizer, config["label_smoothing"], config["focal_gamma"])
    validation = (resize_faces(data["preprocessor"].normalise(data["val"]), side), one_hot[data["val_targets"]])
    history = fit(twin, batches, validation, config["epochs"], work, config["seed"])
    model.set_weights(twin.get_weights())
    return history


def fer_data(config: dict) -> dict:
    """`fer_parts` as `train_emotion` needs them.

    With vote_share also votes (`fer_votes`) of the training faces.

    config: labels, face, validation_fraction, vote_share (0: the labels alone, 1: `expected_labels` alone), seed;
        optionally teacher, a run of `train_teachers` below artifacts/ whose answers are learned from, with its view_alpha
        as mixup_alpha and its stretch (not in the smoke profile: it has other faces).
    """
    labels, spec = tuple(config["labels"]), FaceSpec(**config["face"])
    fit_part, validation = fer_parts(config)
    data = {"preprocessor": FacePreprocessor(spec), "content": content_key(fit_part)}
    for name, part in (("train", fit_part), ("val", validation)):
        data[name], data[f"{name}_targets"] = face_arrays(part, labels, spec)
    if config["vote_share"]:
        data["votes"] = votes = fer_votes(fit_part)
        if profile() == "full" and not votes.any():
            raise DataError(f"{data_root() / 'fer2013_manifest.csv'}: no FER+ votes for these faces; get the file "
                            "(data/README.md) or set vote_share to 0")
        expected = expected_labels(data["train_targets"], votes, len(labels))
        one_hot = np.eye(len(labels), dtype=np.float32)[data["train_targets"]]
        data["soft_targets"] = (1 - config["vote_share"]) * one_hot + config["vote_share"] * expected
    if config.get("teacher") and profile() != "smoke":
        folder = ARTIFACTS / config["teacher"]
        asked = load_run(folder).config
        seen = {"face": asked["face"], "mixup_alpha": asked["view_alpha"], "stretch": asked.get("stretch", 0.0)}
        shown = {key: config.get(key, 0.0) for key in seen}
        if seen != shown:
            raise DataError(f"{folder}: its answers are to faces with {seen}; a student must see the same, not {shown}")
        data["answers"] = load_answers(folder, data["content"])
    return data


def train_teachers(config: dict, work: Path) -> dict[str, list[float]]:
    """Train some networks that differ in their starts and in the order of the faces alone, and keep what they answer.

    Their mean answers to `views` views (`teach`) go to answers.npz, each one's answers to the validation faces to
    validation.npz. Of the networks the first is kept, in emotion_model.keras, with labels.json and config.json.
    config: members, views, view_alpha (the views' mixup) and what `train_face_model` needs. Gives the mean history;
        `seconds` is their sum.
    """
    data, histories, said, answers = fer_data(config), [], [], 0.0
    views = dict(views=config["views"], mixup_alpha=config["view_alpha"], stretch=config.get("stretch", 0.0))
    for member in range(config["members"]):
        model, history = train_face_model(dict(config, seed=config["seed"] + member), data, work / "work" / str(member))
        histories.append(history)
        said.append(KerasFunction(model)(data["preprocessor"].normalise(data["val"])))
        if member == 0:
            save_face_network(model, config, fit_temperature(said[0], data["val_targets"]), work)
        twin = models.trainable_twin(model, model.input_shape[1], config.get("precision", "float32"))
        answers = answers + _cached_answers(data["content"], config["face"], views, weights_key(model), twin, data["train"],
                                            data["preprocessor"]) / config["members"]
    save_answers(work, answers, data["content"])
    np.savez_compressed(work / "validation.npz", probabilities=np.float16(said), targets=data["val_targets"].astype(np.uint8))
    mean = {key: np.mean([history[key] for history in histories], axis=0).tolist() for key in histories[0]}
    return {**mean, "seconds": np.sum([history["seconds"] for history in histories], axis=0).tolist()}


@memory.cache(ignore=["teacher", "crops", "preprocessor"])
def _cached_answers(content: str, face: dict, views: dict, weights: str, teacher, crops, preprocessor) -> np.ndarray:
    return teach(teacher, crops, preprocessor, **views)


def save_answers(folder: Path, answers: np.ndarray, content: str) -> None:
    """Write answers.npz: answers (views, N, classes) in steps of 1/255, and which faces they are for (`content_key`)."""
    np.savez_compressed(Path(folder) / "answers.npz", answers=np.round(255 * answers).astype(np.uint8), content=content)


def load_answers(folder: Path, content: str) -> np.ndarray:
    """float32 (views, N, classes), rows sum to 1, from answers.npz; `content` says for which faces they must be.

    Raises DataError when the file is missing or is for other faces.
    """
    path = Path(folder) / "answers.npz"
    if not path.is_file():
        raise DataError(f"{path}: no answers of teachers; restore it from git, or train them (`make retrain`)")
    with np.load(path) as file:
        if str(file["content"]) != content:
            raise DataError(f"{path}: answers for other training faces than those in {data_root()}; train the teachers "
                            "on yours: delete this folder, `make retrain`")
        answers = file["answers"].astype(np.float32)
    return answers / answers.sum(axis=-1, keepdims=True)


def load_face_model(run: str) -> keras.Model:
    """The network that the emotion run of this name, below artifacts/, has trained."""
    return artifacts.load_keras(ARTIFACTS / run / "emotion_model.keras")


def emotion_network(config: dict) -> keras.Model:
    """The network to train: a Mini-Xception, or a ResNet that knows faces (`models.build_face_resnet`).

    config: labels, face, dropout and, for a Mini-Xception, stem, widths, l2, middle and optionally inner_size;
        network="face_resnet" needs no more; optionally start_from, the run below artifacts/ whose weights are the first
        ones.
    """
    classes, size = len(config["labels"]), config["face"]["size"]
    if config.get("network") == "face_resnet":
        model = models.build_face_resnet(classes, size, config["dropout"], None if profile() == "smoke" else "dlib")
    else:
        model = models.build_mini_xception(classes, size, config["stem"], tuple(config["widths"]), config["dropout"],
                                           config["l2"], config["middle"], config.get("inner_size"))
    if config.get("start_from") and profile() != "smoke":  # there the networks are narrower than the committed ones
        model.set_weights(load_face_model(config["start_from"]).get_weights())
    return model


def train_face_model(config: dict, data: dict, work: Path) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train the network of `config` on `fer_data` in two stages; (network, history).

    `small_epochs` on pictures reduced to `small_side` pixels, then `epochs` on whole ones.
    """
    keras.utils.set_random_seed(config["seed"])
    model = emotion_network(config)
    if config.get("network") == "face_resnet":
        models.calibrate_normalisation(model, data["preprocessor"].normalise(data["train"][::100]))
    history: dict[str, list[float]] = {}
    small = dict(config, side=config["small_side"], learning_rate=config["small_rate"],
                 epochs=min(config["small_epochs"], config["epochs"]))
    for name, stage in (("small", small), ("whole", config)):
        if stage["epochs"]:
            more = train_emotion(model, stage, data, work / "work" / name)
            history = {key: history.get(key, []) + more[key] for key in more}
    return model, history


def train_compared(config: dict, work: Path) -> dict[str, list[float]]:
    """Train a face network that is compared with the deployed one; `save_face_network` into `work`, the history."""
    data = fer_data(config)
    model, history = train_face_model(config, data, work)
    save_face_network(model, config, validation_temperature(model, data), work)
    return history


def save_face_network(model: keras.Model, config: dict, temperature: float, folder: Path) -> None:
    """Write emotion_model.keras, labels.json and config.json."""
    model.save(folder / "emotion_model.keras")
    artifacts.save_emotion_settings(folder, tuple(config["labels"]), FaceSpec(**config["face"]), temperature)


def train_on_fer(config: dict, work: Path) -> dict[str, list[float]]:
    """Train a face network on FER-2013 and write model and predictions into `work`; the history.

    predictions.npz, of the test part, is calibrated with the temperature fitted on validation. With even_mixture the
    model's answers assume that all classes are equally likely (`artifacts.with_mixture`).
    """
    data = fer_data(config)
    model, history = train_face_model(config, data, work)
    labels, frequencies = tuple(config["labels"]), None
    if config.get("even_mixture"):
        counts = np.bincount(data["train_targets"], minlength=len(labels))
        frequencies = dict(zip(labels, (counts / counts.sum()).round(6).tolist()))
    artifacts.save_emotion(work, model, labels, FaceSpec(**config["face"]), validation_temperature(model, data), frequencies)
    classifier = artifacts.EmotionClassifier.load(work)
    predict_emotions(fer_samples("test"), classifier)[0].save(work / "predictions.npz")
    return history


def validation_temperature(model: keras.Model, data: dict) -> float:
    """`fit_temperature` on the validation faces of `fer_data`."""
    return fit_temperature(KerasFunction(model)(data["preprocessor"].normalise(data["val"])), data["val_targets"])


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T for which softmax(log p / T) has the smallest cross-entropy on these faces (Guo et al., 2017).

    probabilities (N, classes), targets int (N,): of a validation part. Above 1 the network was too sure, below too shy.
    """
    probabilities = np.asarray(probabilities, np.float64)  # small ones to a high power

    def cross_entropy(log_temperature: float) -> float:
        scaled = artifacts.with_temperature(probabilities, np.exp(log_temperature))
        return float(-np.mean(np.log(scaled[np.arange(len(targets)), targets])))

    return round(float(np.exp(minimize_scalar(cross_entropy, bounds=(-2, 2), method="bounded").x)), 4)


# --------------------------------------------------------------------------------------------------- action

def weights_key(model: keras.Model) -> str:
    """SHA-256 over a model's weights."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def draw_augmentations(copies: int, seed: int) -> list[Augmentation]:
    """`copies` augmentations, the first of which changes nothing."""
    rng = np.random.default_rng(seed)
    return [Augmentation(), *(Augmentation.draw(rng) for _ in range(copies - 1))]


def clip_features(samples: list[Sample], spec: ClipSpec, encoder: keras.Model, copies: int, seed: int,
                  skipped: list[Skipped] | None = None) -> tuple[list[list[np.ndarray]], list[Sample]]:
    """Per sample and augmented copy float16 (steps, features), and the samples that could be read.

    The encoder sees every frame once; the answer is cached on disk by the video's content, the clip's specification,
    the augmentation and the encoder's weights. A video that cannot be read is appended to `skipped`; without that list
    it is raised.
    """
    key, function = weights_key(encoder), KerasFunction(encoder)
    features, used = [], []
    for index, sample in enumerate(samples):
        try:
            content = content_key([sample])
            features.append([
                _cached_features(content, _step_spec(spec), augmentation, key, sample.path, function)
                for augmentation in draw_augmentations(copies, seed * 100_003 + index)])
            used.append(sample)
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(Skipped(sample.path, str(error)))
    return features, used


def _step_spec(spec: ClipSpec) -> dict:
    """What a single time step depends on: windows of other lengths share their steps."""
    return replace(spec, length=1, window_s=spec.step_s).as_dict()


@memory.cache(ignore=["path", "function"])
def _cached_features(content: str, spec: dict, augmentation: Augmentation, weights: str, path: Path, function) -> np.ndarray:
    return function(video_steps(path, ClipSpec(**spec), augmentation), batch=16).astype(np.float16)


def clip_steps(samples: list[Sample], spec: ClipSpec) -> list[np.ndarray]:
    """Per video the time steps as int8 (steps, size, size, 3), 127 for 1.0: what an encoder is trained on, cached."""
    return [_cached_steps(content_key([sample]), _step_spec(spec), sample.path) for sample in samples]


@memory.cache(ignore=["path"])
def _cached_steps(content: str, spec: dict, path: Path) -> np.ndarray:
    return np.round(127 * video_steps(path, ClipSpec(**spec))).astype(np.int8)


def augment_steps(clips: np.ndarray, rng: np.random.Generator, degrees: float = 8, shift: float = 0.08, zoom: float = 0.2,
                  gain: float = 0.35, noise: float = 0.06) -> np.ndarray:
    """Random changes of flow clips int8 (B, T, S, S, 3), one draw per clip; float32 in [-1, 1].

    Mirror, rotation (degrees), zoom (exponent) and shift (shares of the side); the speeds turn with the picture.
    gain: exponent of a factor on the speeds; the amount of change gets one of its own. noise: deviation.
    """
    size = clips.shape[2]
    rest = np.float32([0, 0, -1])  # a place where nothing moves
    out = np.empty(clips.shape, np.float32)
    for index, clip in enumerate(clips):
        angle, scale = rng.uniform(-degrees, degrees), float(np.exp(rng.uniform(-zoom, zoom)))
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
        matrix[:, 2] += rng.uniform(-shift, shift, 2) * size
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        turn = np.float32([[c, -s, 0], [s, c, 0], [0, 0, 1]])  # acts on rows (right, down, change) from the right
        turn[:2] *= np.exp(rng.uniform(-gain, gain))
        turn[2] *= np.exp(rng.uniform(-1.4 * gain, 1.4 * gain))
        mirror = rng.random() < 0.5
        steps = clip.astype(np.float32) / 127 - rest
        if mirror:
            steps = steps[:, :, ::-1] * np.float32([-1, 1, 1])
        for number, step in enumerate(steps):
            out[index, number] = cv2.warpAffine(np.ascontiguousarray(step), matrix, (size, size))
        out[index] = out[index] @ turn + rest
        out[index] += rng.normal(0, rng.uniform(0, noise), out[index].shape[1:]).astype(np.float32)
    return np.clip(out, -1, 1)


class ClipBatches(keras.utils.PyDataset):
    """Shuffled batches of clips: of each video a random augmented copy and a random window of `length` steps.

    features: per video a list of copies (steps, ...). targets: float32 (videos, classes). weights: float32 (videos,).
    stride: every how many steps one is taken. augment: called as augment(clips, rng) on each batch.
    Gives (clips float32 (B, length, ...), targets float32 (B, classes), weights float32 (B,)).
    """

    def __init__(self, features: list[list[np.ndarray]], targets: np.ndarray, weights: np.ndarray, length: int,
                 batch: int, seed: int, stride: int = 1, augment: Callable | None = None):
        super().__init__()
        self.features, self.targets, self.weights, self.length, self.batch = features, targets, weights, length, batch
        self.seed, self.stride, self.augment, self.epoch = seed, stride, augment, -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return int(np.ceil(len(self.order) / self.batch))

    def __getitem__(self, index: int):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.batch:(index + 1) * self.batch]
        clips = np.stack([self._clip(self.features[number], rng) for number in chosen])
        clips = self.augment(clips, rng) if self.augment else clips
        return clips.astype(np.float32), self.targets[chosen], self.weights[chosen]

    def _clip(self, copies: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        steps = copies[rng.integers(len(copies))]
        span = self.length * self.stride
        start = rng.integers(max(1, len(steps) - span + 1)) + rng.integers(self.stride)
        return steps[np.minimum(np.arange(start, start + span, self.stride)[:self.length], len(steps) - 1)]

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.features))


NO_ACTION = -1  # the target of a clip that shows none of the classes: all of them are equally wrong


def clip_targets(targets: np.ndarray, classes: int, cap: float) -> tuple[np.ndarray, np.ndarray]:
    """(float32 (videos, classes), float32 (videos,)): one-hot targets and the capped weights of their classes.

    A clip with the target NO_ACTION gets a uniform row (outlier exposure: Hendrycks, Mazeika & Dietterich, 2019,
    arXiv:1812.04606) and the weight 1.
    """
    known = targets != NO_ACTION
    rows = np.full((len(targets), classes), 1 / classes, np.float32)
    rows[known] = np.eye(classes, dtype=np.float32)[targets[known]]
    weights = np.ones(len(targets), np.float32)
    weights[known] = capped_class_weights(targets[known], classes, cap)[targets[known]]
    return rows, weights


def train_clips(model: keras.Model, config: dict, features: list[list[np.ndarray]], targets: np.ndarray, work: Path,
                validation: tuple[list[list[np.ndarray]], np.ndarray] | None = None, stride: int = 1,
                augment: Callable | None = None) -> dict[str, list[float]]:
    """Train a head on features, or an encoder and head on time steps, for a fixed number of epochs; the history.

    config: optimizer, learning_rate, epochs, batch, label_smoothing, class_weight_cap, seed. targets: int (videos,),
        NO_ACTION where none of the classes is shown. stride, augment: see `ClipBatches`.
    validation: features and targets of other groups, for the curves only; nothing is chosen on them.
    """
    classes, length = model.output_shape[-1], model.input_shape[1]
    batches = ClipBatches(features, *clip_targets(targets, classes, config["class_weight_cap"]), length, config["batch"],
                          config["seed"], stride, augment)
    optimizer = make_optimizer(config["optimizer"], config["learning_rate"], len(batches) * config["epochs"])
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=config["label_smoothing"]),
                  metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])
    if validation is not None:
        middle = [clip_at_middle(copies[0], length) for copies in validation[0]]
        validation = np.stack(middle).astype(np.float32), np.eye(classes, dtype=np.float32)[validation[1]]
    return fit(model, batches, validation, config["epochs"], work, config["seed"], keep_best=False)


def clip_at_middle(steps: np.ndarray, length: int) -> np.ndarray:
    """(length, ...): the middle window of a video's steps (n, ...), padded with the last step."""
    start = max(0, (len(steps) - length) // 2)
    return steps[np.minimum(np.arange(start, start + length), len(steps) - 1)]


def video_probabilities(model, features: list[np.ndarray], spec: ClipSpec) -> np.ndarray:
    """float32 (videos, classes): a model's answers averaged over the windows of each video's un-augmented features."""
    return np.stack([model(windows(steps.astype(np.float32), spec)).mean(axis=0) for steps in features])


# --------------------------------------------------------------------------------------------------- encoder

def drawn_clips(people: range, actions: tuple[str, ...]) -> list[Sample]:
    """Clips of drawn people (the seeds in `people`), drawn once and kept below .cache/."""
    folder = REPOSITORY / ".cache" / f"drawn_{people.start}_{people.stop}_{samples.DRAWING}"
    samples.write_action_samples(folder, people, actions, size=(120, 160))
    return [sample for sample in list_samples(folder) if sample.label in actions]


def adapt_normalisation(backbone: keras.Model, pictures: np.ndarray, batches: int = 40, batch: int = 128) -> None:
    """Let batch normalisation measure its means and variances on int8 pictures (N, S, S, 3) instead of photographs.

    Adaptive batch normalisation (Li et al., 2016, arXiv:1603.04779): the only thing that is learned is what "usual" is.
    """
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    kept, rng = [layer.momentum for layer in norms], np.random.default_rng(0)
    for layer in norms:
        layer.momentum, layer.trainable = 0.85, True
    for _ in range(batches):
        backbone(pictures[rng.integers(len(pictures), size=batch)].astype(np.float32) / 127, training=True)
    for layer, momentum in zip(norms, kept, strict=True):
        layer.momentum = momentum


def train_encoder(config: dict, work: Path) -> dict[str, list[float]]:
    """Teach MobileNetV2 to see movement, from drawn people alone; writes encoder.keras into `work`, gives the history.

    ImageNet's weights, then `adapt_normalisation`, then an LSTM head alone (`head_epochs`), then the layers from
    `models.TUNED_FROM` on together with it, on every `stride`-th step. The head is thrown away. No real video is used,
    so no later test can have been seen.
    config: clip, people, stride, head_rate, head_epochs and what `train_clips` needs.
    """
    smoke = profile() == "smoke"
    spec, stride = ClipSpec(**config["clip"]), config["stride"]
    actions = samples.ACTIONS[:3] if smoke else (*samples.ACTIONS, samples.IDLE)
    drawn = drawn_clips(range(2 if smoke else config["people"]), actions)
    steps, targets = clip_steps(drawn, spec), np.array([actions.index(sample.label) for sample in drawn])
    keras.utils.set_random_seed(config["seed"])
    backbone = models.build_backbone(spec.size, None if smoke else "imagenet")
    adapt_normalisation(backbone, np.concatenate(steps[::5]), *(2, 8) if smoke else ())
    length = max(1, spec.length // stride)
    head = action_head(config, len(actions), length)
    run = KerasFunction(backbone)
    features = [run(clip.astype(np.float32) / 127, batch=64) for clip in steps]
    first = dict(config, learning_rate=config["head_rate"], epochs=min(config["head_epochs"], config["epochs"]), batch=32)
    train_clips(head, first, [[clip] for clip in features], targets, work / "work" / "head", stride=stride)
    models.freeze_before(backbone, models.TUNED_FROM)
    history = train_clips(models.join_for_training(backbone, head), config, [[clip] for clip in steps], targets,
                          work / "work" / "encoder", stride=stride, augment=augment_steps)
    backbone.save(work / "encoder.keras")
    return history


def load_encoder(config: dict) -> keras.Model:
    """The encoder that config["encoder"] names, a folder of `train_encoder` below artifacts/action/, or "imagenet".

    In the smoke profile it is a random one.
    """
    spec = ClipSpec(**config["clip"])
    if profile() == "smoke" or config["encoder"] == "imagenet":
        return models.build_backbone(spec.size, None if profile() == "smoke" else "imagenet")
    path = ARTIFACTS / "action" / config["encoder"] / "encoder.keras"
    encoder = artifacts.load_keras(path)
    if encoder.input_shape[1] != spec.size:
        raise DataError(f"{path}: takes {encoder.input_shape[1]} pixels, the clips have {spec.size}; train it for them")
    return encoder


# --------------------------------------------------------------------------------------------------- action

@dataclass
class ActionData:
    """Videos as their features, real ones first, then drawn ones; and the encoder that gave them.

    features: per video a list of augmented copies float16 (steps, 1280), the first un-augmented.
    """

    labels: tuple[str, ...]
    spec: ClipSpec
    samples: list[Sample]
    drawn: list[Sample]
    features: list[list[np.ndarray]]
    encoder: keras.Model

    @property
    def targets(self) -> np.ndarray:
        """int (videos,); NO_ACTION for people who only stand there."""
        known = {label: index for index, label in enumerate(self.labels)}
        return np.array([known.get(sample.label, NO_ACTION) for sample in [*self.samples, *self.drawn]])


def action_data(config: dict) -> ActionData:
    """The videos of data set config["dataset"], and drawn people: its actions, if they can be drawn, and standing still.

    config: dataset, clip, encoder, copies, drawn_people, seed. In the smoke profile four drawn actions stand in for
    everything. A video that cannot be read is named and left out.
    """
    smoke, cache = profile() == "smoke", REPOSITORY / ".cache"
    source = None if smoke else find_dataset(config["dataset"])
    if source is None and not smoke:
        raise DataError(f"data set {config['dataset']!r} is not in {data_root()}; data/README.md says how to get it")
    if smoke:
        source = samples.write_action_samples(cache / "smoke_actions", range(2), samples.ACTIONS[:4], size=(96, 128))
    real, drawn, skipped = list_samples(source), [], []
    labels = {sample.label for sample in real}
    if config["drawn_people"]:
        actions = (*sorted(labels), samples.IDLE) if labels.issubset(samples.ACTIONS) else (samples.IDLE,)
        people = range(1000, 1002) if smoke else range(config["drawn_people"])
        drawn = drawn_clips(people, actions)
    data = load_action_data(real, drawn, ClipSpec(**config["clip"]), 1 if smoke else config["copies"], config["seed"],
                            load_encoder(config), skipped)
    for item in skipped:
        print(f"skipped {item.path.name}: {item.reason}")
    return data


def load_action_data(real: list[Sample], drawn: list[Sample], spec: ClipSpec, copies: int, seed: int,
                     encoder: keras.Model, skipped: list[Skipped] | None = None) -> ActionData:
    """Read videos through the encoder (cached on disk). Of drawn videos there is one copy, themselves: there are many
    of them. Real videos that cannot be read go to `skipped`."""
    features, used = clip_features(real, spec, encoder, copies, seed, skipped)
    drawn_features, drawn = clip_features(drawn, spec, encoder, 1, seed)
    return ActionData(tuple(sorted({sample.label for sample in used})), spec, used, drawn, features + drawn_features, encoder)


def action_head(config: dict, classes: int, length: int) -> keras.Model:
    """An untrained LSTM head for clips of `length` steps. config: units, dropout; optionally pooled."""
    return models.build_action_head(classes, length, units=config["units"], dropout=config["dropout"],
                                    pooled=config.get("pooled", False))


def train_action(data: ActionData, real: list[int], config: dict, work: Path) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train an LSTM head on the real videos with these indices and on all drawn ones; (head, history)."""
    keras.utils.set_random_seed(config["seed"])
    head = action_head(config, len(data.labels), data.spec.length)
    chosen = [*real, *range(len(data.samples), len(data.targets))]
    history = train_clips(head, config, [data.features[i] for i in chosen], data.targets[chosen], work)
    return head, history


def cross_validate_action(data: ActionData, config: dict, work: Path) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Score each real video once by a head that never saw its group; returns (probabilities, mean history).

    probabilities: float32 (videos, classes), the mean over a video's windows. The history is the mean over the folds;
    `seconds` is their sum. A fold that is finished is not trained again after a kill.
    """
    place = {sample.path: index for index, sample in enumerate(data.samples)}
    probabilities = np.zeros((len(data.samples), len(data.labels)), np.float32)
    histories = []
    folds = min(config["folds"], len({sample.group for sample in data.samples}))
    for fold, (train, test) in enumerate(leave_groups_out(data.samples, folds, config["seed"])):
        outside = [place[sample.path] for sample in test]
        head, history = train_action(data, [place[sample.path] for sample in train], config, work / str(fold))
        probabilities[outside] = video_probabilities(KerasFunction(head), [data.features[i][0] for i in outside], data.spec)
        histories.append(history)
    mean = {key: np.mean([history[key] for history in histories], axis=0).tolist() for key in histories[0]}
    return probabilities, {**mean, "seconds": np.sum([history["seconds"] for history in histories], axis=0).tolist()}


def no_action_confidence(head: keras.Model, encoder: keras.Model, spec: ClipSpec, people: range,
                         actions: tuple[str, ...] = (samples.IDLE,)) -> np.ndarray:
    """float32 (clips,): how sure a head is of some action that it knows while drawn people (their seeds) only stand
    there, or do others; each person does one of `actions`, in turn.

    The frames come with all the camera's noise, as in the live system; compressed films of them have lost most of it.
    """
    films = (drawn_film(actions[number % len(actions)], person) for number, person in enumerate(people))
    return film_confidences(KerasFunction(encoder), KerasFunction(head), spec, films)


def drawn_film(action: str, person: int) -> list[tuple[np.ndarray, float]]:
    """(BGR uint8 frame (120, 160, 3), time in seconds) of what one person or two do, drawn, at 25 frames a second, not
    compressed."""
    draw = samples.draw_couple if action in samples.COUPLE_ACTIONS else samples.draw_action
    return [(frame, index / 25) for index, frame in enumerate(draw(action, person, size=(120, 160)))]


def film_confidences(encode, classify, spec: ClipSpec, films) -> np.ndarray:
    """float32 (films,): how sure a network, in its two halves, is of its best answer for each stream of (frame, time)."""
    return video_probabilities(classify, [encode(steps_of(film, spec)) for film in films], spec).max(axis=1)


def fit_threshold(no_action: np.ndarray, false_alarms: float = 0.05) -> float:
    """The smallest confidence threshold at which at most this share of the clips without an action shows one.

    no_action: confidences (N,) on clips without an action, of a validation part. Rounded up to hundredths, at least 0.2.
    """
    allowed = int(false_alarms * len(no_action))
    return round(float(max(0.2, np.floor(100 * np.sort(no_action)[::-1][allowed] + 1) / 100)), 2)

