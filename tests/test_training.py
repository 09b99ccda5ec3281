"""helpers.training: ingredients by hand, runs that survive a kill, profiles, the feature cache, learning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import joblib
import keras
import numpy as np
import pandas
import pytest

from helpers import runtime, training
from helpers.action import encoder as encoder_module
from helpers.action import model as action_model
from helpers.action import rejection
from helpers.action import training as action_training
from helpers.action.clips import Augmentation, ClipSpec, FrameSampler, video_steps, windows
from helpers.data import paths
from helpers.data.folders import Sample, Skipped, list_samples, list_split
from helpers.emotion import classifier as emotion_classifier
from helpers.emotion import model as emotion_model
from helpers.emotion import training as emotion_training
from helpers.emotion.faces import FacePreprocessor, FaceSpec
from helpers.errors import DataError
from helpers.evaluate.metrics import Predictions
from helpers.evaluate.predict import predict_emotions
from helpers.synthetic import faces as synthetic_faces
from helpers.synthetic import scenes

# --------------------------------------------------------------------------------------------------- ingredients


@pytest.mark.parametrize(
    "targets, cap, expected, reason",
    [
        ([0, 0, 1, 1], 3, [1, 1], "balanced classes weigh the same"),
        ([0, 0, 0, 1], 10, [2 / 3, 2], "inverse frequency: 4 / (2 * 3) and 4 / (2 * 1), mean already 1"),
        (
            [0] * 6 + [1] * 3 + [2],
            2,
            [0.5556 / 0.8667, 1.1111 / 0.8667, 2 / 0.8667],
            "10/3 is cut to 2, then all scaled",
        ),
        ([0] * 6 + [1] * 3 + [2], 0.1, [1, 1, 1], "a cap below all of them leaves no difference"),
    ],
)
def test_class_weights_by_hand(targets, cap, expected, reason):
    targets = np.array(targets)
    weights = training.capped_class_weights(targets, len(expected), cap)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, err_msg=reason)
    assert weights.dtype == np.float32 and weights[targets].mean() == pytest.approx(1)


def test_a_class_without_samples_has_a_finite_weight():
    weights = training.capped_class_weights(np.array([0, 0, 1]), 3, 4)
    assert np.isfinite(weights).all() and weights[[0, 0, 1]].mean() == pytest.approx(1)


def test_mixup_mixes_images_and_targets_alike():
    """Images that show their own target: what happened to one must have happened to the other."""
    targets = np.eye(8, dtype=np.float32)
    images = targets.reshape(8, 2, 4, 1)
    mixed, mixed_targets = emotion_model.mixup(images, targets, 0.4, np.random.default_rng(0))
    np.testing.assert_allclose(mixed.reshape(8, 8), mixed_targets, atol=1e-6)
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)
    assert (mixed_targets.argmax(axis=1) == np.arange(8)).all(), "a sample stays mostly itself"
    assert np.diag(mixed_targets).min() >= 0.5 and (np.diag(mixed_targets) < 0.999).any()
    assert mixed.dtype == mixed_targets.dtype == np.float32


def test_mixup_repeats_with_its_seed_and_can_be_off():
    images, targets = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32), np.eye(6, dtype=np.float32)
    one, two = (emotion_model.mixup(images, targets, 0.2, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    same, same_targets = emotion_model.mixup(images, targets, 0.0, np.random.default_rng(3))
    assert same is images and same_targets is targets


@pytest.mark.parametrize(
    "step, expected, reason",
    [
        (0, 0.0, "starts at nothing"),
        (5, 0.05, "half of the ten warm-up steps"),
        (10, 0.1, "the top"),
        (10 + 95, 0.05, "half of the cosine"),
        (10 + 190 // 3, 0.1 * (1 + np.cos(np.pi * (190 // 3) / 190)) / 2, "a third of it"),
        (200, 0.0, "ends at nothing"),
        (250, 0.0, "and stays there"),
    ],
)
def test_the_schedule_by_hand(step, expected, reason):
    schedule = training.cosine_with_warmup(0.1, 200)  # 5 % of 200 are 10 steps of warm-up
    assert float(schedule(step)) == pytest.approx(expected, abs=1e-6), reason


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_schedule_of_a_very_short_training_is_finite(steps):
    schedule = training.cosine_with_warmup(0.1, steps)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    assert np.isfinite(rates).all() and min(rates) >= 0 and max(rates) <= 0.1 + 1e-6


@pytest.mark.parametrize("name, kind", [("sgd", "SGD"), ("adam", "Adam"), ("adagrad", "Adagrad"), ("adamw", "AdamW")])
def test_optimizers_are_what_they_are_called(name, kind):
    optimizer = training.make_optimizer(name, 0.01, 100)
    assert type(optimizer).__name__ == kind
    if name != "adamw":
        assert float(optimizer.learning_rate) == pytest.approx(0.01), "the course compares constant rates"


def test_an_unknown_optimizer_lists_the_known():
    with pytest.raises(ValueError, match="sgd, adam, adagrad, adamw, got 'rmsprop'"):
        training.make_optimizer("rmsprop", 0.01, 100)


@pytest.mark.parametrize(
    "smoothing, gamma, reason",
    [
        (0.0, 0.0, "plain cross-entropy"),
        (0.1, 0.0, "label smoothing alone"),
        (0.0, 2.0, "focal factor alone"),
        (0.1, 1.0, "both, as trained"),
    ],
)
def test_the_emotion_loss_by_hand(smoothing, gamma, reason):
    """sum over classes of smoothed target * (1 - p)^gamma * -log p, mean over samples."""
    model = emotion_model.build_mini_xception(3, 16, 4, (4,))
    emotion_model.compile_emotion(model, keras.optimizers.SGD(0.1), smoothing, gamma)
    targets, p = np.eye(3, dtype=np.float32)[[0, 2]], np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], np.float32)
    smoothed = targets * (1 - smoothing) + smoothing / 3
    expected = (smoothed * (1 - p) ** gamma * -np.log(p)).sum(axis=1).mean()
    assert float(model.loss(targets, p)) == pytest.approx(expected, rel=1e-4), reason


def test_expected_labels_follow_what_faces_with_the_same_votes_were_called():
    """Of 40 faces that all ten raters called neutral, FER-2013 calls 10 sad: each of them is expected to be sad by 1/4.
    A face without votes keeps its label."""
    neutral, happy, none = (np.eye(10, dtype=int)[0] * 10, np.eye(10, dtype=int)[1] * 10, np.zeros(10, int))
    votes = np.stack([neutral] * 40 + [happy] * 40 + [none] * 2)
    labels = np.array([0] * 30 + [2] * 10 + [1] * 40 + [2, 0])  # of neutral, happy, sad, and a class without a face
    expected = emotion_training.expected_labels(labels, votes, 4)
    assert expected.dtype == np.float32 and expected.shape == (82, 4)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(expected[:40], np.tile([0.75, 0, 0.25, 0], (40, 1)), atol=0.03)
    assert (expected[40:80, 1] > 0.9).all()
    np.testing.assert_array_equal(expected[80:], np.eye(4)[[2, 0]])


def test_votes_are_found_by_file_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_DATA", str(tmp_path))
    faces = [Sample(tmp_path / "train" / "sad" / name, "sad", name) for name in ("Training_7.jpg", "Training_8.jpg")]
    assert not emotion_training.fer_votes(faces).any(), "no file: no votes"
    (tmp_path / "fer2013_manifest.csv").write_text(
        "file,label,usage,copies_in_Training,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        "train/sad/Training_7.jpg,sad,Training,0,1,0,0,8,0,0,1,0,0,0\n"
    )
    np.testing.assert_array_equal(emotion_training.fer_votes(faces), [[1, 0, 0, 8, 0, 0, 1, 0, 0, 0], [0] * 10])


@pytest.mark.parametrize("sharper, reason", [(2.0, "twice too sure"), (1.0, "calibrated"), (0.5, "too shy")])
def test_the_temperature_undoes_what_was_done_to_calibrated_answers(sharper, reason):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 3))
    calibrated = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (rng.random((20_000, 1)) > calibrated.cumsum(axis=1)).sum(axis=1)  # drawn as the answers say
    spoilt = calibrated**sharper / (calibrated**sharper).sum(axis=1, keepdims=True)
    assert emotion_training.fit_temperature(spoilt, targets) == pytest.approx(sharper, rel=0.06), reason


# --------------------------------------------------------------------------------------------------- feeding faces

CROPS = np.random.default_rng(0).integers(0, 256, (10, 48, 48)).astype(np.uint8)


def test_augmentation_with_nothing_allowed_is_a_mirror_at_most():
    out = emotion_training.augment_faces(CROPS, np.random.default_rng(0), degrees=0, shift=0, zoom=0)
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(out, CROPS, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(out, CROPS, strict=True)]
    assert np.logical_xor(mirrored, same).all() and 0 < sum(mirrored) < 10


def test_augmentation_keeps_shape_type_and_input_and_repeats():
    before = CROPS.copy()
    one, two = (emotion_training.augment_faces(CROPS, np.random.default_rng(4)) for _ in range(2))
    assert one.shape == CROPS.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(CROPS, before)
    assert not np.array_equal(one, emotion_training.augment_faces(CROPS, np.random.default_rng(5)))


def test_augmentation_moves_a_face_by_no_more_than_it_says():
    """A dot in the middle of the crop: shifts of 8 % of 48 pixels are at most 3.84."""
    dot = np.zeros((200, 48, 48), np.uint8)
    dot[:, 23:25, 23:25] = 255
    out = emotion_training.augment_faces(dot, np.random.default_rng(0)).astype(float)
    rows = (out.sum(axis=2) @ np.arange(48)) / out.sum(axis=(1, 2)) - 23.5
    columns = (out.sum(axis=1) @ np.arange(48)) / out.sum(axis=(1, 2)) - 23.5
    assert 3 < np.abs(rows).max() < 4.6 and 3 < np.abs(columns).max() < 4.6
    assert abs(rows.mean()) < 0.6 and abs(columns.mean()) < 0.6, "to no side on average"


def test_stretching_changes_the_ratio_of_a_faces_sides_and_not_its_size_or_place():
    """A square in the middle of the crop: height over width within exp(-0.4)..exp(0.4), the area as it was."""
    square = np.zeros((200, 48, 48), np.uint8)
    square[:, 16:32, 16:32] = 255
    out = (
        emotion_training.augment_faces(
            square, np.random.default_rng(0), degrees=0, shift=0, zoom=0, stretch=0.4
        ).astype(float)
        / 255
    )
    height, width = out[:, :, 23:25].sum(axis=1).mean(axis=1), out[:, 23:25].sum(axis=2).mean(axis=1)
    assert 0.35 < np.abs(np.log(height / width)).max() < 0.45 and abs(np.log(height / width).mean()) < 0.05
    np.testing.assert_allclose(out.sum(axis=(1, 2)), 256, rtol=0.03)
    rows, columns = (out.sum(axis=axis) @ np.arange(48) / out.sum(axis=(1, 2)) for axis in (2, 1))
    np.testing.assert_allclose((rows, columns), 23.5, atol=0.2)


def test_a_disturbed_picture_has_the_noise_and_the_blur_that_were_asked_for():
    rng, flat = np.random.default_rng(1), np.full((200, 200, 3), 128, np.uint8)
    np.testing.assert_array_equal(emotion_training.corrupt(flat, 0, 0, rng), flat)
    noisy = emotion_training.corrupt(flat, 6, 0, rng)
    assert noisy.shape == flat.shape and noisy.dtype == np.uint8
    assert noisy.std() == pytest.approx(6, rel=0.03) and noisy.mean() == pytest.approx(128, abs=0.1)
    assert emotion_training.corrupt(np.full((50, 50), 254, np.uint8), 20, 0, rng).max() == 255, "clipped, not wrapped"
    dot = np.zeros((41, 41), np.uint8)
    dot[20, 20] = 255
    blurred = emotion_training.corrupt(dot, 0, 1.5, rng).astype(float)
    assert np.sqrt(blurred.sum(axis=0) @ (np.arange(41) - 20) ** 2 / blurred.sum()) == pytest.approx(1.5, rel=0.1)


def test_every_face_is_disturbed_by_an_amount_of_its_own():
    flat = np.full((400, 24, 24), 128, np.uint8)
    deviations = emotion_training.corrupt_faces(flat, np.random.default_rng(2), noise=8, blur=0).std(axis=(1, 2))
    assert deviations.min() < 0.7 and 7 < deviations.max() < 9 and deviations.mean() == pytest.approx(4, rel=0.1)
    one, two = (emotion_training.corrupt_faces(CROPS, np.random.default_rng(3), 8, 1) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one.astype(int) - CROPS).max() > 8


def face_batches(**settings) -> emotion_training.FaceBatches:
    targets = np.eye(3, dtype=np.float32)[np.arange(10) % 3]
    return emotion_training.FaceBatches(CROPS, targets, FacePreprocessor(FaceSpec()), 4, seed=1, **settings)


def test_an_epoch_shows_every_face_once_in_another_order():
    batches = face_batches(augment=False)
    everything = FacePreprocessor(FaceSpec()).normalise(CROPS)
    orders = []
    for _ in range(2):
        parts = [batches[index] for index in range(len(batches))]
        assert [len(part[0]) for part in parts] == [4, 4, 2]
        images = np.concatenate([part[0] for part in parts])
        orders.append([int(np.abs(everything - image).sum(axis=(1, 2, 3)).argmin()) for image in images])
        labels = np.concatenate([part[1] for part in parts]).argmax(axis=1)
        np.testing.assert_array_equal(labels, np.array(orders[-1]) % 3)
        batches.on_epoch_end()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]


def test_batches_repeat_with_their_seed_and_change_with_the_epoch():
    one, two = face_batches(mixup_alpha=0.2), face_batches(mixup_alpha=0.2)
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_array_equal(a, b)
    first = one[0][0]
    one.on_epoch_end()
    assert not np.array_equal(first, one[0][0])


def test_reduced_batches_show_the_same_faces_smaller():
    targets, preprocessor = np.eye(10, dtype=np.float32), FacePreprocessor()
    whole, small = (
        emotion_training.FaceBatches(CROPS, targets, preprocessor, 10, 5, augment=False, side=side)[0]
        for side in (None, 24)
    )
    assert whole[0].shape == (10, 48, 48, 1) and small[0].shape == (10, 24, 24, 1)
    np.testing.assert_array_equal(whole[1], small[1])
    means = whole[0].reshape(10, 24, 2, 24, 2).mean(axis=(2, 4))  # each small pixel is the mean of four
    np.testing.assert_allclose(small[0][..., 0], means, atol=1e-5)


def epoch_of(batches: emotion_training.FaceBatches) -> list[np.ndarray]:
    """images, targets and weights of all batches of an epoch."""
    return [np.concatenate(part) for part in zip(*(batches[i] for i in range(len(batches))), strict=True)]


def test_a_teacher_answers_for_the_very_views_that_the_epochs_show():
    """Two views: epochs 0 and 2 show the same blended faces, epoch 1 others; targets are shares of label and answer."""
    keras.utils.set_random_seed(1)
    preprocessor, teacher = FacePreprocessor(FaceSpec()), emotion_model.build_mini_xception(3, 48, 4, (8,))
    answers = emotion_training.teach(teacher, CROPS, preprocessor, views=2, mixup_alpha=1.0, stretch=0.3, batch=4)
    assert answers.shape == (2, 10, 3) and answers.dtype == np.float32
    taught, everyone = dict(answers=answers, teacher_share=0.75, mixup_alpha=1.0, stretch=0.3), np.arange(10)
    batches, one_hot, shown = face_batches(**taught), np.eye(3, dtype=np.float32)[np.arange(10) % 3], []
    for epoch in range(3):
        images, targets, _ = epoch_of(batches)
        view = emotion_training.face_view(CROPS, preprocessor, epoch % 2, 1.0, 0.3)
        seen, labels = view.images(everyone, preprocessor), view.targets(one_hot, everyone)
        np.testing.assert_array_equal(images, seen[batches.order])
        said = runtime.KerasFunction(teacher)(seen)
        np.testing.assert_allclose(targets, (0.25 * labels + 0.75 * said)[batches.order], atol=1e-5)
        shown.append(seen)
        batches.on_epoch_end()
    assert ((labels > 0.05) & (labels < 0.45)).any(), "blended"
    assert np.array_equal(shown[0], shown[2]) and np.abs(shown[0] - shown[1]).max() > 0.5
    assert np.abs(answers[0] - answers[1]).max() > 1e-4
    small, large = face_batches(**taught, side=24)[1], face_batches(**taught)[1]
    np.testing.assert_array_equal(small[0], emotion_training.resize_faces(large[0], 24))
    np.testing.assert_array_equal(small[1], large[1])


def test_a_student_sees_disturbed_faces_where_its_teachers_saw_clean_ones():
    """The same faces at the same places, blended with the same others, and the teachers' answers stay."""
    preprocessor, everyone = FacePreprocessor(FaceSpec(clahe=False)), np.arange(10)
    clean, worse = (emotion_training.face_view(CROPS, preprocessor, 0, 1.0, 0.3, noise, 0.0) for noise in (0.0, 6.0))
    np.testing.assert_array_equal(clean.partner, worse.partner)
    np.testing.assert_array_equal(clean.share, worse.share)
    difference = worse.pictures.astype(float) - clean.pictures
    assert 1 < difference.std() < 6 and abs(difference.mean()) < 0.5, "noise, and nothing moved"
    answers = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 10)).astype(np.float32)
    taught = dict(answers=answers, teacher_share=0.75, mixup_alpha=1.0, stretch=0.3)
    shown, disturbed = (epoch_of(face_batches(**taught, noise=noise)) for noise in (0.0, 6.0))
    view = emotion_training.face_view(CROPS, FacePreprocessor(FaceSpec()), 0, 1.0, 0.3, 6.0).images(
        everyone, FacePreprocessor(FaceSpec())
    )
    np.testing.assert_array_equal(disturbed[0], view[face_batches(**taught).order])
    assert np.abs(disturbed[0] - shown[0]).max() > 0.3
    np.testing.assert_array_equal(disturbed[1], shown[1])
    untaught = [epoch_of(face_batches(noise=noise))[0] for noise in (0.0, 6.0)]
    assert 0.01 < np.abs(untaught[1] - untaught[0]).mean() < 1


