"""helpers.action.training: batches of clips, augmentation, the cache of features, learning."""

from __future__ import annotations

from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from helpers.action import model as action_model
from helpers.action import training as action_training
from helpers.action.clips import Augmentation, ClipSpec, video_steps, windows
from helpers.data.folders import Sample, Skipped, list_samples
from helpers.errors import DataError
from helpers.synthetic import scenes
from helpers.synthetic.samples import write_action_samples


def test_clips_are_runs_of_steps_from_one_copy():
    """Steps that say their video, copy and place: 100 * video + 10000 * copy + step."""
    features = [
        [np.arange(n)[:, None] + 100.0 * video + 10_000 * copy for copy in range(2)]
        for video, n in enumerate((3, 6, 9, 12))
    ]
    weights = np.array([1, 2, 3, 4], np.float32)
    batches = action_training.ClipBatches(features, np.eye(4, dtype=np.float32), weights, length=6, batch=3, seed=0)
    seen, copies, starts = [], set(), set()
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
                copies.add(clip[0] // 10_000)
                starts.add((video, place[0]))
        batches.on_epoch_end()
    assert np.bincount(seen).tolist() == [60] * 4 and copies == {0, 1}
    assert {s for v, s in starts if v == 3} == set(range(7)), "every window of the longest"


@pytest.mark.parametrize("stride, length", [(2, 3), (3, 4), (1, 5)])
def test_a_stride_takes_every_so_manyth_step(stride, length):
    features = [[np.arange(n)[:, None].astype(np.int8)] for n in (2, length * stride, 20)]
    batches = action_training.ClipBatches(
        features, np.eye(3, dtype=np.float32), np.ones(3, np.float32), length, 3, 0, stride
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
        action_training.ClipBatches(features, np.eye(5, dtype=np.float32), np.ones(5, np.float32), 3, 2, 7, 1, augment)
        for _ in range(2)
    )
    for index in range(3):
        clips, targets, _ = one[index]
        np.testing.assert_array_equal(clips, two[index][0])
        assert (np.floor(clips[:, 0, 0]) == targets.argmax(axis=1)).all() and (clips % 1 > 0).all()
        assert clips.dtype == np.float32


def test_targets_of_clips_by_hand():
    """Three clips of class 0, one of class 1, two of people who only stand there: 4 / (2 * 3) and 4 / (2 * 1)."""
    rows, weights = action_training.clip_targets(
        np.array([0, action_training.NO_ACTION, 0, 1, 0, action_training.NO_ACTION]), 2, 10
    )
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
        out = action_training.augment_steps(clip, np.random.default_rng(seed), 0, 0, 0, 0, 0)
        same, flipped = (np.abs(out - other).max() < 1e-5 for other in (plain, plain[..., ::-1, :] * [-1, 1, 1]))
        assert same != flipped and out.dtype == np.float32
        seen.add(bool(same))
    assert seen == {True, False}


def test_steps_stay_in_range_and_repeat_and_are_changed_alike_within_a_clip():
    clips = np.concatenate([np.repeat(flow_clip(seed)[:, :1], 3, axis=1) for seed in range(4)])
    before = clips.copy()
    out = action_training.augment_steps(clips, np.random.default_rng(1))
    np.testing.assert_array_equal(clips, before)
    np.testing.assert_array_equal(out, action_training.augment_steps(clips, np.random.default_rng(1)))
    assert out.shape == clips.shape and out.min() >= -1 and out.max() <= 1
    calm = action_training.augment_steps(clips, np.random.default_rng(1), noise=0)
    for clip in calm:
        np.testing.assert_allclose(clip, np.repeat(clip[:1], 3, axis=0), atol=1e-6)
    bright = np.full((1, 1, 32, 32, 3), 127, np.int8)
    assert max(action_training.augment_steps(bright, np.random.default_rng(s), gain=3).max() for s in range(5)) == 1


class Fixed:
    """Random numbers that are always the upper end of their range; no mirror."""

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, high)

    def random(self):
        return 0.9

    def normal(self, mean, deviation, size):
        return np.full(size, mean)


def test_vectors_turn_with_the_picture():
    """By 90 degrees against the clock what went right goes up, and what was right of the centre is above it."""
    clip = np.zeros((1, 1, 33, 33, 3), np.int8)
    clip[..., 2] = -127
    clip[0, 0, 14:19, 22:27] = (64, 0, 0)
    out = action_training.augment_steps(clip, Fixed(), degrees=90, shift=0, zoom=0, gain=0, noise=0)[0, 0]
    rows, columns = np.nonzero(out[..., 2] > -0.5)
    assert abs(rows.mean() - 8) <= 1 and abs(columns.mean() - 16) <= 1
    np.testing.assert_allclose(out[round(rows.mean()), round(columns.mean())], [0, -64 / 127, 0], atol=1e-3)


def test_a_small_turn_by_hand():
    """(0.5, 0) turned by 30 degrees against the clock: 0.5 * (cos 30, -sin 30), down being positive."""
    clip = np.zeros((1, 1, 32, 32, 3), np.int8)
    clip[..., 0] = 64
    out = action_training.augment_steps(clip, Fixed(), degrees=30, shift=0, zoom=0, gain=0, noise=0)[0, 0, 16, 16]
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
    assert action_training.clip_at_middle(np.arange(n)[:, None], 4)[:, 0].tolist() == expected


def test_a_videos_answer_is_the_mean_over_its_windows():
    spec, steps = ClipSpec(length=4, size=32), np.random.default_rng(0).random((7, 5), np.float32)

    def model(clips):
        return clips.mean(axis=1)[:, :2]

    out = action_training.video_probabilities(model, [steps, steps[:2]], spec)
    np.testing.assert_allclose(out[0], model(windows(steps, spec)).mean(axis=0), rtol=1e-6)
    assert out.shape == (2, 2)


