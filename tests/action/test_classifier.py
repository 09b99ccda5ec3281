"""helpers.action.classifier: every format gives the same answer."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from helpers import keras_files
from helpers.action.classifier import ActionClassifier
from helpers.action.clips import ClipSpec
from helpers.errors import DataError

ACTIONS = ("bend", "jump", "walk")


CLIP = ClipSpec(length=4, window_s=1.0, size=32)


STEPS = np.random.default_rng(1).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "names",
    [("action_encoder.tflite", "action_head.tflite"), ("action_model.keras",), ("action_model.h5",)],
    ids=lambda names: names[0],
)
def test_every_action_file_gives_the_same_answer(copy_model, saved_action, names):
    whole = keras_files.load_keras(saved_action / "action_model.keras")(STEPS[None], training=False).numpy()
    classifier = ActionClassifier.load(copy_model("action", "labels.json", "config.json", *names))
    features = classifier.encode(STEPS)
    np.testing.assert_allclose(classifier.classify(features[None]), whole, atol=1e-3)
    assert features.shape == (4, 8) and classifier.labels == ACTIONS
    assert classifier.spec == CLIP and classifier.threshold == 0.6
    assert classifier.encode(STEPS[:0]).shape == (0, 8)


def test_an_emotion_model_is_no_action_model(copy_model, saved_emotion):
    folder = copy_model("action", "labels.json", "config.json")
    shutil.copy(saved_emotion / "emotion_model.keras", folder / "action_model.keras")
    with pytest.raises(DataError, match=r"action_model\.keras: not an action model"):
        ActionClassifier.load(folder)
