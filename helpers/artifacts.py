"""Saved models: writing them in every format, reading them back whatever wrote them, and running them fast."""
from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pooch

from helpers.clips import ClipSpec
from helpers.datasets import REPOSITORY, DataError
from helpers.faces import FacePreprocessor, FaceSpec

ARTIFACTS = REPOSITORY / "artifacts"
DEFAULT_ACTION = ARTIFACTS / "action" / "everyday"
DEFAULT_EMOTION = ARTIFACTS / "emotion" / "mini_xception"
MANIFEST = ARTIFACTS / "manifest.json"
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
# The order in which FER-2013's csv numbers its classes: foreign FER models without a labels file use it.
FER_ORDER = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


# --------------------------------------------------------------------------------------------------- labels, settings

def save_labels(folder: Path, labels: tuple[str, ...]) -> None:
    """Write labels.json: the class names in the order of the model's outputs."""
    (Path(folder) / "labels.json").write_text(json.dumps(list(labels), indent=1) + "\n")


def load_labels(path: Path) -> tuple[str, ...]:
    """Class names from a label map: a list, {"0": name, ...} or Keras's class_indices {name: 0, ...}.

    Raises DataError when the file is missing, is not JSON, or does not number its classes 0, 1, 2, ...
    """
    content = _read_json(path)
    if isinstance(content, dict):
        by_name = all(isinstance(value, int) for value in content.values())
        pairs = [(v, k) for k, v in content.items()] if by_name else list(content.items())
        try:
            numbered = {int(index): name for index, name in pairs}
        except ValueError:
            numbered = {}
        content = [numbered.get(index) for index in range(len(pairs))]
    if not isinstance(content, list) or not content or not all(isinstance(name, str) for name in content):
        raise DataError(f"{path}: must be a list of class names or a map of 0..n-1 to names")
    if len(set(content)) < len(content):
        raise DataError(f"{path}: a class name occurs twice: {content}")
    return tuple(content)


def _read_json(path: Path):
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: not found; it belongs beside the model (see artifacts/README.md)") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); restore it") from error


def _read_config(path: Path) -> dict:
    config = _read_json(path)
    if not isinstance(config, dict):
        raise DataError(f"{path}: must be a map of settings; use the file saved with this model")
    return config


def _settings(path: Path, kind: type, values):
    """A FaceSpec or ClipSpec from what config.json says."""
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: no valid {kind.__name__} in it ({error}); "
                        "use the file saved with this model") from error


def _check_width(path: Path, labels: tuple[str, ...], width: int) -> None:
    if len(labels) != width:
        raise DataError(f"{path}: {len(labels)} labels ({', '.join(labels)}) but the model has {width} outputs; "
                        "use the labels.json that was saved with this model")


# --------------------------------------------------------------------------------------------------- reading Keras