def test_a_view_blends_its_pictures_and_its_targets_alike():
    """By hand: three quarters of face 0 and a quarter of face 2."""
    pictures = np.stack([np.full((16, 16), value, np.uint8) for value in (0, 51, 255)])
    view = emotion_training.FaceView(pictures, np.array([2, 0, 1]), np.float32([0.75, 1, 0.5]))
    images = view.images(np.array([0, 1]), FacePreprocessor(FaceSpec(16, clahe=False, scaling="minus_one_to_one")))
    np.testing.assert_allclose(images[:, 5, 5, 0], [0.75 * -1 + 0.25 * 1, -0.6], atol=1e-6)
    np.testing.assert_allclose(
        view.targets(np.eye(3, dtype=np.float32), np.array([0, 1])), [[0.75, 0, 0.25], [0, 1, 0]]
    )


def test_many_threads_make_the_same_batches():
    """Where there are many cores, several threads ask for batches at once."""
    keras.utils.set_random_seed(1)
    answers = np.full((2, 10, 3), 1 / 3, np.float32)
    for settings in (dict(mixup_alpha=0.4), dict(answers=answers, teacher_share=0.5, mixup_alpha=1.0)):
        one_by_one, together = face_batches(**settings), face_batches(**settings)
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(together.__getitem__, [0, 1, 2] * 8))
        for index, part in enumerate(parts):
            for a, b in zip(part, one_by_one[index % 3], strict=True):
                np.testing.assert_array_equal(a, b)


