"""helpers.models: the two networks, and that their parts give what the whole gives. MobileNetV2 at 32 pixels."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import cv2
import dlib
import keras
import numpy as np
import pytest

from helpers.action import model as action_model
from helpers.emotion import model as emotion_model
from helpers.emotion.faces import recognition_model

LENGTH, CLASSES, SIDE = 3, 4, 32


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """float32 (2, length, side, side, 3) in [-1, 1], every step of another brightness and contrast."""
    rng = np.random.default_rng(2)
    middle, contrast = rng.uniform(-0.6, 0.6, (2, LENGTH, 1, 1, 3)), rng.uniform(0.1, 0.4, (2, LENGTH, 1, 1, 1))
    return (middle + contrast * rng.uniform(-1, 1, (2, LENGTH, SIDE, SIDE, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def backbone(clip) -> keras.Model:
    """MobileNetV2 whose batch normalisation has these pictures' statistics: untrained, yet its features differ."""
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


# --------------------------------------------------------------------------------------------------- Mini-Xception


@pytest.mark.parametrize(
    "size, settings, expected, reason",
    [
        (64, {}, 58_423, "the authors' release (fer2013_mini_XCEPTION.102-0.66.hdf5)"),
        (48, {}, 58_423, "fully convolutional: the side does not matter"),
        (48, {"l2": 0}, 58_423, "nor does weight decay"),
        (48, {"dropout": 0.0}, 58_423, "nor dropout"),
    ],
)
def test_mini_xception_has_the_published_number_of_parameters(size, settings, expected, reason):
    assert emotion_model.build_mini_xception(7, size, **settings).count_params() == expected, reason


def test_parameters_of_the_first_layers_by_hand():
    """3*3*1*8 weights, no bias; then 4 per channel; the shortcut of 8 -> 16 is 1x1; a separable one is 3*3*8 + 8*16."""
    model = emotion_model.build_mini_xception(7)
    counts = {layer.name: layer.count_params() for layer in model.layers}
    assert counts["stem1"] == 72 and counts["stem1_norm"] == 32 and counts["stem2"] == 576
    assert counts["block1_shortcut"] == 128 and counts["block1a"] == 72 + 128
    assert counts["class_maps"] == 3 * 3 * 128 * 7 + 7


@pytest.mark.parametrize("classes, size, stem, widths", [(7, 48, 8, (16, 32)), (3, 64, 4, (8,)), (2, 40, 4, (8, 8, 8))])
def test_mini_xception_gives_probabilities(classes, size, stem, widths):
    model = emotion_model.build_mini_xception(classes, size, stem, widths)
    assert model.input_shape == (None, size, size, 1) and model.output_shape == (None, classes)
    out = answer(model, np.random.default_rng(0).normal(size=(5, size, size, 1)).astype(np.float32))
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)
    assert model.get_layer(f"block{len(widths)}_add").output.shape[1] == -(-size // 2 ** len(widths))


def test_middle_blocks_keep_side_and_width_and_add_their_parameters():
    """Each: two separable convolutions of width 32 (9 * 32 + 32 * 32) with batch normalisation (4 * 32)."""
    plain, deep = (emotion_model.build_mini_xception(7, 48, 8, (16, 32, 64), middle=middle) for middle in (0, 2))
    assert deep.count_params() - plain.count_params() == 2 * 2 * (9 * 32 + 32 * 32 + 4 * 32)
    assert deep.get_layer("middle2_add").output.shape == plain.get_layer("block2_add").output.shape


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(12, 24, 24, 1)).astype(np.float32), np.eye(7, dtype=np.float32)[rng.integers(0, 7, 12)]


def test_a_twin_answers_like_its_original_and_takes_faces_of_another_side(faces):
    model = emotion_model.build_mini_xception(7, 24, 8, (16, 32), middle=1)
    twin = emotion_model.trainable_twin(model, 24)
    np.testing.assert_allclose(answer(twin, faces[0]), answer(model, faces[0]), atol=1e-6)
    assert emotion_model.trainable_twin(model, 16)(faces[0][:, :16, :16], training=False).shape == (12, 7)
    assert not any(type(layer) is keras.layers.BatchNormalization for layer in twin.layers)


def test_a_twin_learns_what_its_original_would(faces):
    """Three steps on the same batch: the same weights and the same running means, up to rounding and TensorFlow's
    fused kernel dividing by n - 1 where Keras divides by n."""
    model = emotion_model.build_mini_xception(7, 24, 8, (16, 32), dropout=0.0)
    twin = emotion_model.trainable_twin(model, 24)
    for network in (model, twin):
        network.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
        network.fit(*faces, batch_size=12, epochs=3, shuffle=False, verbose=0)
    for name, a, b in zip((w.path for w in model.weights), model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, err_msg=name)
    variances = [weight.numpy() for weight in twin.weights if "moving_variance" in weight.path]
    assert max(np.abs(values - 1).max() for values in variances) > 0.01, "the running means moved"


def test_a_bfloat16_twin_keeps_its_weights_in_float32_and_learns_nearly_the_same(faces):
    model = emotion_model.build_mini_xception(7, 24, 8, (16, 32), dropout=0.0)
    twins = [emotion_model.trainable_twin(model, 24, precision) for precision in ("float32", "mixed_bfloat16")]
    assert twins[1].get_layer("block1a").compute_dtype == "bfloat16"
    assert all(weight.dtype == "float32" for weight in twins[1].weights)
    for twin in twins:
        twin.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy")
        twin.fit(*faces, batch_size=12, epochs=3, shuffle=False, verbose=0)
    exact, coarse = (answer(twin, faces[0]) for twin in twins)
    assert coarse.dtype == np.float32 and 0 < np.abs(exact - coarse).max() < 0.05


