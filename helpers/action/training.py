"""Training the LSTM on the features of clips, and cross-validating it by group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import keras
import numpy as np

from helpers.action.clips import Augmentation, ClipSpec, video_steps, windows
from helpers.action.model import build_action_head, build_backbone
from helpers.data.cache import cached_array, content_key, weights_key
from helpers.data.folders import Sample, Skipped, list_samples
from helpers.data.paths import ARTIFACTS, data_root, find_dataset
from helpers.data.splits import leave_groups_out
from helpers.errors import DataError
from helpers.keras_files import load_keras
from helpers.runtime import KerasFunction
from helpers.synthetic.samples import cached_action_samples
from helpers.synthetic.scenes import ACTIONS, IDLE
from helpers.training import capped_class_weights, fit, make_optimizer, profile


def draw_augmentations(copies: int, seed: int) -> list[Augmentation]:
    """`copies` augmentations, the first of which changes nothing."""
    rng = np.random.default_rng(seed)
    return [Augmentation(), *(Augmentation.draw(rng) for _ in range(copies - 1))]


def clip_features(
    samples: list[Sample],
    spec: ClipSpec,
    encoder: keras.Model,
    copies: int,
    seed: int,
    skipped: list[Skipped] | None = None,
) -> tuple[list[list[np.ndarray]], list[Sample]]:
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
            features.append(
                [
                    _cached_features(content, _step_spec(spec), augmentation, key, sample.path, function)
                    for augmentation in draw_augmentations(copies, seed * 100_003 + index)
                ]
            )
            used.append(sample)
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(Skipped(sample.path, str(error)))
    return features, used


def _step_spec(spec: ClipSpec) -> dict:
    """What a single time step depends on: windows of other lengths share their steps."""
    return replace(spec, length=1, window_s=spec.step_s).as_dict()


@cached_array(ignore=("path", "function"))
def _cached_features(
    content: str, spec: dict, augmentation: Augmentation, weights: str, path: Path, function
) -> np.ndarray:
    return function(video_steps(path, ClipSpec(**spec), augmentation), batch=16).astype(np.float16)


def clip_steps(samples: list[Sample], spec: ClipSpec) -> list[np.ndarray]:
    """Per video the time steps as int8 (steps, size, size, 3), 127 for 1.0: what an encoder is trained on, cached."""
    return [_cached_steps(content_key([sample]), _step_spec(spec), sample.path) for sample in samples]


@cached_array(ignore=("path",))
def _cached_steps(content: str, spec: dict, path: Path) -> np.ndarray:
    return np.round(127 * video_steps(path, ClipSpec(**spec))).astype(np.int8)


def augment_steps(
    clips: np.ndarray,
    rng: np.random.Generator,
    degrees: float = 8,
    shift: float = 0.08,
    zoom: float = 0.2,
    gain: float = 0.35,
    noise: float = 0.06,
) -> np.ndarray:
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

    def __init__(
        self,
        features: list[list[np.ndarray]],
        targets: np.ndarray,
        weights: np.ndarray,
        length: int,
        batch: int,
        seed: int,
        stride: int = 1,
        augment: Callable | None = None,
    ):
        super().__init__()
        self.features, self.targets, self.weights, self.length, self.batch = features, targets, weights, length, batch
        self.seed, self.stride, self.augment, self.epoch = seed, stride, augment, -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return int(np.ceil(len(self.order) / self.batch))

    def __getitem__(self, index: int):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        clips = np.stack([self._clip(self.features[number], rng) for number in chosen])
        clips = self.augment(clips, rng) if self.augment else clips
        return clips.astype(np.float32), self.targets[chosen], self.weights[chosen]

    def _clip(self, copies: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        steps = copies[rng.integers(len(copies))]
        span = self.length * self.stride
        start = rng.integers(max(1, len(steps) - span + 1)) + rng.integers(self.stride)
        return steps[np.minimum(np.arange(start, start + span, self.stride)[: self.length], len(steps) - 1)]

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


def train_clips(
    model: keras.Model,
    config: dict,
    features: list[list[np.ndarray]],
    targets: np.ndarray,
    work: Path,
    validation: tuple[list[list[np.ndarray]], np.ndarray] | None = None,
    stride: int = 1,
    augment: Callable | None = None,
) -> dict[str, list[float]]:
    """Train a head on features, or an encoder and head on time steps, for a fixed number of epochs; the history.

    config: optimizer, learning_rate, epochs, batch, label_smoothing, class_weight_cap, seed. targets: int (videos,),
        NO_ACTION where none of the classes is shown. stride, augment: see `ClipBatches`.
    validation: features and targets of other groups, for the curves only; nothing is chosen on them.
    """
    classes, length = model.output_shape[-1], model.input_shape[1]
    batches = ClipBatches(
        features,
        *clip_targets(targets, classes, config["class_weight_cap"]),
        length,
        config["batch"],
        config["seed"],
        stride,
        augment,
    )
    optimizer = make_optimizer(config["optimizer"], config["learning_rate"], len(batches) * config["epochs"])
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(label_smoothing=config["label_smoothing"]),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
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


def synthetic_clips(people: range, actions: tuple[str, ...]) -> list[Sample]:
    """Clips of drawn people (the seeds in `people`), drawn once and kept below .cache/."""
    folder = cached_action_samples(people, actions, size=(120, 160))
    return [sample for sample in list_samples(folder) if sample.label in actions]


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
    smoke = profile() == "smoke"
    source = None if smoke else find_dataset(config["dataset"])
    if source is None and not smoke:
        raise DataError(f"data set {config['dataset']!r} is not in {data_root()}; data/README.md says how to get it")
    if smoke:
        source = cached_action_samples(range(2), ACTIONS[:4], size=(96, 128))
    real, drawn, skipped = list_samples(source), [], []
    labels = {sample.label for sample in real}
    if config["drawn_people"]:
        actions = (*sorted(labels), IDLE) if labels.issubset(ACTIONS) else (IDLE,)
        people = range(1000, 1002) if smoke else range(config["drawn_people"])
        drawn = synthetic_clips(people, actions)
    data = load_action_data(
        real,
        drawn,
        ClipSpec(**config["clip"]),
        1 if smoke else config["copies"],
        config["seed"],
        load_encoder(config),
        skipped,
    )
    for item in skipped:
        print(f"skipped {item.path.name}: {item.reason}")
    return data


def load_action_data(
    real: list[Sample],
    drawn: list[Sample],
    spec: ClipSpec,
    copies: int,
    seed: int,
    encoder: keras.Model,
    skipped: list[Skipped] | None = None,
) -> ActionData:
    """Read videos through the encoder (cached on disk). Of drawn videos there is one copy, themselves: there are many
    of them. Real videos that cannot be read go to `skipped`."""
    features, used = clip_features(real, spec, encoder, copies, seed, skipped)
    drawn_features, drawn = clip_features(drawn, spec, encoder, 1, seed)
    return ActionData(
        tuple(sorted({sample.label for sample in used})), spec, used, drawn, features + drawn_features, encoder
    )


def action_head(config: dict, classes: int, length: int) -> keras.Model:
    """An untrained LSTM head for clips of `length` steps. config: units, dropout; optionally pooled."""
    return build_action_head(
        classes, length, units=config["units"], dropout=config["dropout"], pooled=config.get("pooled", False)
    )


def train_action(
    data: ActionData, real: list[int], config: dict, work: Path
) -> tuple[keras.Model, dict[str, list[float]]]:
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
        probabilities[outside] = video_probabilities(
            KerasFunction(head), [data.features[i][0] for i in outside], data.spec
        )
        histories.append(history)
    mean = {key: np.mean([history[key] for history in histories], axis=0).tolist() for key in histories[0]}
    return probabilities, {**mean, "seconds": np.sum([history["seconds"] for history in histories], axis=0).tolist()}


def load_encoder(config: dict) -> keras.Model:
    """The encoder that config["encoder"] names, a folder of `train_encoder` below artifacts/action/, or "imagenet".

    In the smoke profile it is a random one.
    """
    spec = ClipSpec(**config["clip"])
    if profile() == "smoke" or config["encoder"] == "imagenet":
        return build_backbone(spec.size, None if profile() == "smoke" else "imagenet")
    path = ARTIFACTS / "action" / config["encoder"] / "encoder.keras"
    encoder = load_keras(path)
    if encoder.input_shape[1] != spec.size:
        raise DataError(f"{path}: takes {encoder.input_shape[1]} pixels, the clips have {spec.size}; train it for them")
    return encoder
