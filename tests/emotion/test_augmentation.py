"""helpers.emotion.augmentation: faces are changed by no more than is said; mixup blends images and targets alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.emotion.augmentation import NO_AUGMENTATION, FaceAugmentation, augment_faces, corrupt, mixup

CROPS = np.random.default_rng(0).integers(0, 256, (10, 48, 48)).astype(np.uint8)


def test_nothing_allowed_changes_nothing():
    np.testing.assert_array_equal(augment_faces(CROPS, NO_AUGMENTATION, np.random.default_rng(0)), CROPS)


def test_a_mirror_alone_mirrors_about_half_of_the_faces():
    out = augment_faces(CROPS, replace(NO_AUGMENTATION, mirror=0.5), np.random.default_rng(0))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(out, CROPS, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(out, CROPS, strict=True)]
    assert np.logical_xor(mirrored, same).all() and 0 < sum(mirrored) < 10


def test_shape_type_and_input_are_kept_and_a_seed_repeats():
    before, augmentation = CROPS.copy(), FaceAugmentation()
    one, two = (augment_faces(CROPS, augmentation, np.random.default_rng(4)) for _ in range(2))
    assert one.shape == CROPS.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(CROPS, before)
    assert not np.array_equal(one, augment_faces(CROPS, augmentation, np.random.default_rng(5)))
    assert augment_faces(CROPS[:0], augmentation, np.random.default_rng(5)).shape == (0, 48, 48)


def test_a_face_moves_by_no_more_than_the_shift():
    """A dot in the middle of the crop: shifts of 8 % of 48 pixels are at most 3.84."""
    dot = np.zeros((200, 48, 48), np.uint8)
    dot[:, 23:25, 23:25] = 255
    out = augment_faces(dot, replace(FaceAugmentation(), noise=0, blur=0), np.random.default_rng(0)).astype(float)
    rows = (out.sum(axis=2) @ np.arange(48)) / out.sum(axis=(1, 2)) - 23.5
    columns = (out.sum(axis=1) @ np.arange(48)) / out.sum(axis=(1, 2)) - 23.5
    assert 3 < np.abs(rows).max() < 4.6 and 3 < np.abs(columns).max() < 4.6
    assert abs(rows.mean()) < 0.6 and abs(columns.mean()) < 0.6, "to no side on average"


def test_aspect_jitter_changes_the_ratio_of_a_faces_sides_and_not_its_size_or_place():
    """A square in the middle of the crop: height over width within exp(-0.4)..exp(0.4), the area as it was."""
    square = np.zeros((200, 48, 48), np.uint8)
    square[:, 16:32, 16:32] = 255
    jitter = replace(NO_AUGMENTATION, aspect_jitter=0.4)
    out = augment_faces(square, jitter, np.random.default_rng(0)).astype(float) / 255
    height, width = out[:, :, 23:25].sum(axis=1).mean(axis=1), out[:, 23:25].sum(axis=2).mean(axis=1)
    assert 0.35 < np.abs(np.log(height / width)).max() < 0.45 and abs(np.log(height / width).mean()) < 0.05
    np.testing.assert_allclose(out.sum(axis=(1, 2)), 256, rtol=0.03)
    rows, columns = (out.sum(axis=axis) @ np.arange(48) / out.sum(axis=(1, 2)) for axis in (2, 1))
    np.testing.assert_allclose((rows, columns), 23.5, atol=0.2)


def test_a_corrupted_image_has_the_noise_and_the_blur_that_were_asked_for():
    rng, flat = np.random.default_rng(1), np.full((200, 200, 3), 128, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, 0, 0, rng=rng), flat)
    noisy = corrupt(flat, 6, 0, rng=rng)
    assert noisy.shape == flat.shape and noisy.dtype == np.uint8
    assert noisy.std() == pytest.approx(6, rel=0.03) and noisy.mean() == pytest.approx(128, abs=0.1)
    assert corrupt(np.full((50, 50), 254, np.uint8), 20, 0, rng=rng).max() == 255, "clipped, not wrapped"
    dot = np.zeros((41, 41), np.uint8)
    dot[20, 20] = 255
    blurred = corrupt(dot, 0, 1.5, rng=rng).astype(float)
    assert np.sqrt(blurred.sum(axis=0) @ (np.arange(41) - 20) ** 2 / blurred.sum()) == pytest.approx(1.5, rel=0.1)


def test_every_face_gets_an_amount_of_noise_of_its_own():
    flat = np.full((400, 24, 24), 128, np.uint8)
    noise = replace(NO_AUGMENTATION, noise=8)
    deviations = augment_faces(flat, noise, np.random.default_rng(2)).std(axis=(1, 2))
    assert deviations.min() < 0.7 and 7 < deviations.max() < 9 and deviations.mean() == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("amounts", [{"noise": -1}, {"mirror": 1.5}, {"mixup_alpha": -0.1}])
def test_impossible_amounts_are_refused(amounts):
    with pytest.raises(ValueError, match="must not be negative"):
        FaceAugmentation(**amounts)


def test_mixup_blends_images_and_targets_alike():
    """Images that show their own target: what happened to one must have happened to the other."""
    targets = np.eye(8, dtype=np.float32)
    images = targets.reshape(8, 2, 4, 1)
    mixed, mixed_targets = mixup(images, targets, 0.4, rng=np.random.default_rng(0))
    np.testing.assert_allclose(mixed.reshape(8, 8), mixed_targets, atol=1e-6)
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)
    assert (mixed_targets.argmax(axis=1) == np.arange(8)).all(), "a sample stays mostly itself"
    assert np.diag(mixed_targets).min() >= 0.5 and (np.diag(mixed_targets) < 0.999).any()
    assert mixed.dtype == mixed_targets.dtype == np.float32


def test_mixup_repeats_with_its_seed_and_can_be_off():
    images, targets = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32), np.eye(6, dtype=np.float32)
    one, two = (mixup(images, targets, 0.2, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    same, same_targets = mixup(images, targets, 0.0, rng=np.random.default_rng(3))
    assert same is images and same_targets is targets
