"""Faces of the user's to an emotion model: what is there, crops, training, report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.data.duplicates import duplicate_pixels, group_by_pixels
from helpers.data.files import IMAGE_SUFFIXES
from helpers.data.folders import Sample, Skipped, class_folders, list_samples
from helpers.data.splits import split_groups
from helpers.emotion.classifier import EmotionClassifier
from helpers.emotion.data import FaceData
from helpers.emotion.faces import FaceFinder, FacePreprocessor, are_photographs, crop_samples
from helpers.emotion.training import EmotionRecipe, save_trained, train_emotion
from helpers.errors import DataError
from helpers.predictions import Predictions
from helpers.train import job

RATES = {"adamw": 1e-3, "adam": 1e-3, "sgd": 1e-2, "adagrad": 1e-2}  # learning rates (at the peak) that suit each
_MANY = 5000  # faces from which on a network is trained from scratch, for as long as FER-2013's
_TEST_SHARE = 0.2  # of the faces, where the data have no test part


@dataclass(frozen=True)
class Crops:
    """Faces cut out of images. images uint8 (N, size, size) gray; samples: where each comes from, with its group."""

    images: np.ndarray
    samples: list[Sample]

    def of(self, samples: Sequence[Sample]) -> Crops:
        place = {sample.path: index for index, sample in enumerate(self.samples)}
        chosen = [place[sample.path] for sample in samples]
        return Crops(self.images[chosen], [self.samples[index] for index in chosen])


def train(options: argparse.Namespace) -> None:
    """Train as the command line asks: 40 epochs by default, as many as for FER-2013 for 5,000 faces and more.

    source: train/ and test/ of class folders, or class folders alone. The optimizers are compared by validation
    accuracy. A file that cannot be used is named and passed over. Raises DataError.
    """
    skipped: list[Skipped] = []
    parts = _list_parts(options.source, skipped)
    with job.output_folder(options.output, options.source) as (folder, report):
        everything = [sample for part in parts.values() for sample in part]
        job.describe(everything, skipped, "images")
        detect, named = are_photographs(everything), len(skipped)
        print("whole photographs: the largest face of each is used" if detect else "faces that are already cut out")
        crops = {name: _crop(part, detect, skipped, options.jobs) for name, part in parts.items()}
        job.name_skipped(skipped[named:])
        train, validation, test = _split(crops)
        few = len(train.samples) < _MANY
        data, recipe = _face_data(train, validation), _recipe(few, options.epochs)
        counts = [len(part.samples) for part in (train, validation, test)]
        known = _known_in_test([*train.samples, *validation.samples], test.samples)
        print("{} faces to train on, {} to choose by, {} to score".format(*counts))
        print("".join(f"WARNING: {sentence.replace('**', '')}\n" for sentence in known), end="", flush=True)
        work = job.work_folder(folder, [*train.samples, *validation.samples], recipe.as_dict())
        found = {}
        for name in options.optimizers:
            print(f"{name}: {recipe.epochs} epochs (stopped or killed, the same line goes on where it was)", flush=True)
            optimizer = replace(recipe.optimizer, name=name, rate=RATES[name])
            found[name] = train_emotion(replace(recipe, optimizer=optimizer), data, work / name, from_shipped=few)
        accuracies = {name: max(history["val_accuracy"]) for name, (_, history) in found.items()}
        chosen = max(accuracies, key=accuracies.__getitem__)
        save_trained(found[chosen][0], recipe, data, folder=folder)
        classifier = EmotionClassifier.load(folder, strict=True)
        answers = classifier.predict(classifier.preprocessor.normalise(test.images))
        outcome = job.Outcome(
            "emotion",
            Predictions.from_samples(test.samples, classifier.labels, answers),
            {name: history for name, (_, history) in found.items()},
            accuracies,
            chosen,
            [
                f"{recipe.epochs} epochs of {chosen}, "
                + ("the shipped network's features kept, its last layer trained." if few else "from scratch."),
                "Answers assume that all classes are equally likely.",
                *job.doubts(train.samples),
                *known,
            ],
            skipped,
            scored="files that the network was not trained on",
            closing="Use it. The second line scores "
            + (
                "test/ alone:" if "test" in parts else "all files, those trained on, too; use others for a true figure:"
            ),
            evaluate_options=("--detect",) if detect else (),
            chosen_on="validation",
        )
        job.report(outcome, folder, report, options.source)


def _list_parts(source: Path | str, skipped: list[Skipped]) -> dict[str, list[Sample]]:
    """{"train": ..., "test": ...} where the data are split, else {"all": ...}."""
    root = class_folders(source)
    inner = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    if "train" not in inner:
        return {"all": list_samples(root, IMAGE_SUFFIXES, skipped)}
    names = [name for name in ("train", "test") if name in inner]
    parts = {name: list_samples(inner[name], IMAGE_SUFFIXES, skipped) for name in names}
    unknown = {sample.label for sample in parts.get("test", [])} - {sample.label for sample in parts["train"]}
    if unknown:
        raise DataError(f"{source}: test/ has classes that train/ has not: {', '.join(sorted(unknown))}")
    return parts


def _crop(samples: list[Sample], detect: bool, skipped: list[Skipped], jobs: int) -> Crops:
    progress = partial(tqdm, desc="cutting out faces", unit="image", disable=None)  # None: only in a terminal
    how = {"detect": detect, "skipped": skipped, "jobs": jobs, "progress": progress}
    return Crops(*crop_samples(samples, FacePreprocessor(), FaceFinder(), **how))


def _split(crops: dict[str, Crops]) -> tuple[Crops, Crops, Crops]:
    """(train, validation, test); copies of an image and files of one group stay together."""
    everything = crops.get("all") or crops["train"]
    if not everything.samples:
        raise DataError("no face could be used; the reasons are above")
    everything = replace(everything, samples=job.known_groups(everything.samples))
    inside = _joined_groups(everything.samples)
    if "test" in crops and crops["test"].samples:
        test = crops["test"]
    else:
        inside, held_out = split_groups(inside, _TEST_SHARE, seed=1)
        test = everything.of(held_out)
    fit, validation = _split_to_choose(inside)
    return everything.of(fit), everything.of(validation), test


def _split_to_choose(inside: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """(train, validation) by group; by image where the groups are too few, since these figures only choose an epoch."""
    share = EmotionRecipe.validation_fraction
    try:
        return split_groups(inside, share, seed=1)
    except DataError:
        alone = group_by_pixels(inside)
    for label in sorted({sample.label for sample in alone}):
        if len({sample.group for sample in alone if sample.label == label}) < 2:
            raise DataError(
                f"class {label!r}: only one face is left to train on and to choose an epoch by; add faces of it, of "
                "several people"
            )
    print("too few groups for a third part: the faces to choose by show people (groups) of those to train on")
    return split_groups(alone, share, seed=1)


def _known_in_test(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """What the report says when test/ is not new to the network: the same people (groups), the same images."""
    groups = [{one.group for one in part if job.has_group(one)} for part in (train, test)]
    shared, copies = len(groups[0] & groups[1]), len(duplicate_pixels(train, test))
    found = [f"{shared} of the {len(groups[1])} people (groups) in test/ are in train/, too"] if shared else []
    found += [f"{copies} of the {len(test)} images in test/ are in train/, too"] if copies else []
    return [f"**{'; '.join(found)}.** New people will score lower."] if found else []


def _joined_groups(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with groups such that neither a group nor copies of an image are separated."""
    group_of: dict[str, str] = {}  # of a name or an image, the group that it was joined to

    def root(key: str) -> str:
        while group_of.setdefault(key, key) != key:
            key = group_of[key]
        return key

    keys = [(one.group, other.group) for one, other in zip(samples, group_by_pixels(samples), strict=True)]
    for one, other in keys:
        group_of[root(other)] = root(one)
    return [replace(sample, group=root(group)) for sample, (group, _) in zip(samples, keys, strict=True)]


def _recipe(few: bool, epochs: int | None) -> EmotionRecipe:
    recipe = EmotionRecipe(vote_share=0.0)
    if few:
        recipe = replace(recipe, epochs=40, batch=32, class_weight_cap=10.0)  # all classes weigh the same in sum
    return replace(recipe, epochs=epochs or recipe.epochs)


def _face_data(train: Crops, validation: Crops) -> FaceData:
    labels = tuple(sorted({sample.label for sample in train.samples}))
    targets, held_out = (
        np.array([labels.index(sample.label) for sample in part.samples]) for part in (train, validation)
    )
    one_hot = np.eye(len(labels), dtype=np.float32)[targets]
    votes = np.zeros((len(targets), 10), int)
    return FaceData(labels, train.images, targets, one_hot, votes, validation.images, held_out)
