"""Batches of clips for training: random windows, augmentation of flow, targets with a class for nothing."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import keras
import numpy as np

from helpers.action.features import NO_ACTION
from helpers.training import capped_class_weights


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


class ClipBatches(keras.utils.PyDataset):
    """Shuffled batches of clips: of each video a random augmented version and a random window of `length` steps.

    features: per video a list of versions (steps, ...). targets: float32 (videos, classes). weights: float32 (videos,).
    stride: every how many steps one is taken. augment: called as augment(clips, rng) on each batch.
    Gives (clips float32 (B, length, ...), targets float32 (B, classes), weights float32 (B,)).
    """

    def __init__(
        self,
        features: list[list[np.ndarray]],
        targets: np.ndarray,
        weights: np.ndarray,
        *,
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

    def _clip(self, versions: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        steps = versions[rng.integers(len(versions))]
        span = self.length * self.stride
        start = rng.integers(max(1, len(steps) - span + 1)) + rng.integers(self.stride)
        return steps[np.minimum(np.arange(start, start + span, self.stride)[: self.length], len(steps) - 1)]

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.features))


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


def middle_window(steps: np.ndarray, length: int) -> np.ndarray:
    """(length, ...): the middle window of a video's steps (n, ...), padded with the last step."""
    start = max(0, (len(steps) - length) // 2)
    return steps[np.minimum(np.arange(start, start + length), len(steps) - 1)]
