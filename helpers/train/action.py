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
from helpers.action.rejection import measure_rejection
from helpers.action.two_stream import (
    ActionClips,
    CrossValidation,
    TwoStreamBatches,
    TwoStreamRecipe,
    choose_threshold,
    clip_features,
    cross_validate,
    read_clips,
    shipped_encoder,
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
        threshold = choose_threshold(scored, head, clips, recipe)
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
                f"Threshold {threshold:.2f}: with it at most 5 % of your clips in `{NONE}/`, if there are any, get any "
                "answer, and at most 5 % of synthetic people who do none of the actions. The first were scored by "
                "networks that never saw their group, the others by the final one, which never saw them.",
                "The held-out clips as the live system shows them, a little too kindly, since the threshold was set on "
                f"them: `{measure_rejection(scored.live, scored.targets, threshold).line()}`.",
            ],
            skipped,
        )
        job.report(outcome, folder, report, options.source)


def _read_videos(samples: list[Sample], recipe: TwoStreamRecipe, skipped: list[Skipped], jobs: int) -> ActionClips:
    """The features of all clips; what cannot be read is named and goes to `skipped`."""
    encoder, start, left_out = shipped_encoder(), time.perf_counter(), len(skipped)
    clip_features(samples[:1], recipe, encoder, recipe.copies, skipped=[])
    minutes = (time.perf_counter() - start) * len(samples) / 60 / jobs
    print(f"\nfeatures of {len(samples)} clips, {recipe.copies} versions each: about {minutes:.1f} minutes", flush=True)
    clips = read_clips(
        samples, recipe, encoder, people=PEOPLE, skipped=skipped, jobs=jobs, progress=partial(tqdm, unit="clip")
    )
    job.name_skipped(skipped[left_out:])
    if len(clips.labels) < 2:
        raise DataError(f"only {len(clips.labels)} class with a readable clip; two are needed")
    return clips


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
