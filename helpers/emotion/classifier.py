"""The deployed emotion model: an aligned face to class probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.data.paths import ARTIFACTS
from helpers.emotion.faces import FacePreprocessor, FaceSpec
from helpers.errors import DataError
from helpers.runtime import (
    KerasFunction,
    LiteRT,
    check_width,
    checked_settings,
    export_litert,
    load_keras,
    load_labels,
    locate_model,
    read_config,
    save_keras,
    save_labels,
)

DEFAULT_EMOTION = ARTIFACTS / "emotion" / "mini_xception"


# The order in which FER-2013's csv numbers its classes: foreign FER models without a labels file use it.
FER_ORDER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@dataclass(frozen=True)
class EmotionClassifier:
    """An emotion model with its labels and its preprocessing.

    temperature: of `with_temperature`, 1 for none.
    class_prior: shares of the classes in training; with them the answers assume a uniform prior, all classes equally
        likely; without them that they are as frequent as in training.
    """

    labels: tuple[str, ...]
    preprocessor: FacePreprocessor
    network: LiteRT | KerasFunction
    temperature: float = 1.0
    class_prior: tuple[float, ...] | None = None

    @classmethod
    def load(cls, path: Path | str = DEFAULT_EMOTION) -> EmotionClassifier:
        """From a folder that `save_emotion` wrote, or from any FER model file or the folder that holds it.

        Without config.json and labels.json a model is taken for a foreign FER model: input side and channels are the
        model's own, pixels are scaled to -1..1, seven outputs are named in FER order. Raises DataError.
        """
        folder, file = locate_model(path, "emotion_model")
        network = LiteRT(file) if file.suffix == ".tflite" else KerasFunction(load_keras(file))
        if len(network.input_shape) != 4 or network.input_shape[1] != network.input_shape[2]:
            raise DataError(
                f"{file}: not a face model; its input is {network.input_shape}, not (N, side, side, channels)"
            )
        path, side = folder / "config.json", network.input_shape[1]  # None: a network for pictures of any side
        config = read_config(path) if path.is_file() else {}
        foreign = {"size": side or FaceSpec.size, "clahe": False, "scaling": "minus_one_to_one"}
        spec = checked_settings(path, FaceSpec, config.get("face") or foreign)
        if side not in (None, spec.size):
            raise DataError(
                f"{path}: says faces of {spec.size} pixels but the model takes {side}; "
                "use the file saved with this model"
            )
        labels = _labels_or_fer_order(folder, file, config, network.output_shape[-1])
        return cls(
            labels, FacePreprocessor(spec), network, config.get("temperature", 1.0), _class_prior(path, config, labels)
        )

    def predict(self, faces: np.ndarray) -> np.ndarray:
        """float32 (N, classes), rows sum to 1, from `preprocessor.normalise`'s float32 (N, side, side, 1)."""
        channels = self.network.input_shape[-1]
        probabilities = self.network(faces if channels == 1 else np.repeat(faces, channels, axis=-1))
        if self.temperature != 1.0:
            probabilities = with_temperature(probabilities, self.temperature)
        if self.class_prior is None:
            return probabilities
        return correct_prior(probabilities, 1 / np.array(self.class_prior))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, classes): softmax(log p / temperature), rows sum to 1 (Guo et al., 2017); 1 / temperature undoes it."""
    probabilities = np.maximum(probabilities, 1e-9) ** (1 / temperature)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def correct_prior(probabilities: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """(N, classes): calibrated answers corrected for another class prior (prior shift: Saerens et al., 2002).

    ratios (classes,): how many times as frequent as in training each class is there; 1 / ratios undoes it. Rows sum
    to 1.
    """
    weighed = probabilities * np.asarray(ratios, probabilities.dtype)
    return weighed / weighed.sum(axis=1, keepdims=True)


def _class_prior(path: Path, config: dict, labels: tuple[str, ...]) -> tuple[float, ...] | None:
    shares = config.get("class_prior")
    if shares is None:
        return None
    if (
        not isinstance(shares, dict)
        or set(shares) != set(labels)
        or not all(isinstance(share, (int, float)) and 0 < share <= 1 for share in shares.values())
    ):
        raise DataError(
            f"{path}: class_prior must give each of {', '.join(labels)} a share above 0 and up to 1, not {shares!r}; "
            "correct it, or take it out: then the answers assume the class prior of the training data"
        )
    return tuple(float(shares[label]) for label in labels)


def _labels_or_fer_order(folder: Path, file: Path, config: dict, width: int) -> tuple[str, ...]:
    path = folder / "labels.json"
    if path.is_file() or config or width != len(FER_ORDER):
        labels = load_labels(path)
        check_width(path, labels, width)
        return labels
    return FER_ORDER


def save_emotion(
    folder: Path,
    model,
    labels: Sequence[str],
    *,
    spec: FaceSpec,
    temperature: float = 1.0,
    class_prior: dict[str, float] | None = None,
) -> None:
    """Write emotion_model.h5 and .tflite, labels.json and config.json: what `EmotionClassifier.load` reads."""
    folder = Path(folder)
    save_keras(model, folder / "emotion_model")
    export_litert(model, folder / "emotion_model.tflite")
    save_labels(folder, tuple(labels))
    settings = {"face": spec.as_dict(), "temperature": temperature}
    if class_prior:
        settings["class_prior"] = class_prior
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
