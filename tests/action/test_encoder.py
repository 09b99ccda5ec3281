"""helpers.action.encoder: adapting batch normalisation."""

from __future__ import annotations

import keras
import numpy as np

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