def test_the_first_copy_is_never_augmented():
    drawn = action_training.draw_augmentations(4, seed=5)
    assert drawn[0] == Augmentation() and len(set(drawn)) == 4
    assert drawn == action_training.draw_augmentations(4, seed=5) != action_training.draw_augmentations(4, seed=6)


def test_clip_features_are_computed_anew_exactly_when_something_changed(tmp_path, entries):
    folder = write_action_samples(tmp_path / "clips", range(1), scenes.ACTIONS[:2], size=(48, 64))
    videos, spec = list_samples(folder), ClipSpec(length=4, size=32)
    (tmp_path / "zero.mp4").write_bytes(b"")
    bad = Sample(tmp_path / "zero.mp4", videos[0].label, "z")
    picture = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(2, 3, strides=8)(picture)
    encoder = keras.Model(picture, keras.layers.GlobalAveragePooling2D()(maps))
    skipped: list[Skipped] = []
    features, used = action_training.clip_features([*videos, bad], spec, encoder, 2, 0, skipped)
    assert used == videos and [item.path for item in skipped] == [bad.path]
    assert [len(copies) for copies in features] == [2, 2] and entries() == 4
    expected = encoder(video_steps(videos[0].path, spec)).numpy()
    np.testing.assert_allclose(features[0][0], expected, atol=2e-3, err_msg="the first copy is the video itself")
    assert features[0][0].dtype == np.float16 and features[0][0].shape == (len(expected), 2)
    action_training.clip_features(videos, spec, encoder, 2, 0)
    assert entries() == 4, "the same question is answered from disk"
    action_training.clip_features(videos, spec, encoder, 3, 0)
    assert entries() == 6, "one more copy each"
    action_training.clip_features(videos, ClipSpec(length=4, size=32, lag_s=0.2), encoder, 1, 0)
    assert entries() == 8, "another specification"
    action_training.clip_features(videos, ClipSpec(length=4, size=32, channels="motion"), encoder, 1, 0)
    assert entries() == 10, "other channels"
    encoder.set_weights([weight + 0.1 for weight in encoder.get_weights()])
    action_training.clip_features(videos, spec, encoder, 1, 0)
    assert entries() == 12, "other weights"
    videos[0].path.write_bytes(videos[1].path.read_bytes())
    action_training.clip_features(videos, spec, encoder, 1, 0)
    assert entries() == 12, "the first is now the second, whose features are known"
    with pytest.raises(DataError, match=r"zero\.mp4"):
        action_training.clip_features([bad], spec, encoder, 1, 0)


def test_clip_steps_are_rounded_and_computed_anew_exactly_when_something_changed(tmp_path, entries):
    folder = write_action_samples(tmp_path / "clips", range(1), scenes.ACTIONS[:2], seconds=0.8, size=(48, 64))
    videos, spec = list_samples(folder), ClipSpec(length=4, size=32)
    steps = action_training.clip_steps(videos, spec)
    assert [clip.dtype for clip in steps] == [np.int8] * 2 and entries() == 2
    np.testing.assert_allclose(steps[0] / 127, video_steps(videos[0].path, spec), atol=0.51 / 127)
    action_training.clip_steps(videos[::-1], spec)
    assert entries() == 2, "the same question is answered from disk"
    action_training.clip_steps(videos[:1], ClipSpec(length=4, size=48))
    assert entries() == 3, "another specification"
    videos[1].path.write_bytes(videos[0].path.read_bytes())
    np.testing.assert_array_equal(action_training.clip_steps(videos, spec)[1], steps[0])
    assert entries() == 3, "the second is now the first"


def test_people_who_stand_there_show_no_action():
    real = [Sample(Path(f"{label}.mp4"), label, "a") for label in ("walk", "bend")]
    drawn = [Sample(Path(f"{label}.mp4"), label, "b") for label in ("bend", scenes.IDLE)]
    data = action_training.ActionData(("bend", "walk"), ClipSpec(), real, drawn, [], None)
    assert data.targets.tolist() == [1, 0, 0, action_training.NO_ACTION]


def test_an_action_head_learns_drawn_actions(tmp_path):
    """Motion pictures of 6x6 pixels as features, six drawn people."""
    actions = ("bend", "jumping_jack", "wave_one_hand")
    folder = write_action_samples(tmp_path, range(6), actions, size=(72, 96))
    spec = ClipSpec(length=12, size=32, channels="motion")
    videos = list_samples(folder)
    features = [
        [
            np.stack(
                [
                    cv2.resize(step, (6, 6), interpolation=cv2.INTER_AREA).ravel()
                    for step in video_steps(video.path, spec)
                ]
            )
        ]
        for video in videos
    ]
    targets = np.array([actions.index(video.label) for video in videos])
    keras.utils.set_random_seed(0)
    head = action_model.build_action_head(3, spec.length, features=108, units=24, dropout=0.2)
    config = {
        "optimizer": "adam",
        "learning_rate": 0.01,
        "epochs": 20,
        "batch": 6,
        "label_smoothing": 0.05,
        "class_weight_cap": 3.0,
        "seed": 0,
    }
    validation = features[:6], targets[:6]
    history = action_training.train_clips(head, config, features, targets, tmp_path / "run", validation)
    assert len(history["val_accuracy"]) == 20 and history["loss"][-1] < 0.7 * history["loss"][0]
    plain = [copies[0] for copies in features]
    answers = action_training.video_probabilities(lambda clips: head(clips, training=False).numpy(), plain, spec)
    accuracy = float((answers.argmax(axis=1) == targets).mean())
    assert accuracy > 0.6, f"chance is 0.33, this is {accuracy:.2f}"
