"""helpers.runtime: labels, saved models in every format, damaged files. No mocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from helpers import keras_files, model_files, runtime
from helpers.action import classifier as action_classifier
from helpers.action.classifier import ActionClassifier
from helpers.action.clips import ClipSpec
from helpers.data import paths
from helpers.emotion import classifier as emotion_classifier
from helpers.emotion.classifier import EmotionClassifier
from helpers.errors import DataError

FACES = np.random.default_rng(0).normal(size=(5, 48, 48, 1)).astype(np.float32)
CLIP = ClipSpec(length=4, window_s=1.0, size=32)  # of the saved action model
STEPS = np.random.default_rng(1).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "content, expected, reason",
    [
        (["a", "b", "c"], ("a", "b", "c"), "this project's list"),
        ({"0": "a", "1": "b", "2": "c"}, ("a", "b", "c"), "index to name"),
        ({"2": "c", "0": "a", "1": "b"}, ("a", "b", "c"), "in any order"),
        ({str(k): f"c{k}" for k in range(12)}, tuple(f"c{k}" for k in range(12)), "10 comes after 9, not after 1"),
        ({"c": 2, "a": 0, "b": 1}, ("a", "b", "c"), "Keras's class_indices"),
        (["höher", "über"], ("höher", "über"), "not only ASCII"),
    ],
)
def test_labels_in_every_format(tmp_path, content, expected, reason):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    assert model_files.load_labels(path) == expected, reason


@pytest.mark.parametrize(
    "text, reason",
    [
        ('["a", "a"]', "twice the same name"),
        ('{"0": "a", "2": "c"}', "a gap"),
        ('{"1": "a", "2": "b"}', "counted from one"),
        ('{"a": 0, "b": 0}', "two names for one output"),
        ('{"0": "a", "00": "b"}', "one number in two ways"),
        ('{"first": "a"}', "no numbers at all"),
        ('{"0": ["a"]}', "a name that is a list"),
        ("[1, 2]", "numbers only"),
        ("[]", "empty list"),
        ("{}", "empty map"),
        ('"abc"', "a word"),
        ("[a, b", "not JSON"),
        ("", "empty file"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path, text, reason):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"labels\.json: "):
        model_files.load_labels(path)
        pytest.fail(reason)


def test_missing_labels_are_asked_for_by_number_and_order(tmp_path):
    with pytest.raises(DataError, match=r"labels\.json: not found; write the 3 class names .* in the order"):
        model_files.load_labels(tmp_path / "labels.json", 3)


def test_labels_that_are_not_text_are_named(tmp_path):
    (tmp_path / "labels.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(DataError, match=r"labels\.json: not valid JSON"):
        model_files.load_labels(tmp_path / "labels.json")


@pytest.mark.parametrize("kind, load", [("emotion", EmotionClassifier.load), ("action", ActionClassifier.load)])
def test_labels_of_another_model_name_the_file_and_both_numbers(copy_model, kind, load):
    folder = copy_model(kind)
    model_files.save_labels(folder, ("one", "two"))
    outputs = {"emotion": 7, "action": 3}[kind]
    with pytest.raises(DataError, match=rf"labels\.json: 2 labels .* {outputs} outputs"):
        load(folder)


@pytest.mark.parametrize("kind, load", [("emotion", EmotionClassifier.load), ("action", ActionClassifier.load)])
@pytest.mark.parametrize("name", ["labels.json", "config.json"])
def test_a_missing_file_beside_the_model_is_named(copy_model, kind, load, name):
    folder = copy_model(kind)
    (folder / name).unlink()
    if (kind, name) == ("emotion", "config.json"):
        assert load(folder).preprocessor.spec.scaling == "minus_one_to_one"  # taken for a foreign model
    else:
        with pytest.raises(DataError, match=rf"{name}: not found"):
            load(folder)


def test_litert_answers_row_by_row(saved_emotion):
    network = runtime.LiteRT(saved_emotion / "emotion_model.tflite")
    first = network(FACES[:1]).copy()
    np.testing.assert_array_equal(network(FACES)[:1], first)
    np.testing.assert_array_equal(first, network(FACES[:1]), err_msg="no state is left from other rows")


DEPLOYED = [emotion_classifier.DEFAULT_EMOTION, action_classifier.DEFAULT_ACTION]


@pytest.mark.parametrize("folder", DEPLOYED, ids=lambda folder: folder.relative_to(paths.ARTIFACTS).as_posix())
def test_the_committed_models_agree_in_every_format(folder):
    files = [*folder.glob("*_model.keras"), *folder.glob("*_model.h5")]
    one, rng = keras_files.load_keras(files[0]), np.random.default_rng(0)
    inputs = [rng.uniform(-1, 1, (1, *tensor.shape[1:])).astype(np.float32) for tensor in one.inputs]
    whole = inputs if len(inputs) > 1 else inputs[0]
    reference = one(whole, training=False).numpy()
    for file in files[1:]:
        other = keras_files.load_keras(file)(whole, training=False).numpy()
        np.testing.assert_allclose(other, reference, atol=1e-5)
    if (folder / "emotion_model.tflite").is_file():
        litert = runtime.LiteRT(folder / "emotion_model.tflite")(inputs[0])
    else:
        classifier = ActionClassifier.load(folder)
        assert isinstance(classifier.encoder, runtime.LiteRT)
        motion = classifier.encoder(inputs[0][0])
        litert = classifier.head(np.concatenate([motion, *(part[0] for part in inputs[1:])], axis=-1)[None])
    np.testing.assert_allclose(litert, reference, atol=0.03)  # the action encoder's weights are float16
    labels = model_files.load_labels(folder / "labels.json")
    assert reference.shape[1] == len(labels) + (len(inputs) == 2), "two streams know when it is none of these"


def damaged(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    "kind, name",
    [
        ("emotion", "emotion_model.keras"),
        ("emotion", "emotion_model.h5"),
        ("emotion", "emotion_model.tflite"),
        ("action", "action_model.keras"),
        ("action", "action_model.h5"),
        ("action", "action_encoder.tflite"),
        ("action", "action_head.tflite"),
    ],
)
def test_a_truncated_model_is_named(copy_model, kind, name, share):
    folder = copy_model(kind)
    path = damaged(folder / name, share)
    load = EmotionClassifier.load if kind == "emotion" else ActionClassifier.load
    with pytest.raises(DataError, match=rf"{name}: "):
        load(folder if path.suffix == ".tflite" else path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5", "model.tflite"])
def test_text_called_a_model_is_named(tmp_path, name):
    (tmp_path / name).write_text("not a model")
    with pytest.raises(DataError, match=rf"{name}: cannot be read"):
        EmotionClassifier.load(tmp_path / name)


@pytest.mark.parametrize("load", [EmotionClassifier.load, ActionClassifier.load])
def test_a_folder_without_a_model_says_what_belongs_there(tmp_path, load):
    with pytest.raises(DataError, match=r"no model in it; expected (emotion|action)_model\.keras"):
        load(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such model folder or file"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_weights_without_an_architecture_say_so(tmp_path, suffix):
    model = keras.Sequential([keras.Input((48, 48, 1)), layers.Flatten(), layers.Dense(7)])
    path = tmp_path / f"only{suffix}"
    if suffix == ".h5":
        model.save(tmp_path / "whole.h5")
        shutil.copy(tmp_path / "whole.h5", path)
        with h5py.File(path, "r+") as file:  # as Keras 2's save_weights wrote it
            del file.attrs["model_config"]
    else:
        model.save_weights(path)
    with pytest.raises(DataError, match="holds weights but no architecture"):
        keras_files.load_keras(path)


@pytest.mark.parametrize(
    "kind, content, reason",
    [
        ("emotion", {"face": {"size": 64}}, "64 and 48"),
        ("emotion", {"face": {"side": 48}}, "an unknown setting"),
        ("emotion", {"face": {"size": "48"}}, "a number in quotes"),
        ("emotion", ["face"], "a list"),
        ("action", {"clip": {**CLIP.as_dict(), "length": 8}}, "8 steps of 32 pixels but the model takes 4 of 32"),
        ("action", {"clip": {**CLIP.as_dict(), "size": 64}}, "4 steps of 64 pixels but the model takes 4 of 32"),
        ("action", {"clip": {**CLIP.as_dict(), "fps": 25}}, "an unknown setting"),
        ("action", {"clip": {**CLIP.as_dict(), "channels": "depth"}}, "a kind of picture that does not exist"),
        ("action", {}, "no clip settings"),
        ("action", [], "a list"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_named(copy_model, kind, content, reason):
    folder = copy_model(kind)
    (folder / "config.json").write_text(json.dumps(content))
    load = EmotionClassifier.load if kind == "emotion" else ActionClassifier.load
    with pytest.raises(DataError, match=r"config\.json: ") as error:
        load(folder)
    if "model takes" in reason:
        assert reason in str(error.value)


@pytest.mark.parametrize("kind, inputs", [("emotion", FACES), ("action", STEPS[None])])
def test_a_model_that_keras_2_wrote_is_rebuilt(copy_model, as_keras_2, kind, inputs):
    folder = copy_model(kind)
    path = as_keras_2(folder / f"{kind}_model.h5")
    with pytest.raises((TypeError, ValueError)):
        keras.models.load_model(path, compile=False)
    before = path.read_bytes()
    model = keras_files.load_keras(path)
    reference = keras_files.load_keras(folder / f"{kind}_model.keras")(inputs, training=False)
    np.testing.assert_allclose(model(inputs, training=False), reference, atol=1e-6)
    assert path.read_bytes() == before, "the user's file is not touched"


def test_a_damaged_hdf5_file_ends_neither_this_process_nor_its_patience(saved_emotion, tmp_path, monkeypatch):
    """Bytes changed at random, with a fixed seed: every file is read, or named in one sentence."""
    monkeypatch.setattr(keras_files, "_LONGEST_READ_S", 8)
    content, rng = (saved_emotion / "emotion_model.h5").read_bytes(), np.random.default_rng(0)
    named = 0
    for number in range(6):
        damage = bytearray(content)
        for place in rng.integers(0, min(4096, len(content)), 24):
            damage[place] = rng.integers(256)
        path = tmp_path / f"{number}.h5"
        path.write_bytes(damage)
        try:
            keras_files.load_keras(path)
        except DataError as error:
            named += f"{number}.h5: " in str(error) and "\n" not in str(error)
    assert named >= 4
