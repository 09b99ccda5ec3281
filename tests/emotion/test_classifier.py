"""helpers.emotion.classifier: every format, foreign models, temperature, class prior."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers

from helpers import keras_files, model_files, runtime
from helpers.emotion import classifier as emotion_classifier
from helpers.emotion.classifier import EmotionClassifier
from helpers.emotion.faces import FaceSpec
from helpers.emotion.model import NetworkSpec, build_mini_xception
from helpers.errors import DataError

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


FACES = np.random.default_rng(0).normal(size=(5, 48, 48, 1)).astype(np.float32)


@pytest.mark.parametrize("name", ["emotion_model.keras", "emotion_model.h5", "emotion_model.tflite"])
def test_every_emotion_file_gives_the_same_answer(saved_emotion, name):
    reference = keras_files.load_keras(saved_emotion / "emotion_model.keras")(FACES, training=False).numpy()
    classifier = EmotionClassifier.load(saved_emotion / name)
    out = classifier.predict(FACES)
    np.testing.assert_allclose(out, reference, atol=1e-3)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)
    assert out.dtype == np.float32 and classifier.labels == EMOTIONS and classifier.preprocessor.spec == FaceSpec()
    assert classifier.predict(FACES[:0]).shape == (0, 7)


def test_an_action_model_is_no_emotion_model(saved_action):
    with pytest.raises(DataError, match=r"action_model\.keras: not a face model"):
        EmotionClassifier.load(saved_action / "action_model.keras")


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
def test_a_foreign_fer_model_works_as_it_is(tmp_path, as_keras_2, side, channels, size, reason, old):
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
    model_files.save_labels(tmp_path, tuple("abcde"))
    assert EmotionClassifier.load(tmp_path).labels == tuple("abcde")


@pytest.mark.parametrize("temperature", [0.5, 1.7, 3.0])
def test_temperature_changes_confidence_never_the_answer(copy_model, temperature):
    plain = EmotionClassifier.load(copy_model("emotion")).predict(FACES)
    config = {"face": FaceSpec().as_dict(), "temperature": temperature}
    folder = copy_model("emotion")
    (folder / "config.json").write_text(json.dumps(config))
    scaled = EmotionClassifier.load(folder).predict(FACES)
    np.testing.assert_array_equal(scaled.argmax(axis=1), plain.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-5)
    assert ((scaled.max(axis=1) < plain.max(axis=1)) == (temperature > 1)).all()
    np.testing.assert_allclose(np.diff(np.log(scaled)), np.diff(np.log(plain)) / temperature, atol=1e-3)


def test_another_class_prior_weighs_the_answers_by_hand():
    """Half and half where one class was three times as frequent: 0.6 : 0.4 becomes 0.2 : 0.4."""
    answers = np.array([[0.6, 0.4], [0.75, 0.25]])
    even = emotion_classifier.correct_prior(answers, 1 / np.array([0.75, 0.25]))
    np.testing.assert_allclose(even, [[1 / 3, 2 / 3], [0.5, 0.5]])
    np.testing.assert_allclose(emotion_classifier.correct_prior(even, np.array([0.75, 0.25])), answers)


def test_a_classifier_with_a_class_prior_answers_for_a_uniform_one(copy_model):
    """In whichever order config.json names the classes; calibrated first, then weighed."""
    plain = EmotionClassifier.load(copy_model("emotion")).predict(FACES)
    shares = dict(zip(EMOTIONS, (0.14, 0.02, 0.14, 0.25, 0.17, 0.17, 0.11), strict=True))
    folder = copy_model("emotion")
    settings = {
        "face": FaceSpec().as_dict(),
        "temperature": 0.5,
        "class_prior": dict(sorted(shares.items(), reverse=True)),
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
    ],
)
def test_a_class_prior_that_cannot_be_is_named(copy_model, shares):
    folder = copy_model("emotion")
    (folder / "config.json").write_text(json.dumps({"face": FaceSpec().as_dict(), "class_prior": shares}))
    with pytest.raises(DataError, match=r"config\.json: class_prior must give each of .*surprise a share above 0"):
        EmotionClassifier.load(folder)


def test_the_saved_class_prior_comes_back(tmp_path):
    shares = dict(zip(EMOTIONS, (0.14, 0.02, 0.14, 0.25, 0.17, 0.17, 0.11), strict=True))
    model = build_mini_xception(7, 48, NetworkSpec(4, (8,), middle=0))
    emotion_classifier.save_emotion(tmp_path, model, EMOTIONS, spec=FaceSpec(), temperature=0.9, class_prior=shares)
    assert EmotionClassifier.load(tmp_path).class_prior == tuple(shares.values())


# --------------------------------------------------------------------------------------------------- made elsewhere


def last_layer(kind: str) -> keras.Model:
    """48 pixels, gray, five outputs: softmax, logits by a linear layer, logits out of a pooling, sigmoids."""
    face = keras.Input((48, 48, 1))
    x = layers.Conv2D(5, 3, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=1))(face)
    if kind == "pooled logits":
        return keras.Model(face, layers.GlobalAveragePooling2D()(x))
    x = layers.GlobalMaxPooling2D()(x)
    activation = {"probabilities": "softmax", "logits": None, "scores": "sigmoid"}[kind]
    return keras.Model(face, layers.Dense(5, activation=activation, kernel_initializer="identity")(x))


@pytest.mark.parametrize("suffix", [".h5", ".tflite"])
@pytest.mark.parametrize(
    "kind, outputs",
    [("probabilities", "probabilities"), ("logits", "logits"), ("pooled logits", "logits"), ("scores", "scores")],
)
def test_whatever_the_last_layer_gives_becomes_probabilities(tmp_path, kind, outputs, suffix):
    model = last_layer(kind)
    model_files.save_labels(tmp_path, tuple("abcde"))
    if suffix == ".h5":
        model.save(tmp_path / "emotion_model.h5")
    else:
        runtime.export_litert(model, tmp_path / "emotion_model.tflite")
    classifier, raw = EmotionClassifier.load(tmp_path), model(FACES, training=False).numpy()
    expected = {"logits": np.exp, "probabilities": np.asarray, "scores": np.asarray}[outputs](raw)
    assert classifier.outputs == outputs
    answers = classifier.predict(FACES)
    np.testing.assert_allclose(answers, expected / expected.sum(axis=1, keepdims=True), atol=1e-4)
    assert answers.min() >= 0 and answers.max() <= 1


@pytest.mark.parametrize(
    "own_layer, face, scaling, told",
    [
        (None, None, "minus_one_to_one", True),
        (None, {"scaling": "zero_to_one"}, "zero_to_one", False),
        (layers.Rescaling(1 / 255), None, "pixels", False),
        (keras.Sequential([layers.Rescaling(1 / 255)]), None, "pixels", False),
        (layers.Rescaling(2.0), {"scaling": "zero_to_one", "size": 40}, "zero_to_one", False),
    ],
    ids=["assumed", "config.json", "own layer", "own layer, nested", "config.json goes before"],
)
def test_scaling_is_the_models_own_or_config_jsons(tmp_path, capsys, own_layer, face, scaling, told):
    image = keras.Input((40, 40, 3))
    x = layers.GlobalAveragePooling2D()(own_layer(image) if own_layer is not None else image)
    keras.Model(image, layers.Dense(2, activation="softmax")(x)).save(tmp_path / "model.keras")
    (tmp_path / "labels.json").write_text('{"0": "sad", "1": "happy"}')
    if face:
        (tmp_path / "config.json").write_text(json.dumps({"face": face}))
    spec = EmotionClassifier.load(tmp_path).preprocessor.spec
    assert (spec.size, spec.scaling, spec.clahe) == (40, scaling, False)
    assert ("zero_to_one" in capsys.readouterr().err) is told


def test_seven_outputs_without_names_are_told_and_not_scored(tmp_path, capsys):
    foreign_model(48, 1).save(tmp_path / "model.keras")
    assert EmotionClassifier.load(tmp_path).labels == emotion_classifier.FER_ORDER
    told = capsys.readouterr().err
    assert "angry, disgust, fear, happy, sad, surprise, neutral" in told and "labels.json" in told
    with pytest.raises(DataError, match=r"labels\.json: missing.*alphabetical"):
        EmotionClassifier.load(tmp_path, strict=True)
    for content in (list(EMOTIONS), dict(enumerate(EMOTIONS)), {name: k for k, name in enumerate(EMOTIONS)}):
        (tmp_path / "labels.json").write_text(json.dumps(content))
        assert EmotionClassifier.load(tmp_path, strict=True).labels == EMOTIONS


def test_face_settings_that_are_no_map_are_named(copy_model):
    folder = copy_model("emotion")
    (folder / "config.json").write_text('{"face": "zero_to_one"}')
    with pytest.raises(DataError, match=r'config\.json: "face" must be a map'):
        EmotionClassifier.load(folder)
