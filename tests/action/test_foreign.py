"""Action networks made elsewhere: loaded from their file and labels alone, split by frame where that is possible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from helpers import model_files, runtime
from helpers.action import foreign
from helpers.action.classifier import ActionClassifier
from helpers.errors import DataError

TF_2_13 = Path(__file__).parent / "files" / "td_lstm_tf213"  # saved by TensorFlow 2.13, random weights
EACH = layers.TimeDistributed
LABELS = ("wave", "walk", "jump")


def clips(*shape: int) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = keras.Input(shape or (4, 32, 32, 3))
    return inputs, inputs


def backbone(channels: int = 3) -> keras.Model:
    """As of transfer learning: a model of its own inside the network."""
    image = keras.Input((32, 32, channels))
    return keras.Model(image, layers.BatchNormalization()(layers.Conv2D(4, 3, strides=4)(image)), name="backbone")


def usual() -> keras.Model:
    """TimeDistributed backbone and pooling, LSTM, Dense."""
    inputs, x = clips()
    x = EACH(layers.GlobalAveragePooling2D())(EACH(backbone())(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.LSTM(5)(x)))


def tutorial() -> keras.Model:
    """A sequence of TimeDistributed layers, without a backbone of its own."""
    inner = (layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(4), layers.Dropout(0.25), layers.Flatten())
    rest = [layers.LSTM(6), layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((4, 32, 32, 3)), *(EACH(layer) for layer in inner), *rest])


def scaled() -> keras.Model:
    """Raw pixels, nested Sequential, Bidirectional GRU over all steps, logits."""
    inputs, x = clips()
    inner = keras.Sequential([keras.Input((32, 32, 3)), backbone(), layers.GlobalMaxPooling2D()])
    x = EACH(inner)(layers.Rescaling(1 / 127.5, offset=-1)(x))
    x = layers.GlobalAveragePooling1D()(layers.Bidirectional(layers.GRU(5, return_sequences=True))(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def gray() -> keras.Model:
    inputs, x = clips(4, 32, 32, 1)
    x = EACH(layers.GlobalAveragePooling2D())(EACH(backbone(1))(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GRU(5)(x)))


def whole_windows() -> keras.Model:
    inputs, x = clips()
    x = layers.GlobalAveragePooling2D()(layers.ConvLSTM2D(4, 3, strides=4)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


NETWORKS = [  # network, features of a frame, scaling, what its outputs are
    (usual, (4,), "minus_one_to_one", "probabilities"),
    (tutorial, (7 * 7 * 4,), "minus_one_to_one", "probabilities"),
    (scaled, (4,), "pixels", "logits"),
    (gray, (4,), "minus_one_to_one", "probabilities"),
    (whole_windows, (32, 32, 3), "minus_one_to_one", "probabilities"),
]


def saved(folder: Path, model: keras.Model, name: str = "action_model.keras") -> Path:
    model.save(folder / name)
    model_files.save_labels(folder, LABELS)
    return folder


@pytest.mark.parametrize("name", ["action_model.keras", "my_network.h5"])
@pytest.mark.parametrize("build, features, scaling, outputs", NETWORKS, ids=[row[0].__name__ for row in NETWORKS])
def test_a_network_from_elsewhere_answers_as_it_did_there(tmp_path, build, features, scaling, outputs, name):
    keras.utils.set_random_seed(2)
    model = build()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    there = pixels if scaling == "pixels" else pixels / 127.5 - 1
    there = there @ np.float32([[0.299], [0.587], [0.114]]) if build is gray else there
    expected = model(there[None], training=False).numpy()
    if outputs == "logits":
        expected = keras.ops.softmax(expected).numpy()
    classifier = ActionClassifier.load(saved(tmp_path, model, name))
    encoded = classifier.encode(pixels / 127.5 - 1)
    np.testing.assert_allclose(classifier.classify(encoded[None]), expected, atol=1e-5)
    assert encoded.shape == (4, *features) and classifier.labels == LABELS
    assert (classifier.spec.length, classifier.spec.size, classifier.spec.channels) == (4, 32, "rgb")
    assert (classifier.scaling, classifier.outputs) == (scaling, outputs)


def test_the_students_network_of_tensorflow_2_13_answers_as_it_did_there():
    with np.load(TF_2_13 / "io.npz") as arrays:
        clip, answer = arrays["x"][0], arrays["y"]
    for path in (TF_2_13, TF_2_13 / "action_model.h5"):
        classifier = ActionClassifier.load(path)
        np.testing.assert_allclose(classifier.classify(classifier.encode(clip)[None]), answer, atol=1e-5)
        assert classifier.labels == LABELS and classifier.spec.length == 16 and classifier.encoder.input_shape[1] == 32


def test_what_is_assumed_is_told_and_what_is_given_is_not(tmp_path, capsys):
    saved(tmp_path, usual())
    ActionClassifier.load(tmp_path)
    told = capsys.readouterr().err
    assert told.count("note: ") == 2 and "2 s" in told and "zero_to_one" in told and "config.json" in told
    assert ActionClassifier.load(tmp_path, scaling="zero_to_one").scaling == "zero_to_one"
    (tmp_path / "config.json").write_text(json.dumps({"clip": {"window_s": 3.0}, "scaling": "pixels"}))
    capsys.readouterr()
    classifier = ActionClassifier.load(tmp_path)
    assert capsys.readouterr().err == "" and (classifier.spec.window_s, classifier.scaling) == (3.0, "pixels")
    np.testing.assert_allclose(
        classifier.encode(np.ones((1, 32, 32, 3))), classifier.encoder(np.full((1, 32, 32, 3), 255))
    )


def test_whole_windows_are_said_to_be_slow(tmp_path, capsys):
    ActionClassifier.load(saved(tmp_path, whole_windows()))
    assert "every step costs a whole window" in capsys.readouterr().err


def test_a_litert_file_of_whole_windows(tmp_path):
    keras.utils.set_random_seed(2)
    model = usual()
    runtime.export_litert(model, saved(tmp_path, model) / "action_model.tflite")
    classifier = ActionClassifier.load(tmp_path / "action_model.tflite")
    clip = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    answer = classifier.classify(classifier.encode(clip)[None])
    np.testing.assert_allclose(answer, model(clip[None], training=False), atol=1e-4)


def two_readers() -> keras.Model:
    inputs, x = clips()
    pooled = [layers.GlobalAveragePooling3D()(x), layers.GlobalMaxPooling3D()(x)]
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Concatenate()(pooled)))


def test_an_input_that_two_layers_read_is_not_split():
    assert foreign.split_by_frame(two_readers()) is None


def lambda_layer() -> keras.Model:
    inputs, x = clips()
    x = EACH(layers.Flatten())(layers.Lambda(lambda frames: frames / 255)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.LSTM(3)(x)))


def one_image() -> keras.Model:
    image = keras.Input((32, 32, 3))
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(image)))


def any_length() -> keras.Model:
    inputs, x = clips(None, 32, 32, 3)
    return keras.Model(inputs, layers.Dense(3)(layers.LSTM(3)(EACH(layers.Flatten())(x))))


@pytest.mark.parametrize(
    "build, says, reason",
    [
        (lambda_layer, "its layer 'lambda.*' is a Lambda.*save the model", "it would run code from the file"),
        (one_image, "not an action model; its input is .*, not clips", "an emotion network"),
        (any_length, "fixed length", "nothing says how many frames"),
    ],
)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_cannot_be_used_is_named(tmp_path, build, says, reason, suffix):
    saved(tmp_path, build(), f"action_model{suffix}")
    with pytest.raises(DataError, match=rf"action_model{suffix}: .*{says}"):
        ActionClassifier.load(tmp_path)
        pytest.fail(reason)


def test_a_saved_model_folder_is_named(tmp_path):
    usual().export(tmp_path / "exported", verbose=False)
    with pytest.raises(DataError, match=r"exported: is a .*SavedModel.*save\('model\.h5'\)"):
        ActionClassifier.load(tmp_path / "exported")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"threshold": "0.5"}, "threshold must be a number"),
        ({"threshold": None}, "threshold must be a number"),
        ({"threshold": -1}, "threshold must be a number"),
        ({"threshold": float("nan")}, "NaN is no number"),
        ({"threshold": True}, "threshold must be a number"),
        ({"clip": {"size": 32.0}}, "size must be of type int"),
        ({"clip": {"window_s": "2"}}, "window_s must be of type float"),
        ({"clip": {"window_s": 0}}, "window_s > 0"),
        ({"clip": [4]}, "no valid ClipSpec"),
        ({"scaling": "0..1"}, "scaling must be one of"),
        ({"scaling": 255}, "scaling must be one of"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path, change, says):
    saved(tmp_path, usual())
    (tmp_path / "config.json").write_text(json.dumps(change))
    with pytest.raises(DataError, match=rf"config\.json: .*{says}"):
        ActionClassifier.load(tmp_path)


def test_the_projects_own_model_needs_its_settings(copy_model):
    folder = copy_model("action")
    (folder / "config.json").unlink()
    for path in (folder, folder / "action_model.h5"):
        with pytest.raises(DataError, match=r"config\.json: not found"):
            ActionClassifier.load(path)


def test_labels_with_a_byte_order_mark(tmp_path):
    shutil.copytree(TF_2_13, tmp_path / "model")
    labels = tmp_path / "model" / "labels.json"
    labels.write_bytes(b"\xef\xbb\xbf" + labels.read_bytes())
    assert ActionClassifier.load(tmp_path / "model").labels == LABELS