def test_an_inner_size_enlarges_the_face_in_front_of_the_same_network(faces):
    small, large = (
        emotion_model.build_mini_xception(7, 24, 4, (8, 16), inner_size=36),
        emotion_model.build_mini_xception(7, 36, 4, (8, 16)),
    )
    large.set_weights(small.get_weights())
    enlarged = keras.ops.convert_to_numpy(keras.ops.image.resize(faces[0], (36, 36), interpolation="bilinear"))
    np.testing.assert_allclose(answer(small, faces[0]), answer(large, enlarged), atol=1e-5)


def test_a_face_resnet_starts_as_dlibs_recognition_network():
    """What dlib's last block and matrix, read from the same file, make of its features is dlib's own descriptor."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 255, (150, 150, 3), dtype=np.uint8), (0, 0), 6)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    expected = np.array(dlib.face_recognition_model_v1(str(recognition_model())).compute_face_descriptor(picture))

    network = emotion_model.build_face_resnet(7, emotion_model.RECOGNITION_SIDE)
    trunk = keras.Model(network.get_layer("three_channels").output, network.get_layer("block4c_relu2").output)
    x = trunk((np.float32(picture)[None] - (122.782, 117.001, 104.298)) / 256)  # RGB, as dlib scales it
    assert x.shape == (1, 4, 4, 256)
    (first, first_bias), (second, second_bias) = list(emotion_model.read_recognition_weights())[-2:]
    y = keras.ops.relu(keras.ops.conv(x, first, strides=2, padding="valid") + first_bias)
    y = keras.ops.conv(y, second, padding="same") + second_bias
    y = keras.ops.pad(y, ((0, 0), (0, 1), (0, 1), (0, 0))) + keras.ops.average_pool(x, 2, 2)
    features = keras.ops.convert_to_numpy(keras.ops.relu(y)).mean(axis=(1, 2))
    content = recognition_model().read_bytes()
    start = content.rindex(b"fc_2") + 20  # its name, its two widths, then version and sizes of its matrix
    matrix = np.frombuffer(content, "<f4", 256 * 128, start).reshape(256, 128)
    np.testing.assert_allclose(features[0] @ matrix, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_calibration_changes_nothing_but_what_normalisation_learns_from(faces):
    """The same answers; and in training, which normalises by the batch, nearly the same, where it was far off before."""
    model = emotion_model.build_face_resnet(7, 24, dropout=0.0)
    images = np.stack([cv2.GaussianBlur(face, (0, 0), 2) for face in faces[0]])[..., None] * 3
    before, weights = answer(model, images), model.get_weights()
    in_training = np.asarray(model(images, training=True))
    model.set_weights(weights)  # training moved the averages
    emotion_model.calibrate_normalisation(model, images)
    np.testing.assert_allclose(answer(model, images), before, atol=1e-4)
    np.testing.assert_allclose(np.asarray(model(images, training=True)), before, atol=1e-3)
    assert np.abs(in_training - before).max() > 0.01


def test_ingredients_are_in_the_network():
    model = emotion_model.build_mini_xception(7, stem=4, widths=(8,), dropout=0.4, l2=1e-3)
    assert model.get_layer("dropout").rate == pytest.approx(0.4)
    assert float(model.get_layer("stem1").kernel_regularizer.l2) == pytest.approx(1e-3)
    kernels = [w for w in model.trainable_weights if "kernel" in w.name]
    decay = sum(1e-3 * float(np.square(w.numpy()).sum()) for w in kernels)
    assert float(sum(model.losses)) == pytest.approx(decay, rel=1e-4), "every kernel decays, nothing else"
    assert emotion_model.build_mini_xception(7, stem=4, widths=(8,), l2=0).losses == []


# --------------------------------------------------------------------------------------------------- action


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


def test_a_pooled_head_adds_what_mean_and_maximum_vote_for():
    """With an LSTM that votes for nothing what is left is a linear layer on the standardised mean and maximum."""
    head, rng = action_model.build_action_head(3, 4, features=5, units=2, pooled=True), np.random.default_rng(0)
    kernel = rng.normal(size=(10, 3)).astype(np.float32)
    head.get_layer("pooled_votes").set_weights([kernel, np.zeros(3, np.float32)])
    head.get_layer("lstm_votes").set_weights([np.zeros((2, 3), np.float32), np.float32([0, 0, 1])])
    head.get_layer("feature_norm").set_weights(
        [np.full(5, 2, np.float32), np.full(5, 4, np.float32)]
    )  # mean 2, deviation 2
    clips = rng.normal(size=(6, 4, 5)).astype(np.float32)
    steps = (clips - 2) / np.sqrt(4 + 1e-3)
    votes = np.concatenate([steps.mean(axis=1), steps.max(axis=1)], axis=1) / np.sqrt(1 + 1e-3) @ kernel + [0, 0, 1]
    expected = np.exp(votes) / np.exp(votes).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(answer(head, clips), expected, atol=1e-5)


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
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **refused, "no_proxy": "", "KERAS_HOME": str(tmp_path)},
    )
    assert done.stdout.count("told:") == 1, done.stderr[-2000:]
    assert str(tmp_path) in done.stdout and "models/ folder" in done.stdout
    assert "mobilenet_v2" in done.stdout, "names the file that is wanted"
    assert time.monotonic() - start < 60
