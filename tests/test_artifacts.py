"""helpers.artifacts: labels, saved models in every format, foreign and damaged files, the manifest. No mocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from helpers import runtime
from helpers.action import classifier as action_classifier
from helpers.action import model as action_model
from helpers.action.classifier import ActionClassifier
from helpers.action.clips import ClipSpec
from helpers.data import paths
from helpers.emotion import classifier as emotion_classifier
from helpers.emotion import model as emotion_model
from helpers.emotion.classifier import EmotionClassifier
from helpers.emotion.faces import FaceSpec
from helpers.errors import DataError
from tools import manifest

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
ACTIONS = ("bend", "jump", "walk")
CLIP = ClipSpec(length=4, window_s=1.0, size=32)
FACES = np.random.default_rng(0).normal(size=(5, 48, 48, 1)).astype(np.float32)
STEPS = np.random.default_rng(1).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)


def tiny_backbone() -> keras.Model:
    """What MobileNetV2 is made of, once: convolution, depthwise convolution, batch normalisation; partly frozen, as
    after fine-tuning, because .h5 files store frozen weights apart."""
    picture = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=4, use_bias=False)(picture)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, use_bias=False)(layers.ReLU(6.0)(x))
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(8, 1, use_bias=False)(x)
    model = keras.Model(picture, layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x)))
    for number, layer in enumerate(model.layers):
        layer.trainable = number > 3 and not isinstance(layer, layers.BatchNormalization)
    return model


def shake(model: keras.Model) -> keras.Model:
    """Every weight different from its start value, so that a mixed-up order shows."""
    rng = np.random.default_rng(7)
    model.set_weights(
        [
            rng.uniform(0.2, 1.0, w.shape).astype(np.float32) * np.sign(rng.normal(size=w.shape) + 1.5)
            if w.ndim == 1
            else w + rng.normal(0, 0.05, w.shape)
            for w in model.get_weights()
        ]
    )
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, layers.TimeDistributed) else layer
        for part in getattr(inner, "layers", [inner]):
            if isinstance(part, layers.BatchNormalization):
                part.moving_variance.assign(np.abs(part.moving_variance) + 0.1)
    return model


@pytest.fixture(scope="module")
def emotion(tmp_path_factory) -> Path:
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("emotion")
    emotion_classifier.save_emotion(
        folder, shake(emotion_model.build_mini_xception(7, 48, 4, (8,))), EMOTIONS, FaceSpec()
    )
    return folder


@pytest.fixture(scope="module")
def action(tmp_path_factory) -> Path:
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("action")
    model = action_model.join_action_model(
        tiny_backbone(), action_model.build_action_head(3, 4, features=8, units=4, pooled=True)
    )
    action_classifier.save_action(folder, shake(model), ACTIONS, CLIP, threshold=0.6)
    return folder


@pytest.fixture
def copy(tmp_path, emotion, action):
    """copy(kind, *names): those files of a saved model in a folder of their own."""

    def make(kind: str, *names: str) -> Path:
        source = {"emotion": emotion, "action": action}[kind]
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        for path in source.iterdir():
            if not names or path.name in names:
                shutil.copy(path, folder)
        return folder

    return make


# --------------------------------------------------------------------------------------------------- labels


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
    assert runtime.load_labels(path) == expected, reason


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
        runtime.load_labels(path)
        pytest.fail(reason)


def test_labels_that_are_not_text_are_named(tmp_path):
    (tmp_path / "labels.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(DataError, match=r"labels\.json: not valid JSON"):
        runtime.load_labels(tmp_path / "labels.json")


@pytest.mark.parametrize("kind, load", [("emotion", EmotionClassifier.load), ("action", ActionClassifier.load)])
def test_labels_of_another_model_name_the_file_and_both_numbers(copy, kind, load):
    folder = copy(kind)
    runtime.save_labels(folder, ("one", "two"))
    outputs = {"emotion": 7, "action": 3}[kind]
    with pytest.raises(DataError, match=rf"labels\.json: 2 labels .* {outputs} outputs"):
        load(folder)


@pytest.mark.parametrize("kind, load", [("emotion", EmotionClassifier.load), ("action", ActionClassifier.load)])
@pytest.mark.parametrize("name", ["labels.json", "config.json"])
def test_a_missing_file_beside_the_model_is_named(copy, kind, load, name):
    folder = copy(kind)
    (folder / name).unlink()
    if (kind, name) == ("emotion", "config.json"):
        assert load(folder).preprocessor.spec.scaling == "minus_one_to_one"  # taken for a foreign model
    else:
        with pytest.raises(DataError, match=rf"{name}: not found"):
            load(folder)


# --------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("name", ["emotion_model.keras", "emotion_model.h5", "emotion_model.tflite"])
def test_every_emotion_file_gives_the_same_answer(emotion, name):
    reference = runtime.load_keras(emotion / "emotion_model.keras")(FACES, training=False).numpy()
    classifier = EmotionClassifier.load(emotion / name)
    out = classifier.predict(FACES)
    np.testing.assert_allclose(out, reference, atol=1e-3)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)
    assert out.dtype == np.float32 and classifier.labels == EMOTIONS and classifier.preprocessor.spec == FaceSpec()
    assert classifier.predict(FACES[:0]).shape == (0, 7)


@pytest.mark.parametrize(
    "names",
    [("action_encoder.tflite", "action_head.tflite"), ("action_model.keras",), ("action_model.h5",)],
    ids=lambda names: names[0],
)
def test_every_action_file_gives_the_same_answer(copy, action, names):
    whole = runtime.load_keras(action / "action_model.keras")(STEPS[None], training=False).numpy()
    classifier = ActionClassifier.load(copy("action", "labels.json", "config.json", *names))
    features = classifier.encode(STEPS)
    np.testing.assert_allclose(classifier.classify(features[None]), whole, atol=1e-3)
    assert features.shape == (4, 8) and classifier.labels == ACTIONS
    assert classifier.spec == CLIP and classifier.threshold == 0.6
    assert classifier.encode(STEPS[:0]).shape == (0, 8)


def test_litert_answers_row_by_row(emotion):
    network = runtime.LiteRT(emotion / "emotion_model.tflite")
    first = network(FACES[:1]).copy()
    np.testing.assert_array_equal(network(FACES)[:1], first)
    np.testing.assert_array_equal(first, network(FACES[:1]), err_msg="no state is left from other rows")


DEPLOYED = [emotion_classifier.DEFAULT_EMOTION, action_classifier.DEFAULT_ACTION]


@pytest.mark.parametrize("folder", DEPLOYED, ids=lambda folder: folder.relative_to(paths.ARTIFACTS).as_posix())
def test_the_committed_models_agree_in_every_format(folder):
    files = sorted([*folder.glob("*_model.keras"), *folder.glob("*_model.h5")])
    assert len(files) == 2
    one, other = (runtime.load_keras(file) for file in files)
    inputs = np.random.default_rng(0).uniform(-1, 1, (1, *one.input_shape[1:])).astype(np.float32)
    reference = one(inputs, training=False).numpy()
    np.testing.assert_allclose(other(inputs, training=False).numpy(), reference, atol=1e-5)
    if (folder / "emotion_model.tflite").is_file():
        litert = runtime.LiteRT(folder / "emotion_model.tflite")(inputs)
    else:
        classifier = ActionClassifier.load(folder)
        assert isinstance(classifier.encoder, runtime.LiteRT)
        litert = classifier.classify(classifier.encode(inputs[0])[None])
    np.testing.assert_allclose(litert, reference, atol=1e-3)
    assert reference.shape[1] == len(runtime.load_labels(folder / "labels.json"))


# --------------------------------------------------------------------------------------------------- damage


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
def test_a_truncated_model_is_named(copy, kind, name, share):
    folder = copy(kind)
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
        runtime.load_keras(path)


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
def test_settings_that_do_not_fit_the_model_are_named(copy, kind, content, reason):
    folder = copy(kind)
    (folder / "config.json").write_text(json.dumps(content))
    load = EmotionClassifier.load if kind == "emotion" else ActionClassifier.load
    with pytest.raises(DataError, match=r"config\.json: ") as error:
        load(folder)
    if "model takes" in reason:
        assert reason in str(error.value)


def test_an_emotion_model_is_no_action_model(copy, emotion):
    folder = copy("action", "labels.json", "config.json")
    shutil.copy(emotion / "emotion_model.keras", folder / "action_model.keras")
    with pytest.raises(DataError, match=r"action_model\.keras: has no MobileNetV2"):
        ActionClassifier.load(folder)


def test_an_action_model_is_no_emotion_model(action):
    with pytest.raises(DataError, match=r"action_model\.keras: not a face model"):
        EmotionClassifier.load(action / "action_model.keras")


# --------------------------------------------------------------------------------------------------- Keras 2, foreign

KERAS_2 = {  # what Keras 2 wrote into the configuration of a layer and Keras 3 refuses
    "SeparableConv2D": {
        "groups": 1,
        "kernel_initializer": {"class_name": "VarianceScaling", "config": {}},
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
        "kernel_constraint": None,
    },
    "DepthwiseConv2D": {"groups": 1},
    "LSTM": {"time_major": False},
}


def as_keras_2(path: Path) -> Path:
    """Change the architecture in an .h5 file to what Keras 2 would have written."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        _add(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


