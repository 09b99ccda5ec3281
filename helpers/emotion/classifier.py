"""The deployed emotion model: an aligned face to class probabilities. Reads models made elsewhere, too."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.data.paths import ARTIFACTS
from helpers.emotion.faces import FacePreprocessor, FaceSpec
from helpers.errors import DataError
from helpers.keras_files import load_keras, save_keras, scales_itself
from helpers.model_files import checked_number, checked_settings, load_labels, locate_model, read_config, save_labels
from helpers.runtime import KerasFunction, LiteRT, as_probabilities, export_litert, kind_of_outputs

DEFAULT_EMOTION = ARTIFACTS / "emotion" / "mini_xception"

# The order of FER-2013's csv: what seven outputs are taken for without a labels file.
FER_ORDER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@dataclass(frozen=True)
class EmotionClassifier:
    """An emotion model with its labels and its preprocessing.

    temperature: of `with_temperature`, 1 for none.
    class_prior: shares of the classes in training; with them the answers assume a uniform prior, all classes equally
        likely; without them that they are as frequent as in training.
    outputs: what the network gives: "probabilities", or "logits" or "scores" (each between 0 and 1 on its own), which
        are made probabilities by a softmax or by their sum.
    """

    labels: tuple[str, ...]
    preprocessor: FacePreprocessor
    network: LiteRT | KerasFunction
    temperature: float = 1.0
    class_prior: tuple[float, ...] | None = None
    outputs: str = "probabilities"

    @classmethod
    def load(cls, path: Path | str = DEFAULT_EMOTION, *, strict: bool = False) -> EmotionClassifier:
        """From a folder that `save_emotion` wrote, or from any face model file or the folder that holds it.

        A model made elsewhere needs no config.json: input side and channels are its own; a colour network gets the gray
        face three times. What config.json leaves out of "face" is assumed: no CLAHE; -1..1, or 0..255 when the network
        scales by a layer of its own. Seven outputs without labels.json are taken to be in FER-2013's order: said on
        stderr, or, when `strict`, refused. Raises DataError.
        """
        folder, file = locate_model(path, "emotion_model")
        model = None if file.suffix == ".tflite" else load_keras(file)
        network = LiteRT(file) if model is None else KerasFunction(model)
        if len(network.input_shape) != 4 or network.input_shape[1] != network.input_shape[2]:
            raise DataError(
                f"{file}: not a face model; its input is {network.input_shape}, not (N, side, side, channels)"
            )
        path, side = folder / "config.json", network.input_shape[1]  # side None: a network for images of any side
        config = read_config(path) if path.is_file() else {}
        spec = _face_spec(path, config, side, scales_itself=model is not None and scales_itself(model))
        labels = _labels(folder, config, network.output_shape[-1], strict)
        return cls(
            labels,
            FacePreprocessor(spec),
            network,
            checked_number(path, config, "temperature", default=1.0, low=0.01, high=100),
            _class_prior(path, config, labels),
            _kind_of_outputs(network, spec, model),
        )

    def predict(self, faces: np.ndarray) -> np.ndarray:
        """float32 (N, classes), rows sum to 1, from `preprocessor.normalise`'s float32 (N, side, side, 1)."""
        probabilities = as_probabilities(_answer(self.network, faces), self.outputs)
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


def _face_spec(path: Path, config: dict, side: int | None, *, scales_itself: bool) -> FaceSpec:
    assumed = {
        "size": side or FaceSpec.size,
        "clahe": False,
        "scaling": "pixels" if scales_itself else "minus_one_to_one",
    }
    face = config.get("face", {})
    if not isinstance(face, dict):
        raise DataError(f'{path}: "face" must be a map of settings, for example {{"scaling": "zero_to_one"}}')
    if "scaling" not in face and not scales_itself:
        print(
            'note: faces are scaled to -1..1; if the model was trained on others, write {"face": {"scaling": '
            f'"zero_to_one"}}}} (0..1) or "pixels" (0..255) into {path}',
            file=sys.stderr,
        )
    spec = checked_settings(path, FaceSpec, {**assumed, **face})
    if side not in (None, spec.size):
        raise DataError(
            f"{path}: says faces of {spec.size} pixels but the model takes {side}; use the file saved with this model"
        )
    return spec


def _answer(network: LiteRT | KerasFunction, faces: np.ndarray) -> np.ndarray:
    channels = network.input_shape[-1]
    return network(faces if channels == 1 else np.repeat(faces, channels, axis=-1))


def _kind_of_outputs(network: LiteRT | KerasFunction, spec: FaceSpec, model) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (8, spec.size, spec.size)).astype(np.uint8)
    return kind_of_outputs(_answer(network, FacePreprocessor(spec).normalise(pixels)), model)


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


def _labels(folder: Path, config: dict, width: int, strict: bool) -> tuple[str, ...]:
    path = folder / "labels.json"
    if path.is_file() or "temperature" in config or width != len(FER_ORDER):  # a temperature: saved by this project
        return load_labels(path, width)
    advice = (
        f"write {path} with the names in the order of the outputs, as a list; folders read by Keras are in "
        f"alphabetical order: {json.dumps(sorted(FER_ORDER))}"
    )
    if strict:
        raise DataError(f"{path}: missing, and without it a figure could be that of another order; {advice}")
    print(f"note: no labels.json: outputs taken for {', '.join(FER_ORDER)}; if they are not, {advice}", file=sys.stderr)
    return FER_ORDER


def save_emotion(
    folder: Path,
    model,
    labels: Sequence[str],
    *,
    spec: FaceSpec,
    temperature: float = 1.0,
    class_prior: dict[str, float] | None = None,
    suffixes: tuple[str, ...] = (".keras", ".h5"),
) -> None:
    """Write emotion_model.tflite, .keras and .h5, labels.json, config.json: what `EmotionClassifier.load` reads."""
    folder = Path(folder)
    save_keras(model, folder / "emotion_model", suffixes)
    export_litert(model, folder / "emotion_model.tflite")
    save_labels(folder, tuple(labels))
    settings = {"face": spec.as_dict(), "temperature": temperature}
    if class_prior:
        settings["class_prior"] = class_prior
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