def load_keras(path: Path | str):
    """A Keras model for inference from a .keras, .h5 or .hdf5 file, also one that an older Keras wrote.

    When this Keras cannot read the file as a whole, the architecture in it is rebuilt with h5py, without the arguments
    that this Keras does not know. Raises DataError when the file is
    missing, truncated, not a model, or weights without an architecture.
    """
    import keras

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such model file")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        if path.suffix == ".keras":
            raise DataError(f"{path}: cannot be read, truncated or not a Keras model; restore it ({_first_line(error)})") from error
        return _rebuild(path, error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _rebuild(path: Path, error: Exception):
    """Read a copy of the file whose architecture is written as this Keras writes it; its weights stay as they are."""
    import keras

    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(path, Path(folder) / "model.h5")
            with h5py.File(copy, "r+") as file:
                config = file.attrs.get("model_config")
                if config is None:
                    raise DataError(f"{path}: holds weights but no architecture; save the whole model (model.save)")
                file.attrs["model_config"] = json.dumps(_without_unknown(json.loads(config)))
            return keras.models.load_model(copy, compile=False)
    except DataError:
        raise
    except Exception as second:
        raise DataError(f"{path}: cannot be read, truncated or not a Keras model; restore it "
                        f"({_first_line(error)}; {_first_line(second)})") from second


def _without_unknown(node):
    """The configuration without the arguments that this Keras's layers do not take, and without regularizers,
    initializers and constraints, which matter to training only. Between Keras 2 and 3 `kernel_regularizer` of
    SeparableConv2D, `groups` of DepthwiseConv2D and `time_major` of LSTM went, for example."""
    if isinstance(node, list):
        return [_without_unknown(item) for item in node]
    if not isinstance(node, dict):
        return node
    dropped = ("_regularizer", "_initializer", "_constraint")
    node = {key: _without_unknown(value) for key, value in node.items() if not key.endswith(dropped)}
    known = _known_arguments(node.get("class_name"))
    if known and isinstance(node.get("config"), dict):
        node["config"] = {key: value for key, value in node["config"].items() if key in known}
    return node


def _known_arguments(layer: str | None) -> set[str]:
    """Names that the layer's constructor and those of its base classes take; empty for what is not a layer."""
    import keras

    made_of = getattr(getattr(keras.layers, str(layer), None), "__mro__", ())
    names = {name for base in made_of for name in inspect.signature(base.__init__).parameters}
    return names | {"batch_shape", "batch_input_shape"} if names else names


# --------------------------------------------------------------------------------------------------- LiteRT

def export_litert(model, path: Path, weights: str = "float32") -> None:
    """Write a LiteRT (formerly TensorFlow Lite) file of a Keras model, for one input at a time.

    weights: "float32", "float16", or "int8" (weights only; activations are quantised as they come).
    """
    import keras
    import tensorflow

    signature = [tensorflow.TensorSpec((1, *model.input_shape[1:]), tensorflow.float32)]
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serve", lambda inputs: model(inputs, training=False), input_signature=signature)
        archive.write_out(folder, verbose=False)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder)
        if weights != "float32":
            converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        if weights == "float16":
            converter.target_spec.supported_types = [tensorflow.float16]
        Path(path).write_bytes(converter.convert())


