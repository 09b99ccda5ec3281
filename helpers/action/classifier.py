"""The deployed action model: features of a window to class probabilities."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.action.clips import ClipSpec
from helpers.data.paths import ARTIFACTS
from helpers.errors import DataError
from helpers.keras_files import load_keras, save_keras
from helpers.model_files import checked_settings, load_labels, locate_model, read_config, save_labels
from helpers.runtime import KerasFunction, LiteRT, export_litert

DEFAULT_ACTION = ARTIFACTS / "action" / "everyday"


@dataclass(frozen=True)
class ActionClassifier:
    """An action model in its two halves, with its labels and what its clips are.

    threshold: smallest confidence at which an action is shown.
    """

    labels: tuple[str, ...]
    spec: ClipSpec
    encoder: LiteRT | KerasFunction
    head: LiteRT | KerasFunction
    threshold: float = 0.5

    @classmethod
    def load(cls, path: Path | str = DEFAULT_ACTION) -> ActionClassifier:
        """From a folder that `save_action` wrote, or one with only a joined .keras or .h5 model. Raises DataError."""
        folder, file = locate_model(path, "action_encoder", "action_model")
        config = read_config(folder / "config.json")
        encoder, head = _action_halves(folder, file)
        labels = load_labels(folder / "labels.json", head.output_shape[-1])
        spec = checked_settings(folder / "config.json", ClipSpec, config.get("clip"))
        if encoder.input_shape[1] != spec.size or head.input_shape[1] != spec.length:
            raise DataError(
                f"{folder / 'config.json'}: says {spec.length} steps of {spec.size} pixels but the model takes "
                f"{head.input_shape[1]} of {encoder.input_shape[1]}; use the file saved with this model"
            )
        return cls(labels, spec, encoder, head, config.get("threshold", 0.5))

    def encode(self, steps: np.ndarray) -> np.ndarray:
        """float32 (N, features) from time steps float32 (N, size, size, 3) in [-1, 1]; each step on its own."""
        return self.encoder(steps)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """float32 (N, classes), rows sum to 1, from the features of clips (N, length, features)."""
        return self.head(features)


def _action_halves(folder: Path, file: Path):
    if file.suffix == ".tflite":
        return LiteRT(file), LiteRT(folder / "action_head.tflite")
    from helpers.action.model import split_action_model

    try:
        return tuple(KerasFunction(half) for half in split_action_model(load_keras(file)))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{file}: has no TimeDistributed encoder and LSTM head as `join_action_model` builds them"
        ) from error


def save_action(folder: Path, model, labels: tuple[str, ...], *, spec: ClipSpec, threshold: float = 0.5) -> None:
    """Write a joined model as action_model.h5, action_encoder.tflite (float16 weights) and action_head.tflite, with
    labels.json and config.json."""
    from helpers.action.model import split_action_model

    folder = Path(folder)
    save_keras(model, folder / "action_model", (".h5",))
    encoder, head = split_action_model(model)
    export_litert(encoder, folder / "action_encoder.tflite", "float16")
    export_litert(head, folder / "action_head.tflite")
    save_labels(folder, labels)
    (folder / "config.json").write_text(json.dumps({"clip": spec.as_dict(), "threshold": threshold}, indent=1) + "\n")
