"""What decides a trained action network: typed recipes, recorded beside each model as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from helpers.action.clips import ClipSpec
from helpers.synthetic.scenes import COUPLE_ACTIONS, IDLE


@dataclass(frozen=True)
class FitRecipe:
    """How an LSTM on clips is built and fitted, whatever lies below it.

    optimizer: see `training.make_optimizer`. learning_rate: at its peak. units, dropout: of the LSTM head.
    pooled: see `build_action_head`. label_smoothing: share of a target spread over all classes.
    class_weight_cap: see `training.capped_class_weights`.
    """

    clip: ClipSpec = field(default_factory=ClipSpec)
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    epochs: int = 15
    batch: int = 32
    units: int = 96
    dropout: float = 0.5
    pooled: bool = False
    label_smoothing: float = 0.1
    class_weight_cap: float = 3.0
    seed: int = 1

    def as_dict(self) -> dict:
        """The recipe in JSON types, as it is recorded and compared."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict):
        """The recipe that `as_dict` recorded. Raises TypeError on a key that no recipe has."""
        values = {key: _as_tuples(value) for key, value in values.items()}
        return cls(**{**values, "clip": ClipSpec(**values["clip"])})


def _as_tuples(value):
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class EncoderRecipe(FitRecipe):
    """MobileNetV2 fine-tuned on synthetic people (`train_encoder`); the defaults are the shipped encoder's.

    people: how many. stride: every how many time steps one is taken.
    head_rate, head_epochs: of the head that learns alone before the encoder learns with it.
    """

    people: int = 240
    stride: int = 2
    head_rate: float = 3e-3
    head_epochs: int = 8
    learning_rate: float = 3e-4
    epochs: int = 8
    batch: int = 8


@dataclass(frozen=True)
class ActionRecipe(FitRecipe):
    """An LSTM on the features of real and synthetic clips; the defaults are those of the shipped everyday model.

    dataset: a name that `find_dataset` knows. encoder: a model's folder below artifacts/action/, or "imagenet".
    augmentations: versions of each real video, the first of which is the video itself.
    synthetic_people: how many are trained on, doing the set's actions, where these can be rendered, or standing still.
    folds: of the cross-validation by group. rejection: pairs (share of clips that may be given an action, what people
        do in them), see `fit_rejection`.
    """

    dataset: str = "everyday"
    encoder: str = "everyday"
    augmentations: int = 4
    synthetic_people: int = 240
    folds: int = 5
    rejection: tuple[tuple[float, tuple[str, ...]], ...] = ((0.05, (IDLE,)), (0.1, COUPLE_ACTIONS))