def test_answers_are_kept_in_small_steps_and_belong_to_their_faces(tmp_path):
    answers = np.random.default_rng(0).dirichlet(np.ones(7), (2, 5)).astype(np.float32)
    emotion_training.save_answers(tmp_path, answers, "these faces")
    again = emotion_training.load_answers(tmp_path, "these faces")
    np.testing.assert_allclose(again, answers, atol=0.02)
    np.testing.assert_allclose(again.sum(axis=-1), 1, atol=1e-6)
    assert again.dtype == np.float32
    with pytest.raises(DataError, match="other training faces.*delete"):
        emotion_training.load_answers(tmp_path, "those faces")
    with pytest.raises(DataError, match="nowhere.*no answers"):
        emotion_training.load_answers(tmp_path / "nowhere", "these faces")


def test_a_student_starts_from_the_weights_it_is_told(folders, monkeypatch):
    set_profile(monkeypatch, "full")
    config = {
        "labels": "abc",
        "face": FaceSpec().as_dict(),
        "stem": 4,
        "widths": (8,),
        "dropout": 0.1,
        "l2": 0.0,
        "middle": 0,
    }
    keras.utils.set_random_seed(7)
    earlier = emotion_training.emotion_network(config)
    (folders / "artifacts" / "earlier").mkdir(parents=True)
    earlier.save(folders / "artifacts" / "earlier" / "emotion_model.keras")
    same, other = (
        emotion_training.emotion_network({**config, "start_from": "earlier"}),
        emotion_training.emotion_network(config),
    )
    for a, b in zip(earlier.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(earlier.get_weights(), other.get_weights(), strict=True))
    with pytest.raises(DataError, match="nowhere"):
        emotion_training.emotion_network({**config, "start_from": "nowhere"})


