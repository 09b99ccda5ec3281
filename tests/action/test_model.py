"""helpers.action.model: the parts give what the whole gives. MobileNetV2 at 32 pixels."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from helpers.action import model as action_model

LENGTH, CLASSES, SIDE = 3, 4, 32


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """float32 (2, length, side, side, 3) in [-1, 1], every step of another brightness and contrast."""
    rng = np.random.default_rng(2)
    middle, contrast = rng.uniform(-0.6, 0.6, (2, LENGTH, 1, 1, 3)), rng.uniform(0.1, 0.4, (2, LENGTH, 1, 1, 1))
    return (middle + contrast * rng.uniform(-1, 1, (2, LENGTH, SIDE, SIDE, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def backbone(clip) -> keras.Model:
    """MobileNetV2 whose batch normalisation has these images' statistics: untrained, yet its features differ."""
    keras.utils.set_random_seed(0)
    model = action_model.build_backbone(SIDE, weights=None)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(clip.reshape(-1, SIDE, SIDE, 3), training=True)
    return model


@pytest.fixture(scope="module")
def head() -> keras.Model:
    keras.utils.set_random_seed(1)
    return action_model.build_action_head(CLASSES, LENGTH, units=8)


def answer(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return model(inputs, training=False).numpy()


def test_the_backbone_is_mobilenet_v2(backbone):
    assert backbone.count_params() == 2_257_984  # Keras's documentation, include_top=False
    assert backbone.input_shape == (None, SIDE, SIDE, 3) and backbone.output_shape == (None, 1280)


def test_the_whole_network_is_the_head_of_each_steps_features(backbone, head, clip):
    """What lets the live system encode a frame once and keep its features in a ring."""
    model = action_model.join_action_model(backbone, head)
    assert model.input_shape == (None, LENGTH, SIDE, SIDE, 3) and model.output_shape == (None, CLASSES)
    steps = [answer(backbone, clip[:, step]) for step in range(LENGTH)]
    whole, parts = answer(model, clip), answer(head, np.stack(steps, axis=1))
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3, "different clips, different answers"


def test_a_joined_model_gives_its_own_parts_back(backbone, head):
    back, front = action_model.split_action_model(action_model.join_action_model(backbone, head))
    assert back is backbone and front is head


def test_the_order_of_steps_matters(head):
    features = np.random.default_rng(0).normal(size=(1, LENGTH, 1280)).astype(np.float32)
    assert np.abs(answer(head, features) - answer(head, features[:, ::-1])).max() > 1e-4


def test_dropout_acts_in_training_only(head):
    features = np.random.default_rng(0).normal(size=(1, LENGTH, 1280)).astype(np.float32)
    np.testing.assert_array_equal(answer(head, features), answer(head, features))
    assert np.abs(head(features, training=True).numpy() - answer(head, features)).max() > 1e-4


def test_what_fine_tuning_may_change(backbone):
    """All that carries weights from the named layer on, but batch normalisation; nothing in front of it."""
    names = [layer.name for layer in backbone.layers]
    for name in (action_model.TUNED_FROM, "block_15_expand"):
        action_model.freeze_before(backbone, name)
        allowed = {layer.name for layer in backbone.layers if layer.trainable_weights}
        rest = backbone.layers[names.index(name) :]
        convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        kernels = {layer.name for layer in rest if isinstance(layer, convolutions)}
        assert allowed == kernels and name in kernels and "Conv_1" in kernels
        norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert len(norms) > 40 and not any(layer.trainable for layer in norms)
    assert len(kernels) == 2 * 3 + 1, "three convolutions in blocks 15 and 16, and the last one"


def test_freezing_before_an_unknown_layer_is_refused(backbone):
    with pytest.raises(ValueError, match="block_99"):
        action_model.freeze_before(backbone, "block_99")


def test_what_is_trained_is_the_whole_network(backbone, head, clip):
    """All steps of all clips in one batch give the numbers of step after step."""
    fast, whole = action_model.join_for_training(backbone, head), action_model.join_action_model(backbone, head)
    assert fast.input_shape == whole.input_shape and fast.output_shape == whole.output_shape
    np.testing.assert_allclose(answer(fast, clip), answer(whole, clip), atol=1e-4)


def test_tuning_changes_the_later_kernels_and_nothing_else(backbone, clip):
    """What is frozen and the normalisation's statistics stay bit for bit; the whole network follows."""
    keras.utils.set_random_seed(3)
    head = action_model.build_action_head(CLASSES, LENGTH, units=4)
    action_model.freeze_before(backbone, "block_15_expand")
    model, whole = action_model.join_for_training(backbone, head), action_model.join_action_model(backbone, head)
    before = {layer.name: layer.get_weights() for layer in backbone.layers}
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", run_eagerly=True)  # one batch: no tracing
    model.fit(clip, np.eye(CLASSES, dtype=np.float32)[[0, 1]], verbose=0)
    changed = {
        layer.name
        for layer in backbone.layers
        if any(not np.array_equal(a, b) for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert changed == {layer.name for layer in backbone.layers if layer.trainable_weights}
    np.testing.assert_allclose(answer(model, clip), answer(whole, clip), atol=1e-5)


def test_missing_weights_offline_say_what_to_do_and_do_not_hang(tmp_path):
    """An empty KERAS_HOME and no network: a proxy that refuses at once stands for both 'offline' and 'blocked'."""
    code = (
        "from helpers.errors import DataError\nfrom helpers.action import model as action_model\n"
        "try:\n    action_model.build_backbone(32)\nexcept DataError as error:\n    print('told:', error)"
    )
    refused = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    done = subprocess.run(  # ended after 90 s: it would hang
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **refused, "no_proxy": "", "KERAS_HOME": str(tmp_path)},
    )
    assert done.stdout.count("told:") == 1, done.stderr[-2000:]
    assert str(tmp_path) in done.stdout and "models/ folder" in done.stdout
    assert "mobilenet_v2" in done.stdout, "names the file that is wanted"