def _add(node) -> None:
    if isinstance(node, dict):
        if node.get("class_name") in KERAS_2:
            node["config"].update(KERAS_2[node["class_name"]])
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            _add(item)


@pytest.mark.parametrize("kind, inputs", [("emotion", FACES), ("action", STEPS[None])])
def test_a_model_that_keras_2_wrote_is_rebuilt(copy, kind, inputs):
    folder = copy(kind)
    path = as_keras_2(folder / f"{kind}_model.h5")
    with pytest.raises((TypeError, ValueError)):
        keras.models.load_model(path, compile=False)
    before = path.read_bytes()
    model = runtime.load_keras(path)
    reference = runtime.load_keras(folder / f"{kind}_model.keras")(inputs, training=False)
    np.testing.assert_allclose(model(inputs, training=False), reference, atol=1e-6)
    assert path.read_bytes() == before, "the user's file is not touched"


def foreign_model(side: int | None, channels: int, classes: int = 7) -> keras.Model:
    face = keras.Input((side, side, channels))
    x = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(8, 3, activation="relu")(face))
    return keras.Model(face, layers.Dense(classes, activation="softmax")(x))


@pytest.mark.parametrize(
    "side, channels, size, reason",
    [
        (64, 1, 64, "the original Mini-Xception release"),
        (48, 1, 48, "most others"),
        (48, 3, 48, "a network made for colour gets the gray image three times"),
        (None, 1, 48, "a network for any side gets FER-2013's own"),
    ],
)
@pytest.mark.parametrize("old", [False, True], ids=["Keras 3", "Keras 2"])
def test_a_foreign_fer_model_works_as_it_is(tmp_path, side, channels, size, reason, old):
    model, path = foreign_model(side, channels), tmp_path / "fer2013_model.hdf5"
    model.save(tmp_path / "model.h5")
    (tmp_path / "model.h5").rename(path)
    if old:
        as_keras_2(path)
    for source in (path, tmp_path):
        classifier = EmotionClassifier.load(source)
        assert classifier.labels == emotion_classifier.FER_ORDER, reason
        assert classifier.preprocessor.spec == FaceSpec(size=size, clahe=False, scaling="minus_one_to_one"), reason
    crops = np.random.default_rng(0).integers(0, 256, (2, size, size), np.uint8)
    expected = model(np.repeat(crops[..., None] / 127.5 - 1, channels, axis=-1).astype(np.float32)).numpy()
    np.testing.assert_allclose(classifier.predict(classifier.preprocessor.normalise(crops)), expected, atol=1e-5)


