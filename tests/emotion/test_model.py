"""helpers.emotion.model: the networks, the loss and mixup, by hand and against what they stand for."""

from __future__ import annotations

import cv2
import dlib
import keras
import numpy as np
import pytest

from helpers.emotion import model as emotion_model
from helpers.emotion.faces import recognition_model


def answer(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return model(inputs, training=False).numpy()


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
    """The same answers; and in training, which normalises by the batch, nearly the same; before it was far off."""
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
