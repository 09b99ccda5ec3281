"""helpers.action.encoder: adapting batch normalisation, and encoders of another size."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from helpers.action import encoder as encoder_module
from helpers.action import training as action_training
from helpers.action.clips import ClipSpec
from helpers.errors import DataError


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
    monkeypatch.setenv("HAR_PROFILE", "cached")
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