def test_a_foreign_model_with_other_classes_needs_labels(tmp_path):
    foreign_model(48, 1, classes=5).save(tmp_path / "model.keras")
    with pytest.raises(DataError, match=r"labels\.json: not found"):
        EmotionClassifier.load(tmp_path)
    runtime.save_labels(tmp_path, tuple("abcde"))
    assert EmotionClassifier.load(tmp_path).labels == tuple("abcde")


# --------------------------------------------------------------------------------------------------- temperature


@pytest.mark.parametrize("temperature", [0.5, 1.7, 3.0])
def test_temperature_changes_confidence_never_the_answer(copy, temperature):
    plain = EmotionClassifier.load(copy("emotion")).predict(FACES)
    config = {"face": FaceSpec().as_dict(), "temperature": temperature}
    folder = copy("emotion")
    (folder / "config.json").write_text(json.dumps(config))
    scaled = EmotionClassifier.load(folder).predict(FACES)
    np.testing.assert_array_equal(scaled.argmax(axis=1), plain.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-5)
    assert ((scaled.max(axis=1) < plain.max(axis=1)) == (temperature > 1)).all()
    np.testing.assert_allclose(np.diff(np.log(scaled)), np.diff(np.log(plain)) / temperature, atol=1e-3)


# --------------------------------------------------------------------------------------------------- mixture of classes


