"""From videos to the features that the LSTM learns from: each frame through the encoder once, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from helpers.action.clips import NO_AUGMENTATION, NONE, Augmentation, ClipSpec, video_steps
from helpers.action.model import build_backbone, split_action_model
from helpers.action.recipe import ActionRecipe
from helpers.data.cache import cached_array, content_key, weights_key
from helpers.data.folders import Sample, Skipped, list_samples
from helpers.data.paths import ARTIFACTS, data_root, find_dataset
from helpers.errors import DataError
from helpers.keras_files import load_keras
from helpers.runtime import KerasFunction
from helpers.synthetic.samples import cached_action_samples
from helpers.synthetic.scenes import ACTIONS, IDLE
from helpers.training import profile

NO_ACTION = -1  # the target of a clip that shows none of the classes


def draw_augmentations(count: int, seed: int) -> list[Augmentation]:
    """`count` augmentations, the first of which changes nothing."""
    rng = np.random.default_rng(seed)
    return [NO_AUGMENTATION, *(Augmentation.draw(rng) for _ in range(count - 1))]


def clip_features(
    samples: list[Sample],
    spec: ClipSpec,
    encoder: keras.Model,
    *,
    augmentations: int = 1,
    seed: int = 0,
    skipped: list[Skipped] | None = None,
    progress: Callable = iter,
) -> tuple[list[list[np.ndarray]], list[Sample]]:
    """Per sample and augmentation float16 (steps, features), and the samples that could be read.

    Cached on disk by the video's content, the clip's specification, the augmentation and the encoder's weights. A video
    that cannot be read is appended to `skipped`; without that list its DataError is raised.
    progress: wraps the iterable of samples, as tqdm does.
    """
    key, function = weights_key(encoder), KerasFunction(encoder)
    features, used = [], []
    for index, sample in enumerate(progress(samples)):
        draws = draw_augmentations(augmentations, seed * 100_003 + index)
        try:
            content = content_key([sample])
            features.append(
                [
                    _cached_features(content, _step_spec(spec), draw, key, path=sample.path, function=function)
                    for draw in draws
                ]
            )
            used.append(sample)
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(Skipped(sample.path, str(error)))
    return features, used


def _step_spec(spec: ClipSpec) -> dict:
    """What a single time step depends on: windows of other lengths share their steps."""
    return replace(spec, length=1, window_s=spec.step_s).as_dict()


@cached_array(ignore=("path", "function"))
def _cached_features(
    content: str, spec: dict, augmentation: Augmentation, weights: str, *, path: Path, function: KerasFunction
) -> np.ndarray:
    return function(video_steps(path, ClipSpec(**spec), augmentation), batch=16).astype(np.float16)


def clip_steps(samples: list[Sample], spec: ClipSpec) -> list[np.ndarray]:
    """Per video the time steps as int8 (steps, size, size, 3), 127 for 1.0: what an encoder is trained on, cached."""
    return [_cached_steps(content_key([sample]), _step_spec(spec), sample.path) for sample in samples]


@cached_array(ignore=("path",))
def _cached_steps(content: str, spec: dict, path: Path) -> np.ndarray:
    return np.round(127 * video_steps(path, ClipSpec(**spec))).astype(np.int8)


def synthetic_clips(people: range, actions: tuple[str, ...]) -> list[Sample]:
    """Clips of synthetic people (the seeds in `people`), rendered once and kept below .cache/."""
    folder = cached_action_samples(people, actions, size=(120, 160))
    return [sample for sample in list_samples(folder) if sample.label in actions]


@dataclass(frozen=True)
class ActionData:
    """Videos as their features, real ones first, then synthetic ones; and the encoder that gave them.

    features: per video a list of augmented versions float16 (steps, 1280), the first un-augmented.
    """

    labels: tuple[str, ...]
    spec: ClipSpec
    samples: list[Sample]
    synthetic: list[Sample]
    features: list[list[np.ndarray]]
    encoder: keras.Model

    @property
    def targets(self) -> np.ndarray:
        """int (videos,); NO_ACTION for real clips in a folder `none` and for synthetic people who only stand there."""
        known = {label: index for index, label in enumerate(self.labels)}
        return np.array([known.get(sample.label, NO_ACTION) for sample in [*self.samples, *self.synthetic]])


def read_action_data(
    real: list[Sample],
    recipe: ActionRecipe,
    encoder: keras.Model,
    *,
    people: range | None = None,
    skipped: list[Skipped] | None = None,
    progress: Callable = iter,
) -> ActionData:
    """Real videos and those of synthetic people through the encoder (cached on disk).

    Synthetic people (default: the recipe's) do the real videos' actions, where all of these can be rendered, and stand
    still; there are many, so they are not augmented. Unreadable videos go to `skipped`, see `clip_features`.
    """
    features, used = clip_features(
        real,
        recipe.clip,
        encoder,
        augmentations=recipe.augmentations,
        seed=recipe.seed,
        skipped=skipped,
        progress=progress,
    )
    labels = tuple(sorted({sample.label for sample in used} - {NONE}))
    people = range(recipe.synthetic_people) if people is None else people
    actions = (*labels, IDLE) if set(labels) <= set(ACTIONS) else (IDLE,)
    synthetic, synthetic_features = synthetic_clips(people, actions) if people else [], []
    if synthetic:
        synthetic_features, synthetic = clip_features(synthetic, recipe.clip, encoder, progress=progress)
    return ActionData(labels, recipe.clip, used, synthetic, features + synthetic_features, encoder)


def action_data(recipe: ActionRecipe, encoder: keras.Model | None = None) -> ActionData:
    """The recipe's data set and synthetic people through `encoder` (default: the one that the recipe names).

    In the smoke profile two synthetic people doing four actions stand in for everything. A video that cannot be read is
    named and left out. Raises DataError when the data set is not there.
    """
    smoke, skipped = profile() == "smoke", []
    source = None if smoke else find_dataset(recipe.dataset)
    if smoke:
        source = cached_action_samples(range(2), ACTIONS[:4], size=(96, 128))
        recipe = replace(recipe, augmentations=1)
    elif source is None:
        raise DataError(f"data set {recipe.dataset!r} is not in {data_root()}; data/README.md says how to get it")
    data = read_action_data(
        list_samples(source),
        recipe,
        load_encoder(recipe.encoder, recipe.clip.size) if encoder is None else encoder,
        people=range(1000, 1002) if smoke and recipe.synthetic_people else None,
        skipped=skipped,
    )
    for item in skipped:
        print(f"skipped {item.path.name}: {item.reason}")
    return data


def load_encoder(name: str, size: int) -> keras.Model:
    """The encoder of the model in artifacts/action/<name>/, or MobileNetV2 as ImageNet left it ("imagenet").

    size: side of its images in pixels. In the smoke profile it is a random one. Raises DataError when the model is
    missing or takes another size.
    """
    if profile() == "smoke" or name == "imagenet":
        return build_backbone(size, None if profile() == "smoke" else "imagenet")
    encoder = shipped_encoder(name)
    if encoder.input_shape[1] != size:
        raise DataError(f"the encoder of {name} takes {encoder.input_shape[1]} pixels, the clips have {size}")
    return encoder


def shipped_encoder(name: str = "everyday") -> keras.Model:
    """The encoder of the model in artifacts/action/<name>/, in every profile."""
    encoder, _ = split_action_model(load_keras(ARTIFACTS / "action" / name / "action_model.h5"))
    return encoder
