"""helpers.action.batches: windows of clips, augmentation of flow, targets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.action import batches as batches_module
from helpers.action.features import NO_ACTION


def test_clips_are_runs_of_steps_of_one_version():
    """Steps that say their video, version and place: 100 * video + 10000 * version + step."""
    features = [
        [np.arange(n)[:, None] + 100.0 * video + 10_000 * version for version in range(2)]
        for video, n in enumerate((3, 6, 9, 12))
    ]
    weights = np.array([1, 2, 3, 4], np.float32)
    batches = batches_module.ClipBatches(features, np.eye(4, dtype=np.float32), weights, length=6, batch=3, seed=0)
    seen, versions, starts = [], set(), set()
    for _ in range(60):
        assert len(batches) == 2
        for index in range(2):
            clips, targets, weights = batches[index]
            assert clips.dtype == np.float32 and clips.shape[1:] == (6, 1)
            for clip, target, weight in zip(clips[..., 0], targets, weights, strict=True):
                video, place = target.argmax(), clip % 100
                assert (clip // 100 % 100 == video).all() and weight == video + 1
                steps = np.diff(place)
                assert (steps == 1).all() or (video == 0 and place.tolist() == [0, 1, 2, 2, 2, 2])
                seen.append(video)
                versions.add(clip[0] // 10_000)
                starts.add((video, place[0]))
        batches.on_epoch_end()
    assert np.bincount(seen).tolist() == [60] * 4 and versions == {0, 1}
    assert {s for v, s in starts if v == 3} == set(range(7)), "every window of the longest"


@pytest.mark.parametrize("stride, length", [(2, 3), (3, 4), (1, 5)])
def test_a_stride_takes_every_so_manyth_step(stride, length):
    features = [[np.arange(n)[:, None].astype(np.int8)] for n in (2, length * stride, 20)]
    batches = batches_module.ClipBatches(
        features, np.eye(3, dtype=np.float32), np.ones(3, np.float32), length=length, batch=3, seed=0, stride=stride
    )
    starts, ends = set(), set()
    for _ in range(80):
        clips, targets, _ = batches[0]
        assert clips.shape == (3, length, 1) and clips.dtype == np.float32
        for places, video in zip(clips[..., 0], targets.argmax(axis=1), strict=True):
            last = len(features[video][0]) - 1
            wanted = places[0] + stride * np.arange(length)
            assert places.tolist() == np.minimum(wanted, last).tolist(), "beyond the end the last step is repeated"
            if video == 2:
                starts.add(int(places[0]))
                ends.add(int(places[-1]))
        batches.on_epoch_end()
    assert starts == set(range(20 - length * stride + stride)) and max(ends) == 19


def test_batches_of_clips_can_be_augmented():
    """Each batch once, all of it, with random numbers that repeat."""
    features = [[np.full((4, 2), video, np.int8)] for video in range(5)]

    def augment(clips, rng):
        return clips + rng.uniform(0, 0.5, (len(clips), 1, 1))

    one, two = (
        batches_module.ClipBatches(
            features, np.eye(5, dtype=np.float32), np.ones(5, np.float32), length=3, batch=2, seed=7, augment=augment
        )
        for _ in range(2)
    )
    for index in range(3):
        clips, targets, _ = one[index]
        np.testing.assert_array_equal(clips, two[index][0])
        assert (np.floor(clips[:, 0, 0]) == targets.argmax(axis=1)).all() and (clips % 1 > 0).all()
        assert clips.dtype == np.float32


def test_targets_of_clips_by_hand():
    """Three clips of class 0, one of class 1, two of people who only stand there: 4 / (2 * 3) and 4 / (2 * 1)."""
    rows, weights = batches_module.clip_targets(np.array([0, NO_ACTION, 0, 1, 0, NO_ACTION]), 2, 10)
    assert rows.tolist() == [[1, 0], [0.5, 0.5], [1, 0], [0, 1], [1, 0], [0.5, 0.5]]
    np.testing.assert_allclose(weights, [2 / 3, 1, 2 / 3, 2, 2 / 3, 1], rtol=1e-6)
    assert rows.dtype == weights.dtype == np.float32


def flow_clip(seed: int = 0) -> np.ndarray:
    """int8 (1, 3, 32, 32, 3): smooth random speeds and changes."""
    rough = np.random.default_rng(seed).uniform(-80, 80, (3, 6, 6, 3)).astype(np.float32)
    return np.stack([cv2.resize(step, (32, 32)) for step in rough])[None].astype(np.int8)


def test_steps_with_nothing_allowed_are_mirrored_at_most():
    clip, seen = flow_clip(), set()
    plain = clip / 127
    for seed in range(12):
        out = batches_module.augment_flow(
            clip, np.random.default_rng(seed), degrees=0, shift=0, zoom=0, gain=0, noise=0
        )
        same, flipped = (np.abs(out - other).max() < 1e-5 for other in (plain, plain[..., ::-1, :] * [-1, 1, 1]))
        assert same != flipped and out.dtype == np.float32
        seen.add(bool(same))
    assert seen == {True, False}


def test_steps_stay_in_range_and_repeat_and_are_changed_alike_within_a_clip():
    clips = np.concatenate([np.repeat(flow_clip(seed)[:, :1], 3, axis=1) for seed in range(4)])
    before = clips.copy()
    out = batches_module.augment_flow(clips, np.random.default_rng(1))
    np.testing.assert_array_equal(clips, before)
    np.testing.assert_array_equal(out, batches_module.augment_flow(clips, np.random.default_rng(1)))
    assert out.shape == clips.shape and out.min() >= -1 and out.max() <= 1
    calm = batches_module.augment_flow(clips, np.random.default_rng(1), noise=0)
    for clip in calm:
        np.testing.assert_allclose(clip, np.repeat(clip[:1], 3, axis=0), atol=1e-6)
    bright = np.full((1, 1, 32, 32, 3), 127, np.int8)
    assert max(batches_module.augment_flow(bright, np.random.default_rng(s), gain=3).max() for s in range(5)) == 1


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
    out = batches_module.augment_flow(clip, Fixed(), degrees=90, shift=0, zoom=0, gain=0, noise=0)[0, 0]
    rows, columns = np.nonzero(out[..., 2] > -0.5)
    assert abs(rows.mean() - 8) <= 1 and abs(columns.mean() - 16) <= 1
    np.testing.assert_allclose(out[round(rows.mean()), round(columns.mean())], [0, -64 / 127, 0], atol=1e-3)


def test_a_small_turn_by_hand():
    """(0.5, 0) turned by 30 degrees against the clock: 0.5 * (cos 30, -sin 30), down being positive."""
    clip = np.zeros((1, 1, 32, 32, 3), np.int8)
    clip[..., 0] = 64
    out = batches_module.augment_flow(clip, Fixed(), degrees=30, shift=0, zoom=0, gain=0, noise=0)[0, 0, 16, 16]
    np.testing.assert_allclose(out[:2], [64 / 127 * 0.8660, -64 / 127 * 0.5], atol=1e-3)


@pytest.mark.parametrize(
    "n, expected",
    [
        (1, [0, 0, 0, 0]),
        (3, [0, 1, 2, 2]),
        (4, [0, 1, 2, 3]),
        (9, [2, 3, 4, 5]),
        (10, [3, 4, 5, 6]),
    ],
)
def test_the_middle_window(n, expected):
    assert batches_module.middle_window(np.arange(n)[:, None], 4)[:, 0].tolist() == expected
