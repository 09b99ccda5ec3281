"""Saved models: reading them back whatever wrote them, and running them fast (LiteRT, Keras)."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from helpers.errors import DataError

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


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


def read_config(path: Path) -> dict:
    config = _read_json(path)
    if not isinstance(config, dict):
        raise DataError(f"{path}: must be a map of settings; use the file saved with this model")
    return config


def checked_settings(path: Path, kind: type, values):
    """A FaceSpec or ClipSpec from what config.json says."""
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: no valid {kind.__name__} in it ({error}); use the file saved with this model"
        ) from error


def check_width(path: Path, labels: tuple[str, ...], width: int) -> None:
    if len(labels) != width:
        raise DataError(
            f"{path}: {len(labels)} labels ({', '.join(labels)}) but the model has {width} outputs; "
            "use the labels.json that was saved with this model"
        )


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
            raise DataError(
                f"{path}: cannot be read, truncated or not a Keras model; restore it ({_first_line(error)})"
            ) from error
        return _rebuild(path, error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _rebuild(path: Path, error: Exception):
    """Read a copy of the file whose architecture is written as this Keras writes it; its weights stay as they are."""
    import h5py
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
        raise DataError(
            f"{path}: cannot be read, truncated or not a Keras model; restore it "
            f"({_first_line(error)}; {_first_line(second)})"
        ) from second


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
        rows = [np.asarray(self._call(inputs[start : start + batch])) for start in range(0, len(inputs), batch)]
        return np.concatenate(rows) if rows else np.empty((0, *self.output_shape[1:]), np.float32)


def locate_model(path: Path | str, *stems: str) -> tuple[Path, Path]:
    """(folder, model file): the file itself, or the folder's LiteRT, .keras, .h5 file, in this order."""
    path = Path(path)
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise DataError(f"{path}: no such model folder or file")
    named = [path / f"{stem}{suffix}" for suffix in (".tflite", *KERAS_SUFFIXES) for stem in stems]
    found = [file for file in named if file.is_file()] or sorted(
        f for f in path.iterdir() if f.suffix in KERAS_SUFFIXES
    )
    if not found:
        raise DataError(f"{path}: no model in it; expected {stems[-1]}.keras or .h5, or one .hdf5 file")
    return path, found[0]


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
