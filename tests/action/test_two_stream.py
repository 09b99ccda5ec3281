"""The two-stream network: what it is built of, what it learns from, and that every saved form answers alike."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers.action import two_stream
from helpers.action.classifier import ActionClassifier, TwoStreamClassifier, save_action
from helpers.action.joints import ROW, SCORE, WIDTH
from helpers.action.model import join_action_model, pack_head
from helpers.action.person import TimeStep
from helpers.action.two_stream import (
    PERSON_CLIP,
    ActionClips,
    ClipFeatures,
    TwoStreamBatches,
    TwoStreamRecipe,
    build_two_stream_head,
    cross_validate,
    fit_threshold,
    live_windows,
    measure_live,
    shown_answers,
    stream_logs,
    whole_windows,
)
from helpers.data.folders import Sample

LABELS = ("point", "walk")
RECIPE = TwoStreamRecipe(epochs=2, batch=8, folds=2, units=8, clip=replace(PERSON_CLIP, length=8, window_s=1.0))


def features(steps=20, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0.2, 0.8, (steps, ROW)).astype(np.float32)
    rows[:, SCORE] = 1
    return ClipFeatures(rng.normal(size=(steps, 1280)).astype(np.float16), rows)


def clips():
    real = [
        Sample(Path(f"webcam/{label}/w0{person}_{label}.mp4"), label, f"w0{person}")
        for label in (*LABELS, "none")
        for person in range(4)
    ]
    synthetic = [Sample(Path("people/idle/person000.mp4"), "idle", "0")]
    return ActionClips(LABELS, real, synthetic, [[features(seed=k)] for k in range(len(real) + 1)])


def test_targets_number_the_actions_and_then_none():
    assert clips().targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [2]


def test_batches_show_rare_actions_more_often_and_none_once():
    batches = TwoStreamBatches(clips(), np.arange(13), replace(RECIPE, least=12, most=3))
    shown = np.bincount(batches.pool, minlength=13)
    assert shown.tolist() == [3] * 8 + [1] * 5
    (motion, joints), targets, weights = batches[0]
    assert motion.shape == (8, 8, 1280) and joints.shape == (8, 8, WIDTH)
    assert targets.shape == (8, 3) and (targets.sum(axis=1) == 1).all() and weights.shape == (8,)
    again = TwoStreamBatches(clips(), np.arange(13), replace(RECIPE, least=12, most=3))[0]
    assert np.array_equal(again[0][0], motion) and np.array_equal(again[1], targets)


@pytest.mark.parametrize(
    ("steps", "whole", "live", "reason"),
    [(5, 1, 1, "short: padded"), (16, 1, 9, "one window, answers from half of it on"), (32, 3, 25, "half-overlapping")],
)
def test_windows(steps, whole, live, reason):
    clip = features(steps)
    assert len(whole_windows(clip, 16)[0]) == whole, reason
    motion, joints = live_windows(clip, PERSON_CLIP)
    assert motion.shape == (live, 16, 1280) and joints.shape == (live, 16, WIDTH), reason
    assert np.array_equal(motion[-1][-1], clip.motion[-1].astype(np.float32))
    assert np.array_equal(motion[-1][0], clip.motion[-min(steps, 10)].astype(np.float32)), "ten steps back"


def test_the_answer_is_the_geometric_mean_of_both_streams():
    keras.utils.set_random_seed(1)
    head = build_two_stream_head(3, 4, 8)
    inputs = whole_windows(features(), 4)
    both = np.exp(stream_logs(head)(inputs, training=False).numpy().mean(axis=1))
    answer = head(inputs, training=False).numpy()
    assert np.allclose(answer, both / both.sum(axis=1, keepdims=True), atol=1e-5)
    packed = pack_head(head)(np.concatenate(inputs, axis=-1), training=False).numpy()
    assert np.allclose(packed, answer, atol=1e-6)


def test_cross_validation_scores_every_video_once(tmp_path):
    answers, live, history = cross_validate(clips(), RECIPE, tmp_path)
    assert all(np.allclose(rows.sum(axis=1), 1, atol=1e-4) for rows in answers.values())
    assert all(rows.shape == (17, 3) for rows in live)  # 20 steps: after the 4th, 5th, ... 20th
    assert len(history["val_accuracy"]) == len(history["accuracy"]) == 2


def steady(*answers):
    """What the live system would see, 10 steps each: probabilities of (point, walk, none)."""
    return np.repeat(np.float32(answers), 10, axis=0)


POINTS_THEN_WALKS, NOTHING, UNSURE = (
    steady((0.8, 0.1, 0.1), (0.1, 0.8, 0.1)),
    steady((0.1, 0.1, 0.8)),
    steady((0.5, 0, 0.5)),
)


def test_shown_answers_follow_the_stream():
    shown = shown_answers(POINTS_THEN_WALKS, 0.5)
    assert shown[0] == 0 and shown[-1] == 1 and shown_answers(NOTHING, 0.5) == [None] * 10


@pytest.mark.parametrize(
    ("allowed", "threshold", "reason"),
    [(0.0, 0.51, "no false alarm at all"), (0.5, 0.2, "half of them may be answered")],
)
def test_threshold_from_videos_of_none(allowed, threshold, reason):
    assert fit_threshold([NOTHING, UNSURE], allowed) == threshold, reason


def test_live_measures():
    measured = measure_live([POINTS_THEN_WALKS, NOTHING, UNSURE, NOTHING], np.array([0, 1, 2, 2]), 0.4)
    assert measured["actions"] == measured["negatives"] == 2
    assert measured["answered"] == 0.5 and measured["right"] == 1.0 and measured["false_alarms"] == 0.5
    assert measured["latency_s"] == pytest.approx(1.0)


def test_a_recipe_comes_back_from_its_record():
    assert TwoStreamRecipe.from_dict(RECIPE.as_dict()) == RECIPE


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3))
    layers = keras.layers
    backbone = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, strides=4)(image)))
    head = build_two_stream_head(3, 4, 5, features=6)
    folder = tmp_path_factory.mktemp("two_stream")
    spec = replace(PERSON_CLIP, length=4, window_s=1.0, size=32)
    save_action(folder, join_action_model(backbone, head), LABELS, spec=spec, threshold=0.4)
    return folder


@pytest.mark.parametrize("name", ["action_encoder.tflite", "action_model.h5"])
def test_every_saved_form_answers_alike(saved, name):
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.2, 0.8, (4, ROW)).astype(np.float32)
    steps = [TimeStep(rng.uniform(-1, 1, (32, 32, 3)).astype(np.float32), row, None) for row in rows]
    classifier = ActionClassifier.load(saved / name)
    assert isinstance(classifier, TwoStreamClassifier) and classifier.threshold == 0.4 and classifier.shortest == 2
    answer = classifier.classify(classifier.encode(steps)[None])[0]
    model = keras.models.load_model(saved / "action_model.h5", compile=False)
    clip = np.stack([step.image for step in steps])[None]
    whole = model([clip, two_stream.joint_vectors(rows)[None]], training=False).numpy()[0]
    assert answer.shape == (2,) and np.allclose(answer, whole[:2], atol=1e-3) and answer.sum() < 1
