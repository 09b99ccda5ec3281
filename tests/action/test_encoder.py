"""helpers.action.encoder: adapting batch normalisation, windows of clips, augmentation of flow."""

from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest

from helpers.action import encoder as encoder_module


def test_adapting_changes_only_what_normalisation_has_measured():
    """On images of one gray level a normalisation right behind the input finds just that: mean and no deviation."""
    image = keras.Input((32, 32, 3))
    normal = keras.layers.BatchNormalization(name="first", momentum=0.99)(image)
    maps = keras.layers.Conv2D(4, 3, strides=4, name="maps")(normal)
    encoder = keras.Model(image, keras.layers.BatchNormalization(name="second")(maps))
    before = {weight.path: weight.numpy() for weight in encoder.weights}
    encoder_module.adapt_batch_normalisation(encoder, np.full((9, 32, 32, 3), 64, np.int8), batches=60, batch=4)
    changed = {weight.path for weight in encoder.weights if not np.array_equal(before[weight.path], weight.numpy())}
    assert changed <= {path for path in before if "moving" in path}
    assert {"first/moving_mean", "first/moving_variance", "second/moving_variance"} <= changed
    first = encoder.get_layer("first")
    np.testing.assert_allclose(first.moving_mean.numpy(), 64 / 127, atol=1e-3)
    np.testing.assert_allclose(first.moving_variance.numpy(), 0, atol=1e-3)
    assert first.momentum == 0.99


@pytest.mark.parametrize("stride, length", [(2, 3), (3, 4), (1, 5)])
def test_a_window_is_a_run_of_every_so_manyth_step_of_one_video(stride, length):
    """Steps that say their video and place: 100 * video + step."""
    steps = [np.arange(n)[:, None].astype(np.float32) + 100 * k for k, n in enumerate((2, length * stride, 20))]
    targets = np.array([1, 0, 2])
    batches = encoder_module.FlowBatches(steps, targets, length, stride, batch=2, seed=0)
    starts, ends, seen = set(), set(), []
    for _ in range(80):
        assert len(batches) == 2
        for index in range(2):
            clips, rows, weights = batches[index]
            assert clips.dtype == np.float32 and clips.shape[1:] == (length, 1) and (weights == 1).all()
            for places, row in zip(clips[..., 0], rows, strict=True):
                video = int(places[0] // 100)
                assert targets[video] == row.argmax() and row.sum() == 1
                wanted = places[0] + stride * np.arange(length)
                last = 100 * video + len(steps[video]) - 1
                assert places.tolist() == np.minimum(wanted, last).tolist(), "beyond the end the last step is repeated"
                seen.append(video)
                if video == 2:
                    starts.add(int(places[0]) - 200)
                    ends.add(int(places[-1]) - 200)
        batches.on_epoch_end()
    assert np.bincount(seen).tolist() == [80] * 3
    assert starts == set(range(20 - length * stride + stride)) and max(ends) == 19


def test_batches_of_clips_can_be_augmented():
    """Each batch once, all of it, with random numbers that repeat."""
    steps = [np.full((4, 2), video, np.int8) for video in range(5)]

    def augment(clips, rng):
        return clips + rng.uniform(0, 0.5, (len(clips), 1, 1))

    one, two = (
        encoder_module.FlowBatches(steps, np.arange(5), 3, 1, batch=2, seed=7, augment=augment) for _ in range(2)
    )
    for index in range(3):
        clips, targets, _ = one[index]
        np.testing.assert_array_equal(clips, two[index][0])
        assert (np.floor(clips[:, 0, 0]) == targets.argmax(axis=1)).all() and (clips % 1 > 0).all()
        assert clips.dtype == np.float32


def flow_clip(seed: int = 0) -> np.ndarray:
    """int8 (1, 3, 32, 32, 3): smooth random speeds and changes."""
    rough = np.random.default_rng(seed).uniform(-80, 80, (3, 6, 6, 3)).astype(np.float32)
    return np.stack([cv2.resize(step, (32, 32)) for step in rough])[None].astype(np.int8)


def test_steps_with_nothing_allowed_are_mirrored_at_most():
    clip, seen = flow_clip(), set()
    plain = clip / 127
    for seed in range(12):
        out = encoder_module.augment_flow(
            clip, np.random.default_rng(seed), degrees=0, shift=0, zoom=0, gain=0, noise=0
        )
        same, flipped = (np.abs(out - other).max() < 1e-5 for other in (plain, plain[..., ::-1, :] * [-1, 1, 1]))
        assert same != flipped and out.dtype == np.float32
        seen.add(bool(same))
    assert seen == {True, False}


def test_steps_stay_in_range_and_repeat_and_are_changed_alike_within_a_clip():
    clips = np.concatenate([np.repeat(flow_clip(seed)[:, :1], 3, axis=1) for seed in range(4)])
    before = clips.copy()
    out = encoder_module.augment_flow(clips, np.random.default_rng(1))
    np.testing.assert_array_equal(clips, before)
    np.testing.assert_array_equal(out, encoder_module.augment_flow(clips, np.random.default_rng(1)))
    assert out.shape == clips.shape and out.min() >= -1 and out.max() <= 1
    calm = encoder_module.augment_flow(clips, np.random.default_rng(1), noise=0)
    for clip in calm:
        np.testing.assert_allclose(clip, np.repeat(clip[:1], 3, axis=0), atol=1e-6)
    bright = np.full((1, 1, 32, 32, 3), 127, np.int8)
    assert max(encoder_module.augment_flow(bright, np.random.default_rng(s), gain=3).max() for s in range(5)) == 1


class Fixed:
    """Random numbers that are always the upper end of their range; no mirror."""

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, high)

    def random(self):
        return 0.9

    def normal(self, mean, deviation, size):
        return np.full(size, mean)


def test_vectors_turn_with_the_image():
    """By 90 degrees against the clock what went right goes up, and what was right of the centre is above it."""
    clip = np.zeros((1, 1, 33, 33, 3), np.int8)
    clip[..., 2] = -127
    clip[0, 0, 14:19, 22:27] = (64, 0, 0)
    out = encoder_module.augment_flow(clip, Fixed(), degrees=90, shift=0, zoom=0, gain=0, noise=0)[0, 0]
    rows, columns = np.nonzero(out[..., 2] > -0.5)
    assert abs(rows.mean() - 8) <= 1 and abs(columns.mean() - 16) <= 1
    np.testing.assert_allclose(out[round(rows.mean()), round(columns.mean())], [0, -64 / 127, 0], atol=1e-3)


def test_a_small_turn_by_hand():
    """(0.5, 0) turned by 30 degrees against the clock: 0.5 * (cos 30, -sin 30), down being positive."""
    clip = np.zeros((1, 1, 32, 32, 3), np.int8)
    clip[..., 0] = 64
    out = encoder_module.augment_flow(clip, Fixed(), degrees=30, shift=0, zoom=0, gain=0, noise=0)[0, 0, 16, 16]
    np.testing.assert_allclose(out[:2], [64 / 127 * 0.8660, -64 / 127 * 0.5], atol=1e-3)
