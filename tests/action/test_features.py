"""helpers.action.features: augmented videos through an encoder, once; encoders by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers.action import features as features_module
from helpers.action.classifier import ActionClassifier
from helpers.action.clips import Augmentation, ClipSpec, video_steps
from helpers.data.folders import Sample, Skipped, list_samples
from helpers.errors import DataError
from helpers.synthetic import scenes
from helpers.synthetic.samples import write_action_samples


def test_the_first_version_is_never_augmented():
    draws = features_module.draw_augmentations(4, seed=5)
    assert draws[0] == Augmentation() and len(set(draws)) == 4
    assert draws == features_module.draw_augmentations(4, seed=5) != features_module.draw_augmentations(4, seed=6)


def test_clip_features_are_computed_anew_exactly_when_something_changed(tmp_path, entries):
    folder = write_action_samples(tmp_path / "clips", range(1), scenes.ACTIONS[:2], size=(48, 64))
    videos, spec = list_samples(folder), ClipSpec(length=4, size=32)
    (tmp_path / "zero.mp4").write_bytes(b"")
    bad = Sample(tmp_path / "zero.mp4", videos[0].label, "z")
    image = keras.Input((32, 32, 3))
    maps = keras.layers.Conv2D(2, 3, strides=8)(image)
    encoder = keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps))
    skipped: list[Skipped] = []
    features, used = features_module.clip_features([*videos, bad], spec, encoder, augmentations=2, skipped=skipped)
    assert used == videos and [item.path for item in skipped] == [bad.path]
    assert [len(versions) for versions in features] == [2, 2] and entries() == 4
    expected = encoder(video_steps(videos[0].path, spec)).numpy()
    np.testing.assert_allclose(features[0][0], expected, atol=2e-3, err_msg="the first version is the video itself")
    assert features[0][0].dtype == np.float16 and features[0][0].shape == (len(expected), 2)
    features_module.clip_features(videos, spec, encoder, augmentations=2)
    assert entries() == 4, "the same question is answered from disk"
    features_module.clip_features(videos, spec, encoder, augmentations=3)
    assert entries() == 6, "one more version each"
    features_module.clip_features(videos, ClipSpec(length=4, size=32, lag_s=0.2), encoder)
    assert entries() == 8, "another specification"
    features_module.clip_features(videos, ClipSpec(length=4, size=32, channels="rgb"), encoder)
    assert entries() == 10, "other channels"
    encoder.set_weights([weight + 0.1 for weight in encoder.get_weights()])
    features_module.clip_features(videos, spec, encoder)
    assert entries() == 12, "other weights"
    videos[0].path.write_bytes(videos[1].path.read_bytes())
    features_module.clip_features(videos, spec, encoder)
    assert entries() == 12, "the first is now the second, whose features are known"
    with pytest.raises(DataError, match=r"zero\.mp4"):
        features_module.clip_features([bad], spec, encoder)


def test_clip_steps_are_rounded_and_computed_anew_exactly_when_something_changed(tmp_path, entries):
    folder = write_action_samples(tmp_path / "clips", range(1), scenes.ACTIONS[:2], seconds=0.8, size=(48, 64))
    videos, spec = list_samples(folder), ClipSpec(length=4, size=32)
    steps = features_module.clip_steps(videos, spec)
    assert [clip.dtype for clip in steps] == [np.int8] * 2 and entries() == 2
    np.testing.assert_allclose(steps[0] / 127, video_steps(videos[0].path, spec), atol=0.51 / 127)
    features_module.clip_steps(videos[::-1], spec)
    assert entries() == 2, "the same question is answered from disk"
    features_module.clip_steps(videos[:1], ClipSpec(length=4, size=48))
    assert entries() == 3, "another specification"
    videos[1].path.write_bytes(videos[0].path.read_bytes())
    np.testing.assert_array_equal(features_module.clip_steps(videos, spec)[1], steps[0])
    assert entries() == 3, "the second is now the first"


def test_people_who_stand_there_show_no_action():
    real = [Sample(Path(f"{label}.mp4"), label, "a") for label in ("walk", "bend")]
    synthetic = [Sample(Path(f"{label}.mp4"), label, "b") for label in ("bend", scenes.IDLE)]
    data = features_module.ActionData(("bend", "walk"), ClipSpec(), real, synthetic, [], None)
    assert data.targets.tolist() == [1, 0, 0, features_module.NO_ACTION]


def test_the_encoder_is_taken_out_of_the_deployed_model(folders, saved_action, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "cached")
    shutil.copytree(saved_action, folders / "artifacts" / "action" / "small")
    encoder = features_module.load_encoder("small", 32)
    assert encoder.input_shape == (None, 32, 32, 3)
    step = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    expected = ActionClassifier.load(saved_action).encode(step)
    np.testing.assert_allclose(encoder(step, training=False), expected, atol=2e-3)
    with pytest.raises(DataError, match="takes 32 pixels, the clips have 64"):
        features_module.load_encoder("small", 64)
    with pytest.raises(DataError, match="elsewhere"):
        features_module.load_encoder("elsewhere", 32)
