"""Running saved models fast: LiteRT files and Keras models as functions of arrays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from helpers.console import quiet_stderr
from helpers.errors import DataError


def export_litert(model, path: Path, weights: str = "float32") -> None:
    """Write a LiteRT (formerly TensorFlow Lite) file of a Keras model, for one input at a time.

    weights: "float32", "float16", or "int8" (weights only; activations are quantised as they come).
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return _export_on_tensorflow(model, path, weights)
    import tensorflow

    options = {} if weights == "float32" else {"optimizations": [tensorflow.lite.Optimize.DEFAULT]}
    if weights == "float16":
        options["target_spec"] = {"supported_types": [tensorflow.float16]}
    one = keras.InputSpec(shape=(1, *model.input_shape[1:]), dtype="float32")
    model.export(str(path), format="litert", verbose=False, input_signature=[one], **options)


def _export_on_tensorflow(model, path: Path, weights: str) -> None:
    """Export in a process of its own: Keras does it by TensorFlow, and one process has one backend."""
    code = (
        "import sys; from helpers.keras_files import load_keras; from helpers.runtime import export_litert; "
        "export_litert(load_keras(sys.argv[1]), *sys.argv[2:])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_DISTRIBUTION_")}
    environment |= {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        command = [sys.executable, "-c", code, str(saved), str(Path(path).resolve()), weights]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"{path}: cannot be exported ({(done.stderr.strip().splitlines() or ['no reason'])[-1][:200]})")


class LiteRT:
    """A LiteRT file as a function: float32 (N, ...) to float32 (N, ...), row by row. Not thread-safe.

    Inputs and outputs of a quantised model are scaled by the parameters that it holds. Raises DataError when the file
    cannot be read.
    """

    def __init__(self, path: Path | str, threads: int = 1):
        from ai_edge_litert.interpreter import Interpreter

        try:
            with quiet_stderr():
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise DataError(f"{path}: cannot be read as a LiteRT model; restore it ({reason})") from error
        self._path = path
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        self.input_shape = tuple(int(n) for n in self._input["shape"])
        self.output_shape = tuple(int(n) for n in self._output["shape"])

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        rows = [self._one(row[None]) for row in np.asarray(inputs, np.float32)]
        return np.concatenate(rows) if rows else np.empty((0, *self.output_shape[1:]), np.float32)

    def _one(self, row: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], _quantised(row, self._input))
        try:
            self._interpreter.invoke()
        except RuntimeError as error:  # a damaged model may be found out only here
            raise DataError(f"{self._path}: cannot be run as a LiteRT model; restore it ({error})") from error
        return _restored(self._interpreter.get_tensor(self._output["index"]), self._output)


def _quantised(values: np.ndarray, tensor: dict) -> np.ndarray:
    if tensor["dtype"] == np.float32:
        return values
    limits, (scale, zero) = np.iinfo(tensor["dtype"]), tensor["quantization"]
    return np.clip(np.round(values / (scale or 1.0) + zero), limits.min, limits.max).astype(tensor["dtype"])


def _restored(values: np.ndarray, tensor: dict) -> np.ndarray:
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    return ((values.astype(np.float32) - zero) * (scale or 1.0)).astype(np.float32)


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


def kind_of_outputs(answers: np.ndarray, model=None) -> str:
    """What a network gives, by its `answers` (N, C) to images of noise and its last layer: "probabilities", "logits",
    or "scores", each between 0 and 1 on its own.

    model: the Keras model, when there is one. Quantised rows sum to 1 only nearly.
    """
    if getattr(getattr(model and model.layers[-1], "activation", None), "__name__", "") == "linear":
        return "logits"
    if answers.min() < 0 or answers.max() > 1.01:
        return "logits"
    return "scores" if np.abs(answers.sum(axis=1) - 1).max() > 0.05 else "probabilities"


def as_probabilities(answers: np.ndarray, kind: str) -> np.ndarray:
    """(N, C) rows that sum to 1, of answers of a `kind`: logits by a softmax, scores by their sum."""
    if kind == "probabilities":
        return answers
    if kind == "logits":
        answers = np.exp(answers - answers.max(axis=1, keepdims=True))
    return answers / np.maximum(answers.sum(axis=1, keepdims=True), 1e-9)
