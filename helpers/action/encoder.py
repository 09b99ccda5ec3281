"""Fine-tuning MobileNetV2 on optical flow: from photographs to moving people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import keras
import numpy as np

from helpers.action.clips import ClipSpec, video_steps
from helpers.action.model import TUNED_FROM, build_action_head, build_backbone, freeze_before, join_for_training
from helpers.data.cache import cached_array, content_key
from helpers.data.folders import list_samples
from helpers.runtime import KerasFunction
from helpers.synthetic.samples import cached_action_samples
from helpers.synthetic.scenes import ACTIONS, IDLE
from helpers.training import capped_class_weights, fit, make_optimizer, profile


@dataclass(frozen=True)
class EncoderRecipe:
    """MobileNetV2 fine-tuned on synthetic people (`train_encoder`); the defaults are the shipped encoder's.

    people: how many. stride: every how many time steps one is taken. units, dropout: of the LSTM on top, which is
    thrown away. head_rate, head_epochs, head_batch: of that LSTM, which learns alone before the encoder learns with it.
    """

    clip: ClipSpec = field(default_factory=ClipSpec)
    people: int = 240
    stride: int = 2
    units: int = 96
    dropout: float = 0.5
    head_rate: float = 3e-3
    head_epochs: int = 8
    head_batch: int = 32
    learning_rate: float = 3e-4
    epochs: int = 8
    batch: int = 8
    label_smoothing: float = 0.1
    seed: int = 1


def adapt_batch_normalisation(
    backbone: keras.Model, images: np.ndarray, batches: int = 40, *, batch: int = 128
) -> None:
    """Let batch normalisation measure its means and variances on int8 images (N, S, S, 3) instead of photographs.

    Adaptive batch normalisation (Li et al., 2016, arXiv:1603.04779): the only thing that is learned is what "usual" is.
    """
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    kept, rng = [layer.momentum for layer in norms], np.random.default_rng(0)
    for layer in norms:
        layer.momentum, layer.trainable = 0.85, True
    for _ in range(batches):
        backbone(images[rng.integers(len(images), size=batch)].astype(np.float32) / 127, training=True)
    for layer, momentum in zip(norms, kept, strict=True):
        layer.momentum = momentum


def train_encoder(recipe: EncoderRecipe, work: Path) -> tuple[keras.Model, dict[str, list[float]]]:
    """MobileNetV2 for optical flow, from synthetic people alone; (encoder, history). Killed, it goes on from `work`.

    ImageNet's weights, then `adapt_batch_normalisation`, then `tune_encoder` on people who do every action or stand
    still. No real video is used, so no later test can have been seen. The smoke profile starts from random weights,
    with two people.
    """
    smoke, spec = profile() == "smoke", recipe.clip
    actions = ACTIONS[:3] if smoke else (*ACTIONS, IDLE)
    folder = cached_action_samples(range(2 if smoke else recipe.people), actions, (120, 160))
    videos = [sample for sample in list_samples(folder) if sample.label in actions]
    steps = [_flow_steps(content_key([sample]), spec, sample.path) for sample in videos]
    targets = np.array([actions.index(sample.label) for sample in videos])
    keras.utils.set_random_seed(recipe.seed)
    backbone = build_backbone(spec.size, None if smoke else "imagenet")
    adapt_batch_normalisation(backbone, np.concatenate(steps[::5]), **({"batches": 2, "batch": 8} if smoke else {}))
    return backbone, tune_encoder(backbone, recipe, steps, targets=targets, work=work)


@cached_array(ignore=("path",))
def _flow_steps(content: str, spec: ClipSpec, path: Path) -> np.ndarray:
    return np.round(127 * video_steps(path, spec)).astype(np.int8)


def tune_encoder(
    backbone: keras.Model, recipe: EncoderRecipe, steps: list[np.ndarray], *, targets: np.ndarray, work: Path
) -> dict[str, list[float]]:
    """Fine-tune an encoder on clips, from `TUNED_FROM` on, after an LSTM head has learned alone; the history.

    steps: per video int8 (n, size, size, 3), 127 for 1.0. targets: int (videos,).
    """
    classes, length = int(targets.max()) + 1, max(1, recipe.clip.length // recipe.stride)
    head = build_action_head(classes, length, units=recipe.units, dropout=recipe.dropout)
    run = KerasFunction(backbone)
    features = [run(clip.astype(np.float32) / 127) for clip in steps]
    alone = FlowBatches(features, targets, length, recipe.stride, batch=recipe.head_batch, seed=recipe.seed)
    _fit(head, alone, recipe.head_rate, min(recipe.head_epochs, recipe.epochs), recipe=recipe, work=work / "head")
    freeze_before(backbone, TUNED_FROM)
    together = FlowBatches(
        steps, targets, length, recipe.stride, batch=recipe.batch, seed=recipe.seed, augment=augment_flow
    )
    whole = join_for_training(backbone, head)
    return _fit(whole, together, recipe.learning_rate, recipe.epochs, recipe=recipe, work=work / "encoder")


def _fit(
    model: keras.Model, batches: FlowBatches, rate: float, epochs: int, *, recipe: EncoderRecipe, work: Path
) -> dict[str, list[float]]:
    model.compile(
        make_optimizer("adamw", rate, len(batches) * epochs),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    return fit(model, batches, None, epochs=epochs, work=work, seed=recipe.seed, keep_best=False)


class FlowBatches(keras.utils.PyDataset):
    """Shuffled batches of clips: of each video a random window of `length` time steps, every `stride`-th one.

    steps: per video (n, ...). targets: int (videos,). augment: called as augment(clips, rng) on each batch.
    Gives (clips float32 (B, length, ...), one-hot targets float32 (B, classes), class weights float32 (B,)).
    """

    def __init__(
        self,
        steps: list[np.ndarray],
        targets: np.ndarray,
        length: int,
        stride: int,
        *,
        batch: int,
        seed: int,
        augment: Callable | None = None,
    ):
        super().__init__()
        self.steps, self.targets, self.length, self.stride = steps, targets, length, stride
        self.batch, self.seed, self.augment, self.epoch = batch, seed, augment, -1
        classes = int(targets.max()) + 1
        self.rows, self.weights = np.eye(classes, dtype=np.float32), capped_class_weights(targets, classes, cap=3.0)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __getitem__(self, index: int):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        clips = np.stack([self._window(self.steps[number], rng) for number in chosen])
        clips = self.augment(clips, rng) if self.augment else clips
        targets = self.targets[chosen]
        return clips.astype(np.float32), self.rows[targets], self.weights[targets]

    def _window(self, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        span = self.length * self.stride
        start = rng.integers(max(1, len(steps) - span + 1)) + rng.integers(self.stride)
        return steps[np.minimum(np.arange(start, start + span, self.stride)[: self.length], len(steps) - 1)]

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.steps))


def augment_flow(
    clips: np.ndarray,
    rng: np.random.Generator,
    *,
    degrees: float = 8,
    shift: float = 0.08,
    zoom: float = 0.2,
    gain: float = 0.35,
    noise: float = 0.06,
) -> np.ndarray:
    """Random changes of flow clips int8 (B, T, S, S, 3), one draw per clip; float32 in [-1, 1].

    Mirror, rotation (degrees), zoom (exponent) and shift (shares of the side); the vectors turn with the image.
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