def test_another_mixture_weighs_the_answers_by_hand():
    """Half and half where one class was three times as frequent: 0.6 : 0.4 becomes 0.2 : 0.4."""
    answers = np.array([[0.6, 0.4], [0.75, 0.25]])
    even = emotion_classifier.correct_prior(answers, 1 / np.array([0.75, 0.25]))
    np.testing.assert_allclose(even, [[1 / 3, 2 / 3], [0.5, 0.5]])
    np.testing.assert_allclose(emotion_classifier.correct_prior(even, np.array([0.75, 0.25])), answers)


def test_a_classifier_with_frequencies_answers_for_an_even_mixture(copy):
    """In whichever order config.json names the classes; calibrated first, then weighed."""
    plain = EmotionClassifier.load(copy("emotion")).predict(FACES)
    shares = dict(zip(EMOTIONS, (0.14, 0.02, 0.14, 0.25, 0.17, 0.17, 0.11)))
    folder = copy("emotion")
    settings = {
        "face": FaceSpec().as_dict(),
        "temperature": 0.5,
        "frequencies": dict(sorted(shares.items(), reverse=True)),
    }
    (folder / "config.json").write_text(json.dumps(settings))
    even = EmotionClassifier.load(folder).predict(FACES)
    expected = plain.astype(float) ** 2 / np.array(list(shares.values()))
    np.testing.assert_allclose(even, expected / expected.sum(axis=1, keepdims=True), rtol=1e-3)
    assert even.dtype == np.float32


@pytest.mark.parametrize(
    "shares",
    [
        [0.1] * 7,
        {"angry": 1.0},
        dict.fromkeys(EMOTIONS, 0),
        dict.fromkeys(EMOTIONS, "0.1"),
        dict.fromkeys((*EMOTIONS, "bored"), 0.1),
        dict.fromkeys(EMOTIONS, float("nan")),
    ],
)
def test_frequencies_that_cannot_be_are_named(copy, shares):
    folder = copy("emotion")
    (folder / "config.json").write_text(json.dumps({"face": FaceSpec().as_dict(), "frequencies": shares}))
    with pytest.raises(DataError, match=r"config\.json: frequencies must give each of .*surprise a share above 0"):
        EmotionClassifier.load(folder)


def test_the_saved_frequencies_come_back(tmp_path):
    shares = dict(zip(EMOTIONS, (0.14, 0.02, 0.14, 0.25, 0.17, 0.17, 0.11)))
    emotion_classifier.save_emotion(
        tmp_path, emotion_model.build_mini_xception(7, 48, 4, (8,)), EMOTIONS, FaceSpec(), 0.9, shares
    )
    assert EmotionClassifier.load(tmp_path).frequencies == tuple(shares.values())


# --------------------------------------------------------------------------------------------------- manifest


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """An artifacts folder of its own with its manifest."""
    monkeypatch.setattr(manifest, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(manifest, "MANIFEST", tmp_path / "manifest.json")
    (tmp_path / "action" / "a").mkdir(parents=True)
    (tmp_path / "action" / "a" / "labels.json").write_text("[]")
    (tmp_path / "README.md").write_text("about")
    manifest.write_manifest()
    return tmp_path


def test_the_manifest_lists_every_file_once(tree):
    assert sorted(json.loads((tree / "manifest.json").read_text())) == ["README.md", "action/a/labels.json"]
    assert manifest.check_manifest() == []


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda tree: (tree / "README.md").write_text("changed"), ["README.md: changed"]),
        (lambda tree: (tree / "README.md").unlink(), ["README.md: missing"]),
        (lambda tree: (tree / "action" / "new.npz").write_bytes(b"x"), ["action/new.npz: not in the manifest"]),
        (lambda tree: (tree / ".DS_Store").write_bytes(b"x"), []),
        (lambda tree: shutil.rmtree(tree / "action"), ["action/a/labels.json: missing"]),
    ],
    ids=["changed", "missing", "extra", "hidden", "folder gone"],
)
def test_what_differs_from_the_manifest_is_told(tree, change, expected):
    change(tree)
    assert manifest.check_manifest() == expected


@pytest.mark.skipif(not manifest.MANIFEST.is_file(), reason="artifacts/manifest.json is not written yet")
def test_the_committed_artifacts_are_those_of_the_manifest():
    assert manifest.check_manifest() == []
