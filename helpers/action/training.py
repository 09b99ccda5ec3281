"""Training the LSTM on the features of clips, and cross-validating it by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import keras
import numpy as np

from helpers.action.batches import ClipBatches, clip_targets, middle_window
from helpers.action.clips import mean_over_windows
from helpers.action.features import NO_ACTION, ActionData
from helpers.action.model import build_action_head
from helpers.action.recipe import ActionRecipe, FitRecipe
from helpers.data.folders import Sample
from helpers.data.splits import leave_groups_out
from helpers.runtime import KerasFunction
from helpers.training import fit, make_optimizer


def train_clips(
    model: keras.Model,
    recipe: FitRecipe,
    features: list[list[np.ndarray]],
    *,
    targets: np.ndarray,
    work: Path,
    validation: tuple[list[list[np.ndarray]], np.ndarray] | None = None,
    stride: int = 1,
    augment: Callable | None = None,
) -> dict[str, list[float]]:
    """Train a head on features, or an encoder and head on time steps, for the recipe's epochs; the history.

    targets: int (videos,), NO_ACTION where none of the classes is shown. features, stride, augment: see `ClipBatches`.
    validation: features and targets of other groups, for the curves only; nothing is chosen on them.
    work: checkpoints; a training that was killed goes on from them.
    """
    classes, length = model.output_shape[-1], model.input_shape[1]
    rows, weights = clip_targets(targets, classes, recipe.class_weight_cap)
    batches = ClipBatches(
        features, rows, weights, length=length, batch=recipe.batch, seed=recipe.seed, stride=stride, augment=augment
    )
    model.compile(
        make_optimizer(recipe.optimizer, recipe.learning_rate, len(batches) * recipe.epochs),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    if validation is not None:
        middle = [middle_window(versions[0], length) for versions in validation[0]]
        validation = np.stack(middle).astype(np.float32), np.eye(classes, dtype=np.float32)[validation[1]]
    return fit(model, batches, validation, epochs=recipe.epochs, work=work, seed=recipe.seed, keep_best=False)


def train_action(
    data: ActionData,
    recipe: ActionRecipe,
    work: Path,
    *,
    training: Sequence[int] | None = None,
    validation: Sequence[int] | None = None,
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train an LSTM head on the real videos with the indices `training` (default: all) and all synthetic ones.

    validation: indices of real videos for the curves, see `train_clips`. Returns (head, history).
    """
    keras.utils.set_random_seed(recipe.seed)
    head = build_action_head(
        len(data.labels),
        data.spec.length,
        features=data.features[0][0].shape[-1],
        units=recipe.units,
        dropout=recipe.dropout,
        pooled=recipe.pooled,
    )
    real = range(len(data.samples)) if training is None else training
    chosen = [*real, *range(len(data.samples), len(data.targets))]
    held_out = None if validation is None else ([data.features[i] for i in validation], data.targets[list(validation)])
    history = train_clips(
        head,
        recipe,
        [data.features[i] for i in chosen],
        targets=data.targets[chosen],
        work=work,
        validation=held_out,
    )
    trained = keras.Model.from_config(head.get_config())  # not compiled: it is saved without the optimizer's state
    trained.set_weights(head.get_weights())
    return trained, history


def video_probabilities(classify: Callable, data: ActionData, indices: Sequence[int]) -> np.ndarray:
    """float32 (videos, classes): answers to the un-augmented videos with these indices."""
    return np.stack([mean_over_windows(classify, data.features[index][0], data.spec) for index in indices])


def cross_validate_action(
    data: ActionData,
    recipe: ActionRecipe,
    work: Path,
    *,
    folds: Iterable[tuple[list[Sample], list[Sample]]] | None = None,
    curves: bool = False,
) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Score each real video once by a head that never saw its group; (probabilities, mean history).

    folds: pairs (train, test); by default the recipe's number, by group. curves: the history has validation, too.
    probabilities: float32 (videos, classes), the mean over a video's windows. The history is the mean over the folds;
    `seconds` is their sum. A fold that is finished is not trained again after a kill.
    """
    place = {sample.path: index for index, sample in enumerate(data.samples)}
    probabilities = np.zeros((len(data.samples), len(data.labels)), np.float32)
    histories, targets = [], data.targets
    count = min(recipe.folds, len({sample.group for sample in data.samples}))
    for fold, parts in enumerate(folds or leave_groups_out(data.samples, count, recipe.seed)):
        inside, outside = ([place[sample.path] for sample in part] for part in parts)
        shown = [index for index in outside if targets[index] != NO_ACTION] if curves else None
        head, history = train_action(data, recipe, work / str(fold), training=inside, validation=shown)
        probabilities[outside] = video_probabilities(KerasFunction(head), data, outside)
        histories.append(history)
    mean = {key: np.mean([history[key] for history in histories], axis=0).tolist() for key in histories[0]}
    return probabilities, {**mean, "seconds": np.sum([history["seconds"] for history in histories], axis=0).tolist()}