@contextmanager
def _quiet_stderr():
    """Drop what native code writes to stderr: LiteRT announces its CPU delegate there and knows no log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class LiteRT:
    """A LiteRT file as a function: float32 (N, ...) to float32 (N, ...), row by row. Not thread-safe."""

    def __init__(self, path: Path | str, threads: int = 1):
        from ai_edge_litert.interpreter import Interpreter

        try:
            with _quiet_stderr():
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{path}: cannot be read as a LiteRT model; restore it ({_first_line(error)})") from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self.input_shape = tuple(int(n) for n in self._input["shape"])
        self.output_shape = tuple(int(n) for n in self._output["shape"])

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        rows = [self._one(row[None]) for row in np.asarray(inputs, np.float32)]
        return np.concatenate(rows) if rows else np.empty((0, *self.output_shape[1:]), np.float32)

    def _one(self, row: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], row)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])


class KerasFunction:
    """A Keras model with the same face as `LiteRT`, traced once."""

    def __init__(self, model):
        import keras

        self.input_shape, self.output_shape = model.input_shape, model.output_shape
        if keras.backend.backend() != "tensorflow":
            self._call = model.predict_on_batch
            return
        import tensorflow

        signature = [tensorflow.TensorSpec((None, *model.input_shape[1:]), tensorflow.float32)]
        self._call = tensorflow.function(lambda inputs: model(inputs, training=False), input_signature=signature)

    def __call__(self, inputs: np.ndarray, batch: int = 64) -> np.ndarray:
        inputs = np.asarray(inputs, np.float32)
        rows = [np.asarray(self._call(inputs[start:start + batch])) for start in range(0, len(inputs), batch)]
        return np.concatenate(rows) if rows else np.empty((0, *self.output_shape[1:]), np.float32)


# --------------------------------------------------------------------------------------------------- classifiers

@dataclass(frozen=True)
class EmotionClassifier:
    """An emotion model with its labels and its preprocessing.

    temperature: of `with_temperature`, 1 for none. frequencies: shares of the classes in training; with them the answers
        assume that all classes are equally likely, without them that they are as frequent as in training.
    """

    labels: tuple[str, ...]
    preprocessor: FacePreprocessor
    network: LiteRT | KerasFunction
    temperature: float = 1.0
    frequencies: tuple[float, ...] | None = None

    @classmethod
    def load(cls, path: Path | str = DEFAULT_EMOTION) -> EmotionClassifier:
        """From a folder that `save_emotion` wrote, or from any FER model file or the folder that holds it.

        Without config.json and labels.json a model is taken for a foreign FER model: input side and channels are the
        model's own, pixels are scaled to -1..1, seven outputs are named in FER order. Raises DataError.
        """
        folder, file = _locate(path, "emotion_model")
        network = LiteRT(file) if file.suffix == ".tflite" else KerasFunction(load_keras(file))
        if len(network.input_shape) != 4 or network.input_shape[1] != network.input_shape[2]:
            raise DataError(f"{file}: not a face model; its input is {network.input_shape}, not (N, side, side, channels)")
        path, side = folder / "config.json", network.input_shape[1]  # None: a network for pictures of any side
        config = _read_config(path) if path.is_file() else {}
        foreign = {"size": side or FaceSpec.size, "clahe": False, "scaling": "minus_one_to_one"}
        spec = _settings(path, FaceSpec, config.get("face") or foreign)
        if side not in (None, spec.size):
            raise DataError(f"{path}: says faces of {spec.size} pixels but the model takes {side}; "
                            "use the file saved with this model")
        labels = _labels_or_fer_order(folder, file, config, network.output_shape[-1])
        return cls(labels, FacePreprocessor(spec), network, config.get("temperature", 1.0), _frequencies(path, config, labels))

    def predict(self, faces: np.ndarray) -> np.ndarray:
        """float32 (N, classes), rows sum to 1, from `preprocessor.normalise`'s float32 (N, side, side, 1)."""
        channels = self.network.input_shape[-1]
        probabilities = self.network(faces if channels == 1 else np.repeat(faces, channels, axis=-1))
        if self.temperature != 1.0:
            probabilities = with_temperature(probabilities, self.temperature)
        return probabilities if self.frequencies is None else with_mixture(probabilities, 1 / np.array(self.frequencies))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, classes): softmax(log p / temperature), rows sum to 1 (Guo et al., 2017); 1 / temperature undoes it."""
    probabilities = np.maximum(probabilities, 1e-9) ** (1 / temperature)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def with_mixture(probabilities: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """(N, classes): calibrated answers for a place where the classes are mixed differently (Saerens et al., 2002).

    ratios (classes,): how many times as frequent each class is there; 1 / ratios undoes it. Rows sum to 1.
    """
    weighed = probabilities * np.asarray(ratios, probabilities.dtype)
    return weighed / weighed.sum(axis=1, keepdims=True)


def _frequencies(path: Path, config: dict, labels: tuple[str, ...]) -> tuple[float, ...] | None:
    shares = config.get("frequencies")
    if shares is None:
        return None
    if not isinstance(shares, dict) or set(shares) != set(labels) or not all(
            isinstance(share, (int, float)) and 0 < share <= 1 for share in shares.values()):
        raise DataError(f"{path}: frequencies must give each of {', '.join(labels)} a share above 0 and up to 1, not {shares!r}; "
                        "correct it, or take it out: then the answers assume the mixture of the training data")
    return tuple(float(shares[label]) for label in labels)


def _labels_or_fer_order(folder: Path, file: Path, config: dict, width: int) -> tuple[str, ...]:
    path = folder / "labels.json"
    if path.is_file() or config or width != len(FER_ORDER):
        labels = load_labels(path)
        _check_width(path, labels, width)
        return labels
    return FER_ORDER


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
        folder, file = _locate(path, "action_encoder", "action_model")
        config = _read_config(folder / "config.json")
        encoder, head = _action_halves(folder, file)
        labels = load_labels(folder / "labels.json")
        _check_width(folder / "labels.json", labels, head.output_shape[-1])
        spec = _settings(folder / "config.json", ClipSpec, config.get("clip"))
        if encoder.input_shape[1] != spec.size or head.input_shape[1] != spec.length:
            raise DataError(f"{folder / 'config.json'}: says {spec.length} steps of {spec.size} pixels but the model takes "
                            f"{head.input_shape[1]} of {encoder.input_shape[1]}; use the file saved with this model")
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
    from helpers.models import split_action_model

    try:
        return tuple(KerasFunction(half) for half in split_action_model(load_keras(file)))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: has no MobileNetV2 in TimeDistributed and LSTM head as models.py builds them") from error


def _locate(path: Path | str, *stems: str) -> tuple[Path, Path]:
    """(folder, model file): the file itself, or the folder's LiteRT, .keras, .h5 file, in this order."""
    path = Path(path)
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise DataError(f"{path}: no such model folder or file")
    named = [path / f"{stem}{suffix}" for suffix in (".tflite", *KERAS_SUFFIXES) for stem in stems]
    found = [file for file in named if file.is_file()] or sorted(f for f in path.iterdir() if f.suffix in KERAS_SUFFIXES)
    if not found:
        raise DataError(f"{path}: no model in it; expected {stems[-1]}.keras or .h5, or one .hdf5 file")
    return path, found[0]


