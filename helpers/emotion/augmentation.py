"""What training does to a face: mirrored, moved, squeezed, blurred, made noisy, blended with another one (mixup)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from helpers.emotion.faces import affine_matrix


@dataclass(frozen=True)
class FaceAugmentation:
    """How far training may change a face. Every face of every epoch gets amounts of its own, drawn evenly up to these.

    mirror: probability of a left-right flip.
    degrees, shift, zoom: rotation in degrees, shift and change of size as shares of the crop's side: as much as
        alignment can be wrong. Light is not varied: CLAHE and standardisation take it out.
    aspect_jitter: largest |log(height / width)|; 0.25 covers photographs of 4:5 and 5:4 that were squeezed to a square.
    noise: standard deviation of Gaussian noise in gray levels, as of a camera in a dim room.
    blur: standard deviation of a Gaussian filter in pixels of the crop, as of a face that is small in the frame.
    mixup_alpha: parameter of `mixup`; 0 blends nothing.
    """

    mirror: float = 0.5
    degrees: float = 12.0
    shift: float = 0.08
    zoom: float = 0.12
    aspect_jitter: float = 0.25
    noise: float = 6.0
    blur: float = 0.6
    mixup_alpha: float = 0.2

    def __post_init__(self):
        if min(vars(self).values()) < 0 or self.mirror > 1:
            raise ValueError(f"amounts must not be negative, and mirror is a probability; got {self}")


NO_AUGMENTATION = FaceAugmentation(0, 0, 0, 0, 0, 0, 0, 0)


def augment_faces(crops: np.ndarray, augmentation: FaceAugmentation, rng: np.random.Generator) -> np.ndarray:
    """uint8 crops (N, size, size), each changed by amounts of its own; all but mixup, which blends inputs."""
    moved = [_move(crop, augmentation, rng) for crop in crops]
    amounts = [(rng.uniform(0, augmentation.noise), rng.uniform(0, augmentation.blur)) for _ in crops]
    changed = [corrupt(crop, noise, blur, rng=rng) for crop, (noise, blur) in zip(moved, amounts, strict=True)]
    return np.array(changed, np.uint8).reshape(crops.shape)


def _move(crop: np.ndarray, augmentation: FaceAugmentation, rng: np.random.Generator) -> np.ndarray:
    size, limits = crop.shape[0], augmentation
    middle = np.array([size / 2, size / 2])
    matrix = affine_matrix(
        middle,
        degrees=rng.uniform(-limits.degrees, limits.degrees),
        scale=1 + rng.uniform(-limits.zoom, limits.zoom),
        to=middle + rng.uniform(-limits.shift, limits.shift, 2) * size,
        aspect=np.exp(rng.uniform(-limits.aspect_jitter, limits.aspect_jitter)),
    )
    if rng.random() < limits.mirror:
        crop = np.ascontiguousarray(crop[:, ::-1])
    return cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


def corrupt(image: np.ndarray, noise: float, blur: float, *, rng: np.random.Generator) -> np.ndarray:
    """An image, uint8 of any shape, as a worse camera gives it: blurred, then noisy.

    blur: standard deviation of the Gaussian filter in pixels; up to 0.2 it is none, because the neighbours' weights are
        below 1 in 255 there. noise: standard deviation of the Gaussian noise in gray levels.
    """
    if blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    if not noise:
        return image
    return np.clip(np.rint(image + noise * rng.standard_normal(image.shape, np.float32)), 0, 255).astype(np.uint8)


def mixup(
    images: np.ndarray, targets: np.ndarray, alpha: float, *, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blend each sample of a batch with another one (Zhang et al., 2018, arXiv:1710.09412).

    images float32 (N, ...), targets float32 (N, classes), one-hot or soft. The share of the first is drawn per sample
    from Beta(alpha, alpha) and is at least one half, so a sample stays mostly itself.
    """
    if alpha <= 0:
        return images, targets
    share = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    share, partner = np.maximum(share, 1 - share), rng.permutation(len(images))

    def blend(values: np.ndarray) -> np.ndarray:
        weights = share.reshape(-1, *[1] * (values.ndim - 1))
        return weights * values + (1 - weights) * values[partner]

    return blend(images), blend(targets)
