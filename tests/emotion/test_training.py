"""helpers.emotion.training: the recipe, batches of faces, calibration, and a network that learns."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from helpers.emotion import training as emotion_training
from helpers.emotion.augmentation import NO_AUGMENTATION, FaceAugmentation
from helpers.emotion.classifier import EmotionClassifier
from helpers.emotion.data import FaceData
from helpers.emotion.faces import FacePreprocessor, FaceSpec
from helpers.emotion.model import NetworkSpec
from helpers.emotion.training import EmotionRecipe, FaceBatches, OptimizerSpec
from helpers.synthetic import faces as synthetic_faces
from helpers.synthetic.faces import EXPRESSIONS

CROPS = np.random.default_rng(0).integers(0, 256, (10, 48, 48)).astype(np.uint8)
SMALL = EmotionRecipe(  # learns in seconds, on any processor
    face=FaceSpec(size=32),
    network=NetworkSpec(stem=8, widths=(16, 32), middle=0, dropout=0.0),
    augmentation=replace(FaceAugmentation(), noise=0, blur=0, mixup_alpha=0),
    optimizer=OptimizerSpec("adam", 0.005),
    batch=7,
    epochs=1,
    vote_share=0.0,
    seed=0,
)


# --------------------------------------------------------------------------------------------------- recipe


def test_a_recipe_has_twelve_fields_and_survives_json():
    recipe = EmotionRecipe(network=NetworkSpec(widths=(8, 16)), seed=3)
    assert len(fields(recipe)) <= 12
    config = {"dataset": "mine", **json.loads(json.dumps(recipe.as_dict()))}
    assert EmotionRecipe.from_dict(config) == recipe
    assert all(f"    {item.name}:" in EmotionRecipe.__doc__ for item in fields(recipe)), "each says why"


def test_a_recipe_with_an_unknown_setting_is_refused():
    config = EmotionRecipe().as_dict()
    config["augmentation"]["stretch"] = 0.2
    with pytest.raises(TypeError, match="stretch"):
        EmotionRecipe.from_dict(config)


# --------------------------------------------------------------------------------------------------- batches


def face_batches(augmentation=NO_AUGMENTATION, weights=None) -> FaceBatches:
    targets = np.eye(3, dtype=np.float32)[np.arange(10) % 3]
    return FaceBatches(CROPS, targets, FacePreprocessor(), augmentation=augmentation, batch=4, seed=1, weights=weights)


def test_an_epoch_shows_every_face_once_in_another_order():
    batches, everything, orders = face_batches(), FacePreprocessor().normalise(CROPS), []
    for _ in range(2):
        parts = [batches[index] for index in range(len(batches))]
        assert [len(part[0]) for part in parts] == [4, 4, 2]
        images = np.concatenate([part[0] for part in parts])
        orders.append([int(np.abs(everything - image).sum(axis=(1, 2, 3)).argmin()) for image in images])
        labels = np.concatenate([part[1] for part in parts]).argmax(axis=1)
        np.testing.assert_array_equal(labels, np.array(orders[-1]) % 3)
        batches.on_epoch_end()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]


def test_batches_repeat_with_their_seed_and_change_with_the_epoch():
    one, two = face_batches(FaceAugmentation()), face_batches(FaceAugmentation())
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_array_equal(a, b)
    first = one[0][0]
    one.on_epoch_end()
    assert not np.array_equal(first, one[0][0])


def test_many_threads_make_the_same_batches():
    """Where there are many cores, several threads ask for batches at once."""
    one_by_one, together = face_batches(FaceAugmentation()), face_batches(FaceAugmentation())
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(together.__getitem__, [0, 1, 2] * 8))
    for index, part in enumerate(parts):
        for a, b in zip(part, one_by_one[index % 3], strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_carry_each_samples_weight():
    batches = face_batches(replace(NO_AUGMENTATION, mixup_alpha=0.3), np.array([1, 2, 4], np.float32))
    images, targets, weights = batches[0]
    assert images.shape == (4, 48, 48, 1) and images.dtype == targets.dtype == np.float32
    np.testing.assert_allclose(weights, targets @ [1, 2, 4], rtol=1e-6)


# --------------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("sharper, reason", [(2.0, "twice too sure"), (1.0, "calibrated"), (0.5, "too shy")])
def test_the_temperature_undoes_what_was_done_to_calibrated_answers(sharper, reason):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 3))
    calibrated = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (rng.random((20_000, 1)) > calibrated.cumsum(axis=1)).sum(axis=1)  # drawn as the answers say
    spoilt = calibrated**sharper / (calibrated**sharper).sum(axis=1, keepdims=True)
    assert emotion_training.fit_temperature(spoilt, targets) == pytest.approx(sharper, rel=0.06), reason


def test_a_handful_of_faces_fits_no_temperature():
    assert emotion_training.fit_temperature(np.full((3, 2), 0.5), np.array([0, 1, 0])) == 1.0


# --------------------------------------------------------------------------------------------------- learning


def synthetic_data(people: int, labels=EXPRESSIONS) -> FaceData:
    """Faces of 32 pixels, the first person's for validation, too."""
    faces = [synthetic_faces.render_expression(label, seed) for seed in range(people) for label in labels]
    crops = np.stack([cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA) for face in faces])
    targets, n = np.arange(len(crops)) % len(labels), len(labels)
    one_hot = np.eye(n, dtype=np.float32)[targets]
    return FaceData(tuple(labels), crops, targets, one_hot, np.zeros((len(crops), 10), int), crops[:n], targets[:n])


@pytest.mark.training
def test_mini_xception_learns_synthetic_expressions(tmp_path):
    """Accuracy as training reports it, on augmented faces: so short a training leaves the moving averages of batch
    normalisation behind, which inference needs."""
    _, history = emotion_training.train_emotion(replace(SMALL, epochs=20), synthetic_data(6), tmp_path)
    assert np.mean(history["loss"][-3:]) < 0.8 * history["loss"][0]
    assert np.mean(history["accuracy"][-5:]) > 0.3, f"chance is 0.14: {history['accuracy']}"


@pytest.mark.training
def test_what_was_trained_is_loaded_with_its_labels_and_its_prior(tmp_path):
    """Three classes of other names, one twice as frequent: the answers assume that all are equally likely."""
    data = synthetic_data(4, ("happy", "neutral", "sad", "happy"))
    data = replace(data, labels=("joy", "calm", "grief"), targets=data.targets % 3, validation_targets=np.arange(4) % 3)
    data = replace(data, soft_targets=np.eye(3, dtype=np.float32)[data.targets])
    history = emotion_training.train_classifier(SMALL, data, tmp_path)
    classifier = EmotionClassifier.load(tmp_path)
    assert classifier.labels == data.labels and classifier.temperature == 1.0 and len(history["loss"]) == 1
    assert classifier.preprocessor.spec == SMALL.face
    shares = np.bincount(data.targets) / len(data.targets)  # (0.5, 0.25, 0.25): weights 2 : 3 : 3, since 1 is the cap
    seen = shares * np.minimum(1 / (3 * shares), SMALL.class_weight_cap)
    np.testing.assert_allclose(classifier.class_prior, seen / seen.sum(), atol=1e-6)
    inputs = classifier.preprocessor.normalise(data.crops)
    expected = classifier.network(inputs) / np.array(classifier.class_prior)
    np.testing.assert_allclose(classifier.predict(inputs), expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)
