"""Fine-tuning MobileNetV2 on optical flow of synthetic people."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from helpers.action.clips import ClipSpec
from helpers.action.model import TUNED_FROM, build_backbone, freeze_before, join_for_training
from helpers.action.training import action_head, augment_steps, clip_steps, synthetic_clips, train_clips
from helpers.runtime import KerasFunction
from helpers.synthetic.scenes import ACTIONS, IDLE
from helpers.training import profile


def adapt_batch_normalisation(backbone: keras.Model, pictures: np.ndarray, batches: int = 40, batch: int = 128) -> None:
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

    ImageNet's weights, then `adapt_batch_normalisation`, then an LSTM head alone (`head_epochs`), then the layers from
    `TUNED_FROM` on together with it, on every `stride`-th step. The head is thrown away. No real video is used,
    so no later test can have been seen.
    config: clip, people, stride, head_rate, head_epochs and what `train_clips` needs.
    """
    smoke = profile() == "smoke"
    spec, stride = ClipSpec(**config["clip"]), config["stride"]
    actions = ACTIONS[:3] if smoke else (*ACTIONS, IDLE)
    drawn = synthetic_clips(range(2 if smoke else config["people"]), actions)
    steps, targets = clip_steps(drawn, spec), np.array([actions.index(sample.label) for sample in drawn])
    keras.utils.set_random_seed(config["seed"])
    backbone = build_backbone(spec.size, None if smoke else "imagenet")
    adapt_batch_normalisation(backbone, np.concatenate(steps[::5]), *(2, 8) if smoke else ())
    length = max(1, spec.length // stride)
    head = action_head(config, len(actions), length)
    run = KerasFunction(backbone)
    features = [run(clip.astype(np.float32) / 127, batch=64) for clip in steps]
    first = dict(
        config, learning_rate=config["head_rate"], epochs=min(config["head_epochs"], config["epochs"]), batch=32
    )
    train_clips(head, first, [[clip] for clip in features], targets, work / "work" / "head", stride=stride)
    freeze_before(backbone, TUNED_FROM)
    history = train_clips(
        join_for_training(backbone, head),
        config,
        [[clip] for clip in steps],
        targets,
        work / "work" / "encoder",
        stride=stride,
        augment=augment_steps,
    )
    backbone.save(work / "encoder.keras")
    return history
