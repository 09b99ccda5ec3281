"""An action model from a folder of the user's own videos: the deployed network, trained on them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.action.classifier import save_action
from helpers.action.clips import NONE, ClipSpec
from helpers.action.encoder import EncoderRecipe, tune_encoder
from helpers.action.model import join_action_model
from helpers.action.person import person_steps
from helpers.action.pose import PoseEstimator, open_estimator
from helpers.action.rejection import Rejection, measure_rejection
from helpers.action.two_stream import (
    HELD_OUT,
    ActionClips,
    CrossValidation,
    TwoStreamBatches,
    TwoStreamRecipe,
    actions_of,
    choose_threshold,
    clip_features,
    cross_validate,
    read_clips,
    shipped_encoder,
    synthetic_actions,
    synthetic_none,
    train_head,
)
from helpers.data.cache import cached_array, content_key
from helpers.data.files import VIDEO_SUFFIXES
from helpers.data.folders import Sample, Skipped, list_samples
from helpers.data.splits import honest_folds
from helpers.data.videos import read_frames
from helpers.errors import DataError
from helpers.keras_files import save_keras
from helpers.runtime import KerasFunction
from helpers.train import job

RATES = {"sgd": 0.03, "adam": 0.001, "adagrad": 0.1, "adamw": 0.003}  # each one's best of three (notebook 05)
PEOPLE = range(24)  # synthetic people who are trained on
STEPS = 400  # batches of a training: a few clips are shown in more epochs
FOLDS = 5
ENOUGH_NONE = 20  # clips: of fewer, not one may get an answer if at most 5 % may


def train(options: argparse.Namespace) -> None:
    """Train as the command line asks. Raises DataError when source or output cannot be used."""
    skipped: list[Skipped] = []
    samples = list_samples(options.source, VIDEO_SUFFIXES, skipped)
    with job.output_folder(options.output, options.source) as (folder, report):
        job.describe(samples, skipped, "clips")
        samples = job.known_groups(samples)
        honest_folds(samples, extra=NONE)  # said before the work
        recipe = TwoStreamRecipe(datasets=(Path(options.source).name,), batch=32)
        clips = _read_videos(samples, recipe, skipped, options.jobs)
        recipe = replace(recipe, epochs=options.epochs or _epochs(clips, recipe))
        folds = honest_folds(clips.real, FOLDS, seed=recipe.seed, extra=NONE)
        work = job.work_folder(folder, clips.real, recipe.as_dict())
        tune = partial(fine_tuned, clips, recipe, work) if options.fine_tune else None
        found = {
            name: _score(clips, _with_optimizer(recipe, name), folds, work / name, tune) for name in options.optimizers
        }
        accuracies = {name: float(scored.predictions().correct.mean()) for name, (scored, _) in found.items()}
        chosen = max(accuracies, key=accuracies.get)
        scored, everything = found[chosen][0], np.arange(len(clips.features))
        if options.fine_tune:
            clips = tune(len(folds), everything)
        head, _ = train_head(clips, everything, _with_optimizer(recipe, chosen), work=work / chosen / "all")
        threshold = choose_threshold(scored, head, clips, recipe, progress=_bar("people for the threshold"))
        model = join_action_model(clips.encoder, head)
        save_action(folder, model, clips.labels, spec=recipe.clip, threshold=threshold)
        save_keras(model, folder / "action_model", (".keras",))
        scored.save(folder)
        outcome = job.Outcome(
            "action",
            scored.predictions(),
            {name: history for name, (_, history) in found.items()},
            accuracies,
            chosen,
            [
                f"{len(folds)} folds by group, {recipe.epochs} epochs of {chosen}; the encoder is the shipped model's"
                f"{', fine-tuned' if options.fine_tune else ''}.",
                *job.doubts(samples),
                f"The threshold is the smallest with which at most 5 % of your clips in `{NONE}/`, if there are any, "
                "get any answer, and at most 5 % of synthetic people who do none of the actions. The first were scored "
                "by networks that never saw their group, the others by the final one, which never saw them. Since it "
                "was set on them, what is said of it above is a little too kind.",
            ],
            skipped,
            figures=live_figures(threshold, measure_rejection(scored.live, scored.targets, threshold)),
        )
        job.report(outcome, folder, report, options.source)


def _read_videos(samples: list[Sample], recipe: TwoStreamRecipe, skipped: list[Skipped], jobs: int) -> ActionClips:
    """The features of all clips; what cannot be read is named and goes to `skipped`."""
    encoder, left_out = shipped_encoder(), len(skipped)
    labels = actions_of(samples)
    drawn = len(PEOPLE) * len(synthetic_actions(labels)) + len(HELD_OUT) * len(synthetic_none(labels))
    clip_features(samples[:1], recipe, encoder, 1, skipped=[])  # what takes long only once
    start = time.perf_counter()
    clip_features(samples[-1:], recipe, encoder, recipe.copies, skipped=[])
    minutes = (time.perf_counter() - start) * (len(samples) + drawn / recipe.copies) / 60 / jobs
    print(
        f"\nfeatures of your {len(samples)} clips, {recipe.copies} versions each, and of {drawn} clips of synthetic "
        f"people, who show the same\nactions or none of them: about {minutes:.1f} min; what is there from another "
        "training is not made again",
        flush=True,
    )
    bars = iter(map(_bar, ("your clips", "synthetic people")))
    clips = read_clips(
        samples,
        recipe,
        encoder,
        people=PEOPLE,
        skipped=skipped,
        jobs=jobs,
        progress=lambda files: next(bars)(files),
    )
    job.name_skipped(skipped[left_out:])
    if len(clips.labels) < 2:
        raise DataError(f"only {len(clips.labels)} class with a readable clip; two are needed")
    return clips


def _bar(what: str) -> Callable:
    return partial(tqdm, desc=what, unit="clip")


def live_figures(threshold: float, found: Rejection) -> list[str]:
    """What the live system shows with this threshold, in words, and what to do where that is little or unsure."""
    shown = f"{found.answered:.0%} of the {found.actions} held-out clips of an action get an answer"
    if found.answered:
        shown += f", {found.right:.0%} of these the right one"
    lines = [f"live, with the threshold {threshold:.2f}: {shown}"]
    if found.negatives:
        lines.append(f"{found.false_alarms:.0%} of the {found.negatives} clips in {NONE}/ get one")
    if found.negatives < ENOUGH_NONE:
        lines.append(
            f"{found.negatives or 'no'} clips in {NONE}/: add some of people who do none of the actions, "
            f"{ENOUGH_NONE} or more; until then the threshold is a guess"
        )
    if found.answered < 0.5:
        lines.append(
            "WARNING: most actions stay without an answer. Add clips, or write a smaller threshold into config.json"
        )
    return lines


def _epochs(clips: ActionClips, recipe: TwoStreamRecipe) -> int:
    batches = len(TwoStreamBatches(clips, np.arange(len(clips.features)), recipe))
    return max(recipe.epochs, round(STEPS / batches))


def _with_optimizer(recipe: TwoStreamRecipe, name: str) -> TwoStreamRecipe:
    return replace(recipe, optimizer=name, learning_rate=RATES[name])


def fine_tuned(clips: ActionClips, recipe: TwoStreamRecipe, work: Path, fold: int, chosen: np.ndarray) -> ActionClips:
    """The same videos, not augmented, through the shipped encoder fine-tuned on those with the numbers `chosen`."""
    encoder, estimator = shipped_encoder(), open_estimator()
    images = [
        _images(content_key([sample]), recipe.clip, estimator is not None, path=sample.path, estimator=estimator)
        for sample in (*clips.real, *clips.synthetic)
    ]
    print(f"fine-tuning the encoder on {len(chosen)} clips", flush=True)
    tune_encoder(
        encoder,
        EncoderRecipe(clip=recipe.clip, epochs=min(recipe.epochs, EncoderRecipe.epochs)),
        [images[number] for number in chosen],
        targets=clips.targets[chosen],
        work=work / f"encoder{fold}",
    )
    run = KerasFunction(encoder)
    motion = (run(video.astype(np.float32) / 127) for video in images)
    features = [[replace(copies[0], motion=steps)] for copies, steps in zip(clips.features, motion, strict=True)]
    return replace(clips, features=features, encoder=encoder)


@cached_array(ignore=("path", "estimator"))
def _images(content: str, spec: ClipSpec, pose: bool, *, path: Path, estimator: PoseEstimator | None) -> np.ndarray:
    images, _ = person_steps(read_frames(path), spec, estimator)
    return np.round(127 * images).astype(np.int8)


def _score(
    clips: ActionClips, recipe: TwoStreamRecipe, folds: list, work: Path, tune: Callable | None
) -> tuple[CrossValidation, dict]:
    """(answers to held-out groups, mean history)."""
    start = time.perf_counter()
    scored, history = cross_validate(clips, recipe, work, folds, tune)
    seconds, accuracy = time.perf_counter() - start, scored.predictions().correct.mean()
    print(f"{recipe.optimizer}: {len(folds)} folds in {seconds:.0f} s, accuracy {accuracy:.3f}", flush=True)
    return scored, history