def test_batches_carry_each_samples_weight():
    images, targets, weights = face_batches(weights=np.array([1, 2, 4], np.float32), mixup_alpha=0.3)[0]
    assert images.shape == (4, 48, 48, 1) and images.dtype == targets.dtype == np.float32
    np.testing.assert_allclose(weights, targets @ [1, 2, 4], rtol=1e-6)


# --------------------------------------------------------------------------------------------------- feeding clips


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


@pytest.mark.parametrize(
    "confidences, false_alarms, expected, reason",
    [
        ([0.91, 0.33, 0.50, 0.25], 0.25, 0.51, "one of four may show: above the second largest"),
        ([0.91, 0.33, 0.50, 0.25], 0.05, 0.92, "none may: above the largest"),
        ([0.91, 0.33, 0.50, 0.25], 0.5, 0.34, "two may"),
        ([0.804, 0.333], 0.0, 0.81, "rounded up to hundredths"),
        ([0.05, 0.1, 0.15], 0.05, 0.2, "never below 0.2"),
        ([1.0] * 3 + [0.3] * 37, 0.05, 1.01, "three of forty are sure: nothing may ever be shown"),
    ],
)
def test_the_threshold_by_hand(confidences, false_alarms, expected, reason):
    threshold = rejection.fit_threshold(np.array(confidences), false_alarms)
    assert threshold == pytest.approx(expected), reason
    assert (np.array(confidences) >= threshold).mean() <= false_alarms


# --------------------------------------------------------------------------------------------------- steps in training


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


# --------------------------------------------------------------------------------------------------- fit and resume


