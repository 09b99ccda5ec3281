"""Fine-tuning MobileNetV2 on optical flow of synthetic people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from helpers.action.batches import augment_flow
from helpers.action.features import clip_steps, synthetic_clips
from helpers.action.model import TUNED_FROM, build_action_head, build_backbone, freeze_before, join_for_training
from helpers.action.recipe import EncoderRecipe
from helpers.action.training import train_clips
from helpers.runtime import KerasFunction
from helpers.synthetic.scenes import ACTIONS, IDLE
from helpers.training import profile


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

    ImageNet's weights, then `adapt_batch_normalisation`, then an LSTM head alone (`head_epochs`), then the layers from
    `TUNED_FROM` on together with it, on every `stride`-th step. The head is thrown away. No real video is used,
    so no later test can have been seen. The smoke profile starts from random weights, with two people.
    """
    smoke, spec = profile() == "smoke", recipe.clip
    actions = ACTIONS[:3] if smoke else (*ACTIONS, IDLE)
    videos = synthetic_clips(range(2 if smoke else recipe.people), actions)
    steps, targets = clip_steps(videos, spec), np.array([actions.index(sample.label) for sample in videos])
    keras.utils.set_random_seed(recipe.seed)
    backbone = build_backbone(spec.size, None if smoke else "imagenet")
    adapt_batch_normalisation(backbone, np.concatenate(steps[::5]), **({"batches": 2, "batch": 8} if smoke else {}))
    return backbone, tune_encoder(backbone, recipe, steps, targets=targets, classes=len(actions), work=work)


def tune_encoder(
    backbone: keras.Model,
    recipe: EncoderRecipe,
    steps: list[np.ndarray],
    *,
    targets: np.ndarray,
    classes: int,
    work: Path,
) -> dict[str, list[float]]:
    """Fine-tune an encoder on clips, from `TUNED_FROM` on, after an LSTM head has learned alone; the history.

    steps: per video int8 (n, size, size, 3), see `clip_steps`. targets: int (videos,), NO_ACTION for none of `classes`.
    """
    length = max(1, recipe.clip.length // recipe.stride)
    head = build_action_head(classes, length, units=recipe.units, dropout=recipe.dropout)
    run = KerasFunction(backbone)
    features = [[run(clip.astype(np.float32) / 127)] for clip in steps]
    alone = replace(recipe, learning_rate=recipe.head_rate, epochs=min(recipe.head_epochs, recipe.epochs), batch=32)
    train_clips(head, alone, features, targets=targets, work=work / "head", stride=recipe.stride)
    freeze_before(backbone, TUNED_FROM)
    return train_clips(
        join_for_training(backbone, head),
        recipe,
        [[clip] for clip in steps],
        targets=targets,
        work=work / "encoder",
        stride=recipe.stride,
        augment=augment_flow,
    )
