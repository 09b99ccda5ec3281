"""helpers.action.training: an LSTM learns, and is scored on people that it never saw."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from helpers.action import training as action_training
from helpers.action.clips import ClipSpec, mean_over_windows, video_steps, windows
from helpers.action.features import ActionData
from helpers.action.recipe import ActionRecipe, EncoderRecipe
from helpers.data.folders import list_samples
from helpers.runtime import KerasFunction
from helpers.synthetic.samples import write_action_samples

ACTIONS = ("bend", "jumping_jack", "wave_one_hand")
RECIPE = ActionRecipe(
    clip=ClipSpec(length=12, size=32),
    optimizer="adam",
    learning_rate=0.01,
    epochs=20,
    batch=6,
    units=24,
    dropout=0.2,
    folds=3,
)


def small(step: np.ndarray) -> np.ndarray:
    """float32 (180,): change and the four directions of a flow step, 6x6 pixels each."""
    right, down, change = np.moveaxis(step, 2, 0)
    parts = [cv2.resize(np.maximum(part, 0), (6, 6)) for part in (change + 1, right, -right, down, -down)]
    return np.concatenate(parts).ravel()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ActionData:
    """Six synthetic people doing three actions."""
    samples = list_samples(write_action_samples(tmp_path_factory.mktemp("clips"), range(6), ACTIONS, size=(72, 96)))
    features = [[np.stack([small(step) for step in video_steps(sample.path, RECIPE.clip)])] for sample in samples]
    return ActionData(ACTIONS, RECIPE.clip, samples, [], features, None)


def test_a_videos_answer_is_the_mean_over_its_windows():
    spec, steps = ClipSpec(length=4, size=32), np.random.default_rng(0).random((7, 5), np.float32)

    def classify(clips):
        return clips.mean(axis=1)[:, :2]

    answer = mean_over_windows(classify, steps, spec)
    np.testing.assert_allclose(answer, classify(windows(steps, spec)).mean(axis=0), rtol=1e-6)
    assert answer.shape == (2,)


def test_an_action_head_learns_synthetic_actions(data, tmp_path):
    head, history = action_training.train_action(data, RECIPE, tmp_path, validation=range(6))
    assert len(history["val_accuracy"]) == 20 and history["loss"][-1] < 0.7 * history["loss"][0]
    answers = action_training.video_probabilities(KerasFunction(head), data, range(18))
    accuracy = float((answers.argmax(axis=1) == data.targets).mean())
    assert accuracy > 0.6, f"chance is 0.33, this is {accuracy:.2f}"


def test_each_video_is_scored_by_a_head_that_never_saw_its_group(data, tmp_path, monkeypatch):
    seen = []
    train = action_training.train_action

    def remember(data, recipe, work, training, validation):
        seen.append({data.samples[index].group for index in training})
        return train(data, recipe, work, training=training, validation=validation)

    monkeypatch.setattr(action_training, "train_action", remember)
    probabilities, history = action_training.cross_validate_action(data, replace(RECIPE, epochs=2), tmp_path)
    groups = {sample.group for sample in data.samples}
    assert len(seen) == 3 and all(len(groups - inside) == 2 for inside in seen)
    assert set.union(*(groups - inside for inside in seen)) == groups, "every group is outside once"
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert len(history["loss"]) == 2


@pytest.mark.parametrize("recipe", [RECIPE, ActionRecipe(rejection=((0.1, ("hug", "kick")),)), EncoderRecipe(people=3)])
def test_a_recipe_survives_its_record(recipe):
    import json

    record = json.loads(json.dumps(recipe.as_dict()))
    assert record == recipe.as_dict() and type(recipe).from_dict(record) == recipe
    with pytest.raises(TypeError, match="copies"):
        type(recipe).from_dict({**record, "copies": 4})
