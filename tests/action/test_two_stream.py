"""The two-stream network: what it is built of, what it learns from, and that every saved form answers alike."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers.action import two_stream
from helpers.action.classifier import ActionClassifier, TwoStreamClassifier, save_action
from helpers.action.encoder import EncoderRecipe
from helpers.action.joints import ROW, SCORE, WIDTH
from helpers.action.model import join_action_model, pack_head
from helpers.action.person import TimeStep, person_steps
from helpers.action.two_stream import (
    PERSON_CLIP,
    ActionClips,
    ClipFeatures,
    CrossValidation,
    TwoStreamBatches,
    TwoStreamRecipe,
    build_two_stream_head,
    cross_validate,
    live_windows,
    stream_logs,
    synthetic_actions,
    whole_windows,
)
from helpers.data.folders import Sample, list_samples
from helpers.data.videos import read_frames
from helpers.errors import DataError
from helpers.synthetic.samples import write_action_samples

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


@pytest.mark.training
def test_cross_validation_scores_every_video_once_and_comes_back_from_its_file(tmp_path):
    scored, history = cross_validate(clips(), RECIPE, tmp_path)
    assert all(np.allclose(rows.sum(axis=1), 1, atol=1e-4) for rows in scored.answers.values())
    assert all(rows.shape == (17, 3) for rows in scored.rows)  # 20 steps: after the 4th, 5th, ... 20th
    assert [video.times_s[0] for video in scored.live] == [0.5] * 12 and scored.targets.tolist() == clips().targets[
        :12
    ].tolist()
    assert len(history["val_accuracy"]) == len(history["accuracy"]) == 2
    predictions = scored.predictions()
    assert predictions.classes == LABELS and len(predictions.files) == 8, "those of none are left out"
    scored.save(tmp_path)
    again = CrossValidation.load(tmp_path)
    assert again.files == scored.files and np.array_equal(again.answers["joints"], scored.answers["joints"])
    assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(again.rows, scored.rows, strict=True))


@pytest.mark.parametrize(
    ("labels", "shown", "not_shown", "reason"),
    [
        (("point", "walk"), {"point", "walk", "idle", "fidget", "beckon", "stop"}, {"run"}, "known: gestures are none"),
        (("wave_one_hand",), {"wave_one_hand", "low_wave"}, {"wave_two_hands"}, "two ways to wave"),
        (("come_here", "walk"), {"walk", "idle", "fidget"}, {"beckon", "stop"}, "a name that may mean beckoning"),
        (("beckon", "walk"), {"beckon", "walk", "stop"}, set(), "an action of its own here, and not none"),
    ],
)
def test_what_synthetic_people_do(labels, shown, not_shown, reason):
    actions = set(synthetic_actions(labels))
    assert shown <= actions and not not_shown & actions, reason


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


@pytest.mark.parametrize("recipe", [TwoStreamRecipe(encoder=EncoderRecipe(people=3), pose=False), TwoStreamRecipe()])
def test_a_recipe_with_its_encoder_comes_back_from_its_record(recipe):
    assert TwoStreamRecipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_features_are_computed_once_and_what_cannot_be_read_is_named(tmp_path, entries, monkeypatch):
    monkeypatch.setattr(two_stream, "open_estimator", lambda: None)
    folder = write_action_samples(tmp_path / "clips", range(1), ("jump", "walk"), seconds=1.0, size=(48, 64))
    videos = list_samples(folder)
    bad = Sample(tmp_path / "zero.mp4", "walk", "z")
    bad.path.write_bytes(b"")
    image = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(2, 3, strides=8)(image)
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps))
    recipe, skipped = TwoStreamRecipe(clip=replace(PERSON_CLIP, size=32)), []
    used, found = two_stream.clip_features([*videos, bad], recipe, encoder, 2, skipped=skipped)
    assert used == videos and [item.path for item in skipped] == [bad.path]
    assert [len(copies) for copies in found] == [2, 2] and entries() == 4
    images, joints = person_steps(read_frames(videos[0].path), recipe.clip, None)
    np.testing.assert_allclose(found[0][0].motion, encoder(images), atol=1e-4, err_msg="the first is the video itself")
    assert not found[0][0].joints.any() and found[0][0].joints.shape == joints.shape
    two_stream.clip_features(videos, recipe, encoder, 2)
    assert entries() == 4, "the same question is answered from disk"
    two_stream.clip_features(videos, replace(recipe, clip=replace(recipe.clip, lag_s=0.2)), encoder, 1)
    assert entries() == 6, "another specification"
    encoder.set_weights([weight + 0.1 for weight in encoder.get_weights()])
    two_stream.clip_features(videos, recipe, encoder, 1)
    assert entries() == 8, "other weights"
    with pytest.raises(DataError, match=r"zero\.mp4"):
        two_stream.clip_features([bad], recipe, encoder, 1)


@pytest.mark.training
def test_two_processes_read_the_same_features(tmp_path, entries):
    videos = list_samples(write_action_samples(tmp_path / "clips", range(1), ("jump", "walk"), size=(48, 64)))
    bad = Sample(tmp_path / "zero.mp4", "walk", "z")
    bad.path.write_bytes(b"")
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3, strides=8)(image)))
    recipe, found = TwoStreamRecipe(clip=replace(PERSON_CLIP, size=32), pose=False), []
    for jobs in (1, 2):
        skipped = []
        used, features = two_stream.clip_features(
            [bad, *videos], recipe, encoder, 2, skipped=skipped, jobs=jobs, progress=list
        )
        assert used == videos and [item.path for item in skipped] == [bad.path]
        found.append([copy.motion for copies in features for copy in copies])
    assert entries() == 4, "the second time they were made elsewhere"
    for there, here in zip(*reversed(found), strict=True):
        np.testing.assert_allclose(there, here, atol=1e-6)


def test_the_shipped_encoder_is_the_deployed_models(monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "cached")
    step = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    row = TimeStep(step[0], np.zeros(ROW, np.float32), None)
    deployed = ActionClassifier.load().encode([row])[:, :-ROW]
    shipped = two_stream.shipped_encoder()(step, training=False).numpy()
    assert np.abs(shipped - deployed).mean() < 0.02 < np.abs(deployed).mean(), "but for the deployed one's float16"


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x05\x06" + bytes(18)], ids=["empty", "text", "no arrays"])
def test_a_damaged_record_of_the_cross_validation_is_named(data, tmp_path):
    (tmp_path / "crossval.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"crossval\.npz: cannot be read"):
        CrossValidation.load(tmp_path)