class Blobs(keras.utils.PyDataset):
    """Two clouds of points. From epoch `flip` on the labels are swapped, so that training makes the model worse."""

    def __init__(self, flip: int = 99, seconds: float = 0.0, batches: int = 4):
        super().__init__()
        rng = np.random.default_rng(0)
        self.labels = np.arange(40) % 2
        self.points = (rng.normal(0, 0.3, (40, 2)) + 2 * self.labels[:, None] - 1).astype(np.float32)
        self.flip, self.seconds, self.batches, self.epoch = flip, seconds, batches, 0

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        time.sleep(self.seconds)
        part = slice(index * 40 // self.batches, (index + 1) * 40 // self.batches)
        labels = self.labels[part] if self.epoch < self.flip else 1 - self.labels[part]
        return self.points[part], np.eye(2, dtype=np.float32)[labels]

    def on_epoch_end(self):
        self.epoch += 1

    @property
    def truth(self):
        return self.points, np.eye(2, dtype=np.float32)[self.labels]


def blob_model(optimizer: keras.optimizers.Optimizer | None = None) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(
        optimizer or keras.optimizers.SGD(0.3),
        "categorical_crossentropy",
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    return model


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # the last call has nothing to train
def test_a_second_call_continues_and_keeps_what_was(tmp_path):
    def model():
        return blob_model(keras.optimizers.AdamW(training.cosine_with_warmup(0.1, 16)))

    data, again = Blobs(), model()
    first = training.fit(model(), data, data.truth, 2, tmp_path, seed=0)
    assert set(first) == {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"} and len(first["loss"]) == 2
    resumed = training.fit(again, data, data.truth, 4, tmp_path, seed=0, keep_best=False)
    assert len(resumed["loss"]) == 4
    for key, values in first.items():
        assert resumed[key][:2] == values, f"{key} of the finished epochs changed"
    assert int(again.optimizer.iterations) == 16, "the schedule goes on where it was: 4 epochs of 4 batches"
    assert resumed["loss"][2] < resumed["loss"][0], "from the trained weights, not from new ones"
    assert training.fit(model(), data, data.truth, 4, tmp_path, seed=0) == resumed, "finished: not trained again"


def test_resumed_weights_are_those_of_an_uninterrupted_training(tmp_path):
    """One batch, the same in every epoch: stopping must make no difference at all."""
    data, whole, parts = Blobs(batches=1), blob_model(), blob_model()
    expected = training.fit(whole, data, data.truth, 4, tmp_path / "whole", 0, keep_best=False)
    training.fit(blob_model(), data, data.truth, 2, tmp_path / "parts", 0, keep_best=False)
    resumed = training.fit(parts, data, data.truth, 4, tmp_path / "parts", 0, keep_best=False)
    np.testing.assert_allclose(resumed["val_loss"], expected["val_loss"], rtol=1e-5)
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


class Counted(Blobs):
    """The first batch of epoch k is point k alone: what is trained tells which epoch's batches were given."""

    def __getitem__(self, index):
        points, labels = super().__getitem__(index)
        return points[self.epoch : self.epoch + 1], labels[self.epoch : self.epoch + 1]


def test_a_resumed_training_goes_on_with_the_next_epochs_batches(tmp_path):
    whole, parts = blob_model(), blob_model()
    training.fit(whole, Counted(batches=1), None, 4, tmp_path / "whole", 0)
    training.fit(blob_model(), Counted(batches=1), None, 2, tmp_path / "parts", 0)
    training.fit(parts, Counted(batches=1), None, 4, tmp_path / "parts", 0)
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("keep_best, resumed", [(True, False), (False, False), (True, True)])
def test_which_epochs_weights_are_left(tmp_path, keep_best, resumed):
    """Labels are swapped after three epochs: the third is the best, the last is bad."""
    data, model = Blobs(flip=3), blob_model(keras.optimizers.SGD(1.0))
    if resumed:  # killed after the fourth epoch: the best epoch lies before the restart
        training.fit(blob_model(keras.optimizers.SGD(1.0)), data, data.truth, 4, tmp_path, 0, keep_best)
    history = training.fit(model, data, data.truth, 9, tmp_path, 0, keep_best)
    assert history["val_accuracy"][-1] < 0.5 < max(history["val_accuracy"])
    accuracy = model.evaluate(*data.truth, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(max(history["val_accuracy"]) if keep_best else history["val_accuracy"][-1])


def test_without_validation_the_last_epoch_is_left(tmp_path):
    data, model = Blobs(), blob_model()
    history = training.fit(model, data, None, 3, tmp_path, 0)
    assert set(history) == {"loss", "accuracy", "seconds"} and len(history["loss"]) == 3
    assert model.evaluate(*data.truth, verbose=0, return_dict=True)["accuracy"] > 0.9


def test_a_kill_between_log_and_backup_trains_the_epoch_again(tmp_path):
    """The log knows an epoch that the backup does not: trained twice, counted once, however often that happens."""
    data = Blobs()
    training.fit(blob_model(), data, data.truth, 1, tmp_path, 0)
    log = tmp_path / "log.csv"
    row = log.read_text().splitlines()[1]
    log.write_text(log.read_text() + 2 * ("1" + row[row.index(",") :] + "\n"))
    history = training.fit(blob_model(), data, data.truth, 3, tmp_path, 0)
    assert len(history["loss"]) == 3 and history["loss"][0] > history["loss"][1] > history["loss"][2]


def test_a_kill_while_the_backup_is_written_falls_back_to_the_one_before(tmp_path):
    data = Blobs()
    training.fit(blob_model(), data, data.truth, 3, tmp_path, 0)
    backup = tmp_path / "backup" / "latest.weights.h5"
    backup.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    history = training.fit(blob_model(), data, data.truth, 5, tmp_path, 0)
    assert len(history["loss"]) == 5


def test_a_kill_in_the_middle_of_training(tmp_path):
    """A real SIGKILL in the third epoch or later; another process goes on."""
    code = (
        "from pathlib import Path; from test_training import Blobs, blob_model; from helpers import training\n"
        "data = Blobs(seconds=0.1)\n"
        f"training.fit(blob_model(), data, data.truth, 1000, Path({str(tmp_path)!r}), seed=0)"
    )
    places = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": places})
    log = tmp_path / "log.csv"
    try:
        deadline = time.monotonic() + 90
        while not (log.is_file() and log.read_text().count("\n") >= 3) and time.monotonic() < deadline:
            assert process.poll() is None, "the training ended by itself"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = pandas.read_csv(log)
    assert len(before) >= 2
    data = Blobs()
    history = training.fit(blob_model(), data, data.truth, len(before) + 3, tmp_path, seed=0)
    assert len(history["loss"]) == len(before) + 3
    np.testing.assert_allclose(history["loss"][: len(before) - 1], before["loss"][:-1])
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("epochs, text", [(1, ""), (3, ""), (3, '{"epoch": ')])
def test_a_kill_while_the_number_of_the_epoch_is_written(epochs, text, tmp_path):
    """Keras's backup then holds a file that is empty or cut off: the epoch before counts, or the beginning. The last
    epoch is trained again, on its own batches and not on those of the next one, where the labels are swapped."""
    data = Blobs(flip=epochs + 1)  # Keras calls on_epoch_end once before the first epoch
    before = training.fit(blob_model(), data, data.truth, epochs, tmp_path, seed=0)
    (tmp_path / "backup" / "training_metadata.json").write_text(text)
    data = Blobs(flip=epochs + 1)
    history = training.fit(blob_model(), data, data.truth, epochs + 2, tmp_path, seed=0)
    assert len(history["loss"]) == epochs + 2
    assert history["loss"][:epochs] == pytest.approx(before["loss"], rel=0.05)  # batches come in another order


# --------------------------------------------------------------------------------------------------- profiles


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """artifacts/ and the place of unfinished trainings, empty."""
    for module in (training, action_training, emotion_training):
        monkeypatch.setattr(module, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(training, "WORK", tmp_path / "work")
    return tmp_path


CONFIG = {"epochs": 5, "optimizer": "adam", "learning_rate": 0.01, "face": {"size": 48}}


class Trainer:
    """A training function that writes one file and remembers with what it was called."""

    def __init__(self):
        self.calls: list[dict] = []

    def __call__(self, config: dict, folder: Path) -> dict:
        self.calls.append(config)
        (folder / "model.txt").write_text(config["optimizer"])
        (folder / "work").mkdir()
        (folder / "work" / "checkpoint").write_text("not to be committed")
        accuracy = [k / 10 for k in range(config["epochs"])]
        return {"loss": [1.0 - a for a in accuracy], "val_accuracy": accuracy, "seconds": [6.0] * config["epochs"]}


def set_profile(monkeypatch, name: str) -> None:
    monkeypatch.setenv("HAR_PROFILE", name)


def test_the_profile_is_cached_unless_told(monkeypatch):
    monkeypatch.delenv("HAR_PROFILE", raising=False)
    assert training.profile() == "cached"
    set_profile(monkeypatch, "quick")
    with pytest.raises(DataError, match="HAR_PROFILE='quick'.*cached, smoke, full"):
        training.profile()


def test_full_trains_once_and_cached_shows_it(folders, monkeypatch, capsys):
    set_profile(monkeypatch, "full")
    train = Trainer()
    run = training.fit_or_load("emotion/small", CONFIG, train)
    assert train.calls == [CONFIG] and run.folder == folders / "artifacts" / "emotion" / "small"
    assert sorted(path.name for path in run.folder.iterdir()) == ["history.json", "model.txt"]
    assert run.history["val_accuracy"] == [0.0, 0.1, 0.2, 0.3, 0.4] and run.best() == (5, 0.4)
    assert run.best("loss") == (5, 0.6) and run.provenance["minutes"] == 0.5 and run.provenance["epochs"] == 5

    assert training.fit_or_load("emotion/small", CONFIG, train) == run and len(train.calls) == 1, "finished: kept"
    set_profile(monkeypatch, "cached")
    capsys.readouterr()
    assert training.fit_or_load("emotion/small", CONFIG, train) == run and len(train.calls) == 1
    line = capsys.readouterr().out
    assert line.startswith("emotion/small: 5 epochs, trained 20") and line.count("\n") == 1
    assert training.fit_or_load("emotion/small", {**CONFIG, "face": {"size": np.int64(48).item()}}, train) == run


def test_full_trains_anew_when_the_configuration_changed(folders, monkeypatch):
    set_profile(monkeypatch, "full")
    train = Trainer()
    training.fit_or_load("run", CONFIG, train)
    run = training.fit_or_load("run", {**CONFIG, "optimizer": "sgd"}, train)
    assert len(train.calls) == 2 and run.config["optimizer"] == "sgd"
    assert (run.folder / "model.txt").read_text() == "sgd"


# A network that trains in seconds, on faces that the project draws itself.
DRAWN_FACES = {
    "labels": sorted(scenes.EXPRESSIONS),
    "face": FaceSpec().as_dict(),
    "stem": 4,
    "widths": (8,),
    "dropout": 0.0,
    "l2": 0.0,
    "middle": 0,
    "validation_fraction": 0.2,
    "vote_share": 0.0,
    "seed": 3,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "batch": 64,
    "epochs": 1,
    "small_epochs": 0,
    "small_side": 32,
    "small_rate": 0.01,
    "label_smoothing": 0.0,
    "focal_gamma": 0.0,
    "mixup_alpha": 0.2,
    "class_weight_cap": 0.5,
}


def test_a_students_answers_come_from_the_teachers_that_were_trained(folders, tmp_path, monkeypatch):
    """Two teachers that differ in their start and order alone, on drawn faces; a student's data then hold their mean."""
    monkeypatch.setenv("HAR_DATA", str(tmp_path / "nothing"))
    set_profile(monkeypatch, "full")
    config = DRAWN_FACES
    run = training.fit_or_load(
        "teachers",
        {**config, "members": 2, "views": 2, "view_alpha": 1.0, "stretch": 0.2},
        emotion_training.train_teachers,
    )
    seen = {"mixup_alpha": 1.0, "stretch": 0.2}
    for other in ({}, {**seen, "mixup_alpha": 0.5}, {**seen, "stretch": 0.0}):
        with pytest.raises(DataError, match="'mixup_alpha': 1.0, 'stretch': 0.2}; a student must see the same"):
            emotion_training.fer_data({**config, "teacher": "teachers", **other})
    data = emotion_training.fer_data({**config, "teacher": "teachers", **seen})
    assert data["answers"].shape == (2, len(data["train"]), 7)
    assert len(run.history["loss"]) == 1 and run.provenance["machine"] == training.machine()
    with np.load(run.folder / "validation.npz") as said:
        assert (
            said["probabilities"].shape == (2, len(data["val"]), 7)
            and np.ptp(said["probabilities"], axis=0).max() > 1e-3
        )
        np.testing.assert_array_equal(said["targets"], data["val_targets"])
    first = emotion_classifier.EmotionClassifier.load(run.folder)
    probabilities = first.predict(data["preprocessor"].normalise(data["val"]))
    with np.load(run.folder / "validation.npz") as said:
        np.testing.assert_array_equal(probabilities.argmax(axis=1), said["probabilities"][0].argmax(axis=1))
    alone, untaught, config = [], emotion_training.fer_data(config), {**config, "stretch": 0.2}
    for seed in (3, 4):
        model, _ = emotion_training.train_face_model({**config, "seed": seed}, untaught, tmp_path / str(seed))
        alone.append(emotion_training.teach(model, data["train"], data["preprocessor"], 2, 1.0, 0.2))
    np.testing.assert_allclose(data["answers"], np.mean(alone, axis=0), atol=0.01)
    assert np.abs(alone[0] - alone[1]).max() > 0.02


@pytest.mark.parametrize("even", [False, True])
def test_a_network_trained_on_fer_knows_for_which_mixture_it_answers(folders, tmp_path, monkeypatch, even):
    """On drawn faces, all classes equally often: the shares are one seventh each; predictions are the saved model's."""
    monkeypatch.setenv("HAR_DATA", str(tmp_path / "nothing"))
    set_profile(monkeypatch, "full")
    config = {**DRAWN_FACES, "noise": 4.0, "blur": 0.6, "even_mixture": even}
    run = training.fit_or_load("student", config, emotion_training.train_on_fer)
    classifier = emotion_classifier.EmotionClassifier.load(run.folder)
    if even:
        assert sum(classifier.frequencies) == pytest.approx(1, abs=1e-5) and classifier.frequencies == pytest.approx(
            [1 / 7] * 7, rel=0.1
        )
    else:
        assert classifier.frequencies is None
    kept = Predictions.load(run.folder / "predictions.npz")
    again, _ = predict_emotions(emotion_training.fer_samples("test"), classifier)
    assert kept.files == again.files
    np.testing.assert_allclose(kept.probabilities, again.probabilities, atol=1e-3)


def test_a_training_that_went_on_elsewhere_names_both_machines(folders, monkeypatch):
    set_profile(monkeypatch, "full")
    names = iter(("16 cores", "2 cores", "2 cores"))
    monkeypatch.setattr(training, "machine", lambda: next(names))

    def train(config, folder):
        for epochs in (1, 2, 3):
            history = training.fit(blob_model(), Blobs(), None, epochs, folder / "work", seed=0)
        return history

    assert training.fit_or_load("a", CONFIG, train).provenance["machine"] == "16 cores, then 2 cores"


def test_an_interrupted_full_training_leaves_no_artifact_and_finds_its_files_again(folders, monkeypatch):
    set_profile(monkeypatch, "full")

    def interrupted(config, folder):
        (folder / "epoch1").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit_or_load("a/b", CONFIG, interrupted)
    assert not (folders / "artifacts").exists()
    found = []

    def continued(config, folder):
        found.extend(path.name for path in folder.iterdir())
        return {"loss": [1.0]}

    training.fit_or_load("a/b", {**CONFIG, "epochs": 6}, continued)
    assert found == [], "another configuration starts anew"
    training.fit_or_load("a/b", CONFIG, continued)
    assert found == ["epoch1"]


def test_cached_without_a_run_says_how_to_get_one(folders, monkeypatch):
    set_profile(monkeypatch, "cached")
    with pytest.raises(DataError, match=r"nothing.history\.json: no such run.*HAR_PROFILE=full.*make retrain"):
        training.fit_or_load("nothing", CONFIG, Trainer())


@pytest.mark.parametrize("text", ["", "{", "{}", '{"config": {}}'])
def test_a_damaged_record_is_named(folders, monkeypatch, text):
    set_profile(monkeypatch, "cached")
    (folders / "artifacts" / "run").mkdir(parents=True)
    (folders / "artifacts" / "run" / "history.json").write_text(text)
    with pytest.raises(DataError, match=r"history\.json: damaged"):
        training.fit_or_load("run", CONFIG, Trainer())


@pytest.mark.parametrize(
    "change, lines",
    [
        ({"learning_rate": 0.02}, ["learning_rate: recorded 0.01, asked 0.02"]),
        ({"face": {"size": 64}}, ["face: recorded {'size': 48}, asked {'size': 64}"]),
        ({"mixup": 0.2}, ["mixup: recorded None, asked 0.2"]),
        ({"optimizer": "sgd", "epochs": 6}, ["epochs: recorded 5, asked 6", "optimizer: recorded 'adam', asked 'sgd'"]),
    ],
)
def test_a_stale_result_is_never_shown(folders, monkeypatch, change, lines):
    set_profile(monkeypatch, "full")
    training.fit_or_load("run", CONFIG, Trainer())
    set_profile(monkeypatch, "cached")
    with pytest.raises(DataError, match="another configuration") as error:
        training.fit_or_load("run", {**CONFIG, **change}, Trainer())
    assert [line.strip() for line in str(error.value).splitlines()[1:-1]] == lines
    assert "make retrain" in str(error.value)


def test_smoke_trains_for_two_epochs_and_writes_nothing(folders, monkeypatch):
    set_profile(monkeypatch, "smoke")
    train = Trainer()
    run = training.fit_or_load("run", CONFIG, train)
    assert train.calls == [{**CONFIG, "epochs": 2}] and len(run.history["loss"]) == 2
    assert list(folders.iterdir()) == []
    training.fit_or_load("run", CONFIG, train, epochs_in_smoke=3)
    assert train.calls[-1]["epochs"] == 3


def test_a_measurement_is_computed_in_full_and_loaded_in_cached(folders, monkeypatch):
    calls = []

    def compute():
        calls.append(1)
        return {"median": 0.5, "pairs": [(1, 2)]}

    set_profile(monkeypatch, "cached")
    with pytest.raises(DataError, match=r"sizes\.json: not measured yet.*HAR_PROFILE=full"):
        training.measure_or_load("data/sizes", {"n": 3}, compute)
    set_profile(monkeypatch, "smoke")
    assert training.measure_or_load("data/sizes", {"n": 3}, compute) == {"median": 0.5, "pairs": [[1, 2]]}
    assert not (folders / "artifacts").exists()
    set_profile(monkeypatch, "full")
    full = training.measure_or_load("data/sizes", {"n": 3}, compute)
    assert training.measured("data/sizes") == full
    with pytest.raises(DataError, match=r"others\.json: not measured yet"):
        training.measured("data/others")
    set_profile(monkeypatch, "cached")
    assert training.measure_or_load("data/sizes", {"n": 3}, compute) == full and len(calls) == 2
    with pytest.raises(DataError, match="n: recorded 3, asked 4"):
        training.measure_or_load("data/sizes", {"n": 4}, compute)


def test_predictions_are_made_in_full_only(folders, monkeypatch):
    made = Predictions(
        files=("a/1", "b/2"),
        labels=("a", "b"),
        classes=("a", "b"),
        groups=("1", "2"),
        probabilities=np.array([[0.9, 0.1], [0.4, 0.6]], np.float32),
    )
    for name in ("cached", "smoke"):
        set_profile(monkeypatch, name)
        with pytest.raises(DataError, match=r"run.predictions\.npz"):
            training.predict_or_load("run/predictions", lambda: made)
    set_profile(monkeypatch, "full")
    training.predict_or_load("run/predictions", lambda: made)
    set_profile(monkeypatch, "smoke")
    loaded = training.predict_or_load("run/predictions", lambda: pytest.fail("computed again"))
    assert loaded.files == made.files
    np.testing.assert_allclose(loaded.probabilities, made.probabilities, atol=1e-3)


# --------------------------------------------------------------------------------------------------- feature cache


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Number of arrays in a cache of the test's own."""
    memory = joblib.Memory(tmp_path / "cache", verbose=0)
    for module, name in (
        (emotion_training, "_cached_crops"),
        (action_training, "_cached_features"),
        (action_training, "_cached_steps"),
    ):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, memory.cache(ignore=function.ignore)(function.func))
    return lambda: len(list((tmp_path / "cache").rglob("output.pkl")))


def test_crops_are_computed_anew_exactly_when_something_changed(tmp_path, entries):
    source = list_split(scenes.write_emotion_samples(tmp_path / "faces", per_class=1), "train")
    labels, spec = scenes.EXPRESSIONS, FaceSpec(align=False)
    crops, targets = emotion_training.face_arrays(source, labels, spec)
    assert crops.shape == (7, 48, 48) and [labels[t] for t in targets] == [s.label for s in source]
    again, _ = emotion_training.face_arrays(source, labels, FaceSpec(align=False))
    np.testing.assert_array_equal(crops, again)
    assert entries() == 1, "the same question is answered from disk"
    moved = source[0].path.rename(tmp_path / "renamed.png")
    emotion_training.face_arrays([Sample(moved, source[0].label, "x"), *source[1:]], labels, spec)
    assert entries() == 1, "a file is its content, not its name"
    emotion_training.face_arrays(source[1:], labels, spec)
    assert entries() == 2, "a file less"
    emotion_training.face_arrays(source[1:], labels, FaceSpec(align=False, size=64))
    assert entries() == 3, "another specification"
    cv2.imwrite(str(source[1].path), 255 - cv2.imread(str(source[1].path)))
    changed, _ = emotion_training.face_arrays(source[1:], labels, spec)
    assert entries() == 4 and not np.array_equal(changed[0], crops[1]), "another content"


def test_no_face_images_are_an_error():
    with pytest.raises(DataError, match="no face images"):
        emotion_training.face_arrays([], scenes.EXPRESSIONS, FaceSpec())


def test_clip_features_are_computed_anew_exactly_when_something_changed(tmp_path, entries):
    folder = scenes.write_action_samples(tmp_path / "clips", range(1), scenes.ACTIONS[:2], size=(48, 64))
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
    folder = scenes.write_action_samples(tmp_path / "clips", range(1), scenes.ACTIONS[:2], seconds=0.8, size=(48, 64))
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


# --------------------------------------------------------------------------------------------------- encoder


def test_adapting_changes_only_what_normalisation_has_measured():
    """On pictures of one gray level a normalisation right behind the input finds just that: mean and no deviation."""
    picture = keras.Input((32, 32, 3))
    normal = keras.layers.BatchNormalization(name="first", momentum=0.99)(picture)
    maps = keras.layers.Conv2D(4, 3, strides=4, name="maps")(normal)
    encoder = keras.Model(picture, keras.layers.BatchNormalization(name="second")(maps))
    before = {weight.path: weight.numpy() for weight in encoder.weights}
    encoder_module.adapt_batch_normalisation(encoder, np.full((9, 32, 32, 3), 64, np.int8), batches=60, batch=4)
    changed = {weight.path for weight in encoder.weights if not np.array_equal(before[weight.path], weight.numpy())}
    assert changed <= {path for path in before if "moving" in path}
    assert {"first/moving_mean", "first/moving_variance", "second/moving_variance"} <= changed
    first = encoder.get_layer("first")
    np.testing.assert_allclose(first.moving_mean.numpy(), 64 / 127, atol=1e-3)
    np.testing.assert_allclose(first.moving_variance.numpy(), 0, atol=1e-3)
    assert first.momentum == 0.99


def test_an_encoder_for_another_picture_is_refused(folders, monkeypatch):
    set_profile(monkeypatch, "cached")
    picture = keras.Input((48, 48, 3))
    path = action_training.ARTIFACTS / "action" / "encoder_48" / "encoder.keras"
    path.parent.mkdir(parents=True)
    keras.Model(picture, keras.layers.GlobalAveragePooling2D()(picture)).save(path)
    config = {"clip": ClipSpec(size=48).as_dict(), "encoder": "encoder_48"}
    assert action_training.load_encoder(config).input_shape == (None, 48, 48, 3)
    with pytest.raises(DataError, match="takes 48 pixels, the clips have 64"):
        action_training.load_encoder({**config, "clip": ClipSpec(size=64).as_dict()})
    with pytest.raises(DataError, match="elsewhere"):
        action_training.load_encoder({**config, "encoder": "elsewhere"})


def test_people_who_stand_there_show_no_action():
    real = [Sample(Path(f"{label}.mp4"), label, "a") for label in ("walk", "bend")]
    drawn = [Sample(Path(f"{label}.mp4"), label, "b") for label in ("bend", scenes.IDLE)]
    data = action_training.ActionData(("bend", "walk"), ClipSpec(), real, drawn, [], None)
    assert data.targets.tolist() == [1, 0, 0, action_training.NO_ACTION]


def test_confidence_without_an_action_is_that_of_the_frames_as_the_camera_gives_them():
    """The same drawn frames, one by one through the stepper of the live system, give the same confidence."""
    keras.utils.set_random_seed(0)
    spec = ClipSpec(length=4, size=32)
    encoder, head = action_model.build_backbone(32, None), action_model.build_action_head(3, 4, units=8)
    found = rejection.no_action_confidence(head, encoder, spec, range(7, 9))
    stepper, steps = FrameSampler(spec), []
    for index, frame in enumerate(scenes.render_action(scenes.IDLE, 8, size=(120, 160))):
        step = stepper.push(frame, index / 25)
        steps += [] if step is None else [step]
    features = np.asarray(encoder(np.array(steps, np.float32)))
    expected = np.asarray(head(windows(features, spec))).mean(axis=0).max()
    assert found.shape == (2,) and found[1] == pytest.approx(expected, abs=1e-4) and (found > 1 / 3 - 1e-6).all()


def test_each_person_does_one_of_the_unknown_actions_in_turn():
    keras.utils.set_random_seed(0)
    spec = ClipSpec(length=4, size=32)
    encoder, head = action_model.build_backbone(32, None), action_model.build_action_head(3, 4, units=8)
    found = rejection.no_action_confidence(head, encoder, spec, range(7, 10), ("hug", scenes.IDLE))
    films = [rejection.synthetic_video(action, person) for action, person in (("hug", 7), (scenes.IDLE, 8), ("hug", 9))]
    assert len(films[0]) == 100 and films[0][25][1] == 1.0, "two people take four seconds"
    run = runtime.KerasFunction
    assert found == pytest.approx(rejection.video_confidences(run(encoder), run(head), spec, films), abs=1e-6)


# --------------------------------------------------------------------------------------------------- learning


def test_mini_xception_learns_drawn_expressions(tmp_path):
    """Accuracy as training reports it, on augmented faces: so short a training leaves the moving averages of batch
    normalisation behind, which inference needs."""
    labels, spec = scenes.EXPRESSIONS, FaceSpec(size=32)
    drawn = [synthetic_faces.render_expression(label, seed) for seed in range(6) for label in labels]
    crops = np.stack([cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA) for face in drawn])
    targets = np.arange(len(crops)) % 7
    keras.utils.set_random_seed(0)
    model = emotion_model.build_mini_xception(7, 32, stem=8, widths=(16, 32), dropout=0.0)
    config = {
        "optimizer": "adam",
        "learning_rate": 0.005,
        "batch": 7,
        "epochs": 20,
        "label_smoothing": 0.05,
        "focal_gamma": 1.0,
        "mixup_alpha": 0.0,
        "class_weight_cap": 3.0,
        "seed": 0,
    }
    data = {
        "train": crops,
        "train_targets": targets,
        "val": crops[:7],
        "val_targets": targets[:7],
        "preprocessor": FacePreprocessor(spec),
    }
    history = emotion_training.train_emotion(model, config, data, tmp_path)
    assert np.mean(history["loss"][-3:]) < 0.8 * history["loss"][0]
    assert np.mean(history["accuracy"][-5:]) > 0.3, f"chance is 0.14: {history['accuracy']}"


def test_an_action_head_learns_drawn_actions(tmp_path):
    """Motion pictures of 6x6 pixels as features, six drawn people."""
    actions = ("bend", "jumping_jack", "wave_one_hand")
    folder = scenes.write_action_samples(tmp_path, range(6), actions, size=(72, 96))
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


def test_configurations_are_json(folders, monkeypatch):
    """What is recorded is what is compared: tuples become lists on both sides."""
    set_profile(monkeypatch, "full")
    run = training.fit_or_load("run", {**CONFIG, "widths": (8, 16)}, Trainer())
    assert json.loads((run.folder / "history.json").read_text())["config"]["widths"] == [8, 16]
    set_profile(monkeypatch, "cached")
    assert training.fit_or_load("run", {**CONFIG, "widths": (8, 16)}, Trainer()).config == run.config