# --------------------------------------------------------------------------------------------------- writing

def save_emotion(folder: Path, model, labels: tuple[str, ...], spec: FaceSpec, temperature: float = 1.0,
                 frequencies: dict[str, float] | None = None) -> None:
    """Write emotion_model.keras, .h5 and .tflite, labels.json and config.json."""
    folder = Path(folder)
    save_keras(model, folder / "emotion_model")
    export_litert(model, folder / "emotion_model.tflite")
    save_emotion_settings(folder, labels, spec, temperature, frequencies)


def save_emotion_settings(folder: Path, labels: tuple[str, ...], spec: FaceSpec, temperature: float = 1.0,
                          frequencies: dict[str, float] | None = None) -> None:
    """Write labels.json and config.json: what `EmotionClassifier.load` needs beside a model file."""
    save_labels(folder, labels)
    settings = {"face": spec.as_dict(), "temperature": temperature} | ({"frequencies": frequencies} if frequencies else {})
    (Path(folder) / "config.json").write_text(json.dumps(settings, indent=1) + "\n")


def save_action(folder: Path, model, labels: tuple[str, ...], spec: ClipSpec, threshold: float = 0.5) -> None:
    """Write action_model.keras and .h5, action_encoder.tflite and action_head.tflite, labels.json and config.json."""
    from helpers.models import split_action_model

    folder = Path(folder)
    save_keras(model, folder / "action_model")
    for half, name in zip(split_action_model(model), ("encoder", "head")):
        export_litert(half, folder / f"action_{name}.tflite")
    save_labels(folder, labels)
    (folder / "config.json").write_text(json.dumps({"clip": spec.as_dict(), "threshold": threshold}, indent=1) + "\n")


def save_keras(model, stem: Path) -> None:
    """Write `stem`.keras and `stem`.h5. Keras warns that .h5 is legacy; the course asks for it, so it is not repeated."""
    import absl.logging

    model.save(f"{stem}.keras")
    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        model.save(f"{stem}.h5")
    finally:
        absl.logging.set_verbosity(level)


# --------------------------------------------------------------------------------------------------- manifest

def _hashes() -> dict[str, str]:
    files = sorted(p for p in ARTIFACTS.rglob("*") if p.is_file() and p != MANIFEST and not p.name.startswith("."))
    return {p.relative_to(ARTIFACTS).as_posix(): pooch.file_hash(str(p)) for p in files}


def write_manifest() -> None:
    """Write artifacts/manifest.json: the SHA-256 of every file below artifacts/."""
    MANIFEST.write_text(json.dumps(_hashes(), indent=1) + "\n")


def check_manifest() -> list[str]:
    """What differs between artifacts/ and its manifest, a sentence each; empty when all is as it was written."""
    recorded, present = _read_json(MANIFEST), _hashes()
    return [f"{name}: {'missing' if name not in present else 'not in the manifest' if name not in recorded else 'changed'}"
            for name in sorted({*recorded, *present}) if recorded.get(name) != present.get(name)]
