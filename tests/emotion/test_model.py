"""helpers.emotion.model: the network by its numbers, its loss by hand, and its twin for training."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from helpers.emotion import model as emotion_model
from helpers.emotion.model import NetworkSpec, build_mini_xception

ORIGINAL = NetworkSpec(stem=8, widths=(16, 32, 64, 128), middle=0)
TINY = NetworkSpec(stem=8, widths=(16, 32), middle=1, dropout=0.0)


def answer(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(inputs, training=False))


@pytest.mark.parametrize(
    "size, spec, expected, reason",
    [
        (64, ORIGINAL, 58_423, "the authors' release (fer2013_mini_XCEPTION.102-0.66.hdf5)"),
        (48, ORIGINAL, 58_423, "fully convolutional: the side does not matter"),
        (48, NetworkSpec(8, (16, 32, 64, 128), middle=0, dropout=0.0, l2=1e-4), 58_423, "nor do dropout and decay"),
        (48, None, 798_119, "the shipped network"),
    ],
)
def test_mini_xception_has_the_published_number_of_parameters(size, spec, expected, reason):
    assert build_mini_xception(7, size, spec).count_params() == expected, reason


def test_parameters_of_the_first_layers_by_hand():
    """3*3*1*8 weights, no bias; then 4 per channel; the shortcut of 8 -> 16 is 1x1; a separable one is 3*3*8 + 8*16."""
    counts = {layer.name: layer.count_params() for layer in build_mini_xception(7, 48, ORIGINAL).layers}
    assert counts["stem1"] == 72 and counts["stem1_norm"] == 32 and counts["stem2"] == 576
    assert counts["block1_shortcut"] == 128 and counts["block1a"] == 72 + 128
    assert counts["class_maps"] == 3 * 3 * 128 * 7 + 7


@pytest.mark.parametrize("classes, size, stem, widths", [(7, 48, 8, (16, 32)), (3, 64, 4, (8,)), (2, 40, 4, (8, 8, 8))])
def test_mini_xception_gives_probabilities(classes, size, stem, widths):
    model = build_mini_xception(classes, size, NetworkSpec(stem, widths))
    assert model.input_shape == (None, size, size, 1) and model.output_shape == (None, classes)
    out = answer(model, np.random.default_rng(0).normal(size=(5, size, size, 1)).astype(np.float32))
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)
    assert model.get_layer(f"block{len(widths)}_add").output.shape[1] == -(-size // 2 ** len(widths))


def test_middle_blocks_keep_side_and_width_and_add_their_parameters():
    """Each: two separable convolutions of width 32 (9 * 32 + 32 * 32) with batch normalisation (4 * 32)."""
    plain, deep = (build_mini_xception(7, 48, NetworkSpec(8, (16, 32, 64), middle=middle)) for middle in (0, 2))
    assert deep.count_params() - plain.count_params() == 2 * 2 * (9 * 32 + 32 * 32 + 4 * 32)
    assert deep.get_layer("middle2_add").output.shape == plain.get_layer("block2_add").output.shape


def test_ingredients_are_in_the_network():
    model = build_mini_xception(7, spec=NetworkSpec(4, (8,), middle=0, dropout=0.4, l2=1e-3))
    assert model.get_layer("dropout").rate == pytest.approx(0.4)
    kernels = [w for w in model.trainable_weights if "kernel" in w.name]
    decay = sum(1e-3 * float(np.square(w.numpy()).sum()) for w in kernels)
    assert float(sum(model.losses)) == pytest.approx(decay, rel=1e-4), "every kernel decays, nothing else"
    assert build_mini_xception(7, spec=NetworkSpec(4, (8,), middle=0)).losses == []


@pytest.mark.parametrize(
    "smoothing, gamma, reason",
    [
        (0.0, 0.0, "plain cross-entropy"),
        (0.1, 0.0, "label smoothing alone"),
        (0.0, 2.0, "focal factor alone"),
        (0.1, 1.0, "both"),
        (0.05, 0.5, "as trained"),
    ],
)
def test_the_loss_by_hand(smoothing, gamma, reason):
    """sum over classes of smoothed target * (1 - p)^gamma * -log p, mean over samples."""
    model = build_mini_xception(3, 16, NetworkSpec(4, (4,), middle=0))
    emotion_model.compile_emotion(model, keras.optimizers.SGD(0.1), smoothing, gamma=gamma)
    targets, p = np.eye(3, dtype=np.float32)[[0, 2]], np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], np.float32)
    smoothed = targets * (1 - smoothing) + smoothing / 3
    expected = (smoothed * (1 - p) ** gamma * -np.log(p)).sum(axis=1).mean()
    assert float(model.loss(targets, p)) == pytest.approx(expected, rel=1e-4), reason


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(12, 24, 24, 1)).astype(np.float32), np.eye(7, dtype=np.float32)[rng.integers(0, 7, 12)]


def test_a_twin_answers_like_its_original(faces):
    model = build_mini_xception(7, 24, TINY)
    twin = emotion_model.trainable_twin(model)
    np.testing.assert_allclose(answer(twin, faces[0]), answer(model, faces[0]), atol=1e-6)
    assert not any(type(layer) is keras.layers.BatchNormalization for layer in twin.layers)


def test_a_twin_learns_what_its_original_would(faces):
    """Three steps on the same batch: the same weights and the same running means, up to rounding and TensorFlow's
    fused kernel dividing by n - 1 where Keras divides by n."""
    model = build_mini_xception(7, 24, TINY)
    twin = emotion_model.trainable_twin(model)
    for network in (model, twin):
        network.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
        network.fit(*faces, batch_size=12, epochs=3, shuffle=False, verbose=0)
    for name, a, b in zip((w.path for w in model.weights), model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, err_msg=name)
    variances = [weight.numpy() for weight in twin.weights if "moving_variance" in weight.path]
    assert max(np.abs(values - 1).max() for values in variances) > 0.01, "the running means moved"
