"""An action model from a folder of the user's own videos."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.action.classifier import save_action
from helpers.action.clips import NONE
from helpers.action.encoder import tune_encoder
from helpers.action.features import NO_ACTION, ActionData, clip_features, clip_steps, read_action_data, shipped_encoder
from helpers.action.model import join_action_model
from helpers.action.recipe import ActionRecipe, EncoderRecipe
from helpers.action.rejection import fit_rejection, fit_threshold
from helpers.action.training import cross_validate_action, train_action
from helpers.data.files import VIDEO_SUFFIXES
from helpers.data.folders import Sample, Skipped, list_samples
from helpers.data.splits import honest_folds
from helpers.errors import DataError
from helpers.keras_files import save_keras
from helpers.predictions import Predictions
from helpers.runtime import KerasFunction
from helpers.synthetic.scenes import IDLE
from helpers.train import job

RATES = {"sgd": 0.1, "adam": 0.003, "adagrad": 0.1, "adamw": 0.003}  # each one's best of three (notebook 05)
PEOPLE = 40  # synthetic people who are trained on: doing the actions, if these can be rendered, and standing still
FEW = 300  # clips: below, the pooled head, a third of the rate and more epochs, as for UT-Interaction in notebook 02
STILL = range(2000, 2060)  # synthetic people who stand still, for the threshold


def train(options: argparse.Namespace) -> None:
    """Train as the command line asks. Raises DataError when source or output cannot be used."""
    skipped: list[Skipped] = []
    samples = list_samples(options.source, VIDEO_SUFFIXES, skipped)
    with job.output_folder(options.output, options.source) as (folder, report):
        job.describe(samples, skipped, "clips")
        samples = job.known_groups(samples)
        honest_folds(samples, extra=NONE)  # said before the work
        recipe = _own_recipe(samples, options)
        data = _read_videos(samples, recipe, skipped)
        folds = honest_folds(data.samples, recipe.folds, seed=recipe.seed, extra=NONE)
        work = job.work_folder(folder, data.samples, recipe.as_dict() | {"fine_tune": options.fine_tune})
        views = [data] * len(folds)  # what the network of each fold looks at
        if options.fine_tune:
            views = [
                fine_tuned(data, inside, work / f"encoder{fold}", epochs=recipe.epochs)
                for fold, (inside, _) in enumerate(folds)
            ]
        found = {name: _score(views, _with_optimizer(recipe, name), folds, work / name) for name in options.optimizers}
        chosen = max(found, key=lambda name: found[name][0])
        probabilities = found[chosen][1]
        data = fine_tuned(data, data.samples, work / "encoder", epochs=recipe.epochs) if options.fine_tune else data
        head, _ = train_action(data, _with_optimizer(recipe, chosen), work / chosen / "all")
        threshold = _own_threshold(data, head, probabilities)
        model = join_action_model(data.encoder, head)
        save_action(folder, model, data.labels, spec=data.spec, threshold=threshold)
        save_keras(model, folder / "action_model", (".keras",))
        held_out = [index for index, sample in enumerate(data.samples) if sample.label != NONE]
        outcome = job.Outcome(
            "action",
            Predictions.from_samples([data.samples[i] for i in held_out], data.labels, probabilities[held_out]),
            {name: history for name, (_, _, history) in found.items()},
            {name: accuracy for name, (accuracy, _, _) in found.items()},
            chosen,
            [
                f"{len(folds)} folds by group, {recipe.epochs} epochs of {chosen}; the encoder is the shipped model's"
                f"{', fine-tuned' if options.fine_tune else ''}.",
                *job.doubts(samples),
                f"Threshold {threshold:.2f}: at most 5 % of synthetic people who stand still, and of your clips in "
                f"`{NONE}/` if there are any, are given an action.",
            ],
            skipped,
        )
        job.report(outcome, folder, report, options.source)


def _own_recipe(samples: list[Sample], options: argparse.Namespace) -> ActionRecipe:
    """The shipped model's recipe, for a few dozen clips with the head of the two-person actions; the user's epochs."""
    recipe = ActionRecipe(dataset=Path(options.source).name, synthetic_people=PEOPLE)
    if len(samples) < FEW:
        recipe = replace(recipe, pooled=True, epochs=40)
    return replace(recipe, epochs=options.epochs or recipe.epochs)


def _with_optimizer(recipe: ActionRecipe, name: str) -> ActionRecipe:
    return replace(recipe, optimizer=name, learning_rate=RATES[name] / (3 if recipe.pooled else 1))


def _read_videos(samples: list[Sample], recipe: ActionRecipe, skipped: list[Skipped]) -> ActionData:
    """The features of all clips; what cannot be read is named and goes to `skipped`."""
    encoder = shipped_encoder()
    start, left_out = time.perf_counter(), len(skipped)
    clip_features(samples[:1], recipe.clip, encoder, augmentations=recipe.augmentations, seed=recipe.seed, skipped=[])
    minutes = (time.perf_counter() - start) * len(samples) / 60
    print(
        f"\nfeatures of {len(samples)} clips, {recipe.augmentations} versions each: about {minutes:.1f} minutes",
        flush=True,
    )
    data = read_action_data(samples, recipe, encoder, skipped=skipped, progress=lambda files: tqdm(files, unit="clip"))
    job.name_skipped(skipped[left_out:])
    if len(data.labels) < 2:
        raise DataError(f"only {len(data.labels)} class with a readable clip; two are needed")
    return data


def fine_tuned(data: ActionData, training: list[Sample], work: Path, *, epochs: int) -> ActionData:
    """The same videos, not augmented, through the encoder fine-tuned on these of them and on the synthetic ones."""
    encoder = shipped_encoder()
    everything = [*data.samples, *data.synthetic]
    steps, known = clip_steps(everything, data.spec), {sample.path for sample in [*training, *data.synthetic]}
    chosen = [index for index, sample in enumerate(everything) if sample.path in known]
    print(f"fine-tuning the encoder on {len(chosen)} clips", flush=True)
    tune_encoder(
        encoder,
        EncoderRecipe(clip=data.spec, epochs=min(epochs, EncoderRecipe.epochs)),
        [steps[index] for index in chosen],
        targets=data.targets[chosen],
        classes=len(data.labels),
        work=work,
    )
    run = KerasFunction(encoder)
    return replace(data, features=[[run(clip.astype(np.float32) / 127)] for clip in steps], encoder=encoder)


def _score(views: list[ActionData], recipe: ActionRecipe, folds: list, work: Path) -> tuple[float, np.ndarray, dict]:
    """(accuracy, probabilities, mean history) on held-out groups; views: the data as each fold's network sees them."""
    start, targets = time.perf_counter(), views[0].targets[: len(views[0].samples)]
    parts = [
        cross_validate_action(data, recipe, work / str(fold), folds=[pair], curves=True)
        for fold, (data, pair) in enumerate(zip(views, folds, strict=True))
    ]
    probabilities = sum(found for found, _ in parts)
    accuracy = float((probabilities.argmax(axis=1) == targets)[targets != NO_ACTION].mean())
    seconds = time.perf_counter() - start
    print(f"{recipe.optimizer}: {len(folds)} folds in {seconds:.0f} s, accuracy {accuracy:.3f}", flush=True)
    return accuracy, probabilities, {key: np.mean([h[key] for _, h in parts], axis=0).tolist() for key in parts[0][1]}


def _own_threshold(data: ActionData, head, probabilities: np.ndarray) -> float:
    """At most 5 % false alarms on synthetic people who stand still (when that is no class) and on the user's own
    clips without an action, scored by networks that never saw their group."""
    thresholds = [0.2]
    if IDLE not in data.labels:
        halves = KerasFunction(data.encoder), KerasFunction(head)
        thresholds.append(fit_rejection(*halves, data.spec, rules=[(0.05, (IDLE,))], people=STILL))
    nothing = [row.max() for row, sample in zip(probabilities, data.samples, strict=True) if sample.label == NONE]
    return max(thresholds + ([fit_threshold(np.array(nothing))] if nothing else []))
