"""Reading .keras, .h5 and .hdf5 models whoever wrote them, and writing them."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from helpers.errors import DataError

# Arguments that matter to training only, and a shape that Keras 2 noted without its batch axis.
_DROPPED = ("_regularizer", "_initializer", "_constraint", "build_config")
_LONGEST_READ_S = 20  # half a second is usual
_READ_ALL = """
import sys, h5py
def read(_, item):
    dict(item.attrs), item[()] if isinstance(item, h5py.Dataset) else None
with h5py.File(sys.argv[1], "r") as file:
    read("", file), file.visititems(read)
"""
_MODELS = {"Functional": "Functional", "Model": "Functional", "Sequential": "Sequential"}


def load_keras(path: Path | str):
    """A Keras model for inference from a .keras, .h5 or .hdf5 file, also one that Keras 2 (TensorFlow 2.x) wrote.

    When this Keras cannot read the file as a whole, the architecture in a copy of it is written as this Keras writes
    it. Raises DataError when the file is missing, truncated, not a model, weights without an architecture, or holds a
    layer that this Keras does not know; no code that a file brings along is run.
    """
    import keras

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such model file")
    if not zipfile.is_zipfile(path):
        _check_hdf5(path)
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        return _rebuild(path, error)


def _check_hdf5(path: Path) -> None:
    """Read all of an HDF5 file in another process first: a damaged one can keep the HDF5 library busy for ever, or end
    the process. What that process says in an error is said again, and better, when the file is read here."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READ_ALL, str(path)], timeout=_LONGEST_READ_S, capture_output=True
        )
        if done.returncode >= 0:
            return
    except subprocess.TimeoutExpired:
        pass
    raise DataError(f"{path}: cannot be read, damaged: the HDF5 library does not come to its end; restore it")


def _rebuild(path: Path, error: Exception):
    """The model in a copy of the file whose architecture is written anew; its weights stay as they are."""
    import keras

    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"model{path.suffix}"
            rewrite = _rewrite_zip if zipfile.is_zipfile(path) else _rewrite_hdf5
            rewrite(path, copy)
            return keras.models.load_model(copy, compile=False)
    except DataError:
        raise
    except Exception as second:
        raise DataError(
            f"{path}: cannot be read, truncated or not a Keras model; restore it "
            f"({_first_line(error)}; {_first_line(second)})"
        ) from second


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _rewrite_hdf5(path: Path, copy: Path) -> None:
    import h5py

    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        config = file.attrs.get("model_config")
        if config is None:
            raise DataError(f"{path}: holds weights but no architecture; save the whole model (model.save)")
        file.attrs["model_config"] = json.dumps(_as_this_keras_writes(path, json.loads(config)))


def _rewrite_zip(path: Path, copy: Path) -> None:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as rewritten:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                content = json.dumps(_as_this_keras_writes(path, json.loads(content))).encode()
            rewritten.writestr(name, content)


def _as_this_keras_writes(path: Path, node):
    """A configuration without what this Keras's layers do not take: Keras 2 wrote `groups` of DepthwiseConv2D,
    `time_major` of LSTM and `kernel_regularizer` of SeparableConv2D, named the axis of a normalisation in a list, and
    said where in its own sources a class lies. Raises DataError for a layer that this Keras does not have."""
    if isinstance(node, list):
        return [_as_this_keras_writes(path, item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _as_this_keras_writes(path, value) for key, value in node.items() if not key.endswith(_DROPPED)}
    name, config = node.get("class_name"), node.get("config")
    if not isinstance(name, str) or not isinstance(config, dict):
        return node
    inner = config.get("layers", [config["layer"]] if "layer" in config else [])
    for layer in inner if isinstance(inner, list) else ():
        _check_layer(path, layer)
    if name in _MODELS:
        for key in ("input_layers", "output_layers"):
            if len(config.get(key, ())) == 1:  # a list of one would stay a list of one, where others want a tensor
                config[key] = config[key][0]
        return {**node, "class_name": _MODELS[name], "module": f"keras.src.models.{_MODELS[name].lower()}"}
    if known := _known_arguments(name):
        if isinstance(config.get("axis"), list) and len(config["axis"]) == 1:
            config["axis"] = config["axis"][0]
        return {
            **node,
            "module": "keras.layers",
            "config": {key: value for key, value in config.items() if key in known},
        }
    return node


def _check_layer(path: Path, node) -> None:
    name = node.get("class_name") if isinstance(node, dict) else None
    if isinstance(name, str) and name not in _MODELS and not _known_arguments(name):
        called = (node.get("config") or {}).get("name") or node.get("name")
        raise DataError(
            f"{path}: its layer {called!r} is a {name}, which Keras cannot build without the code that made it; where "
            "it was trained, replace it by a layer of Keras (Rescaling, Reshape, ...) and save the model anew"
        )


def _known_arguments(layer: str) -> set[str]:
    """Names that the layer's constructor and those of its base classes take; empty for what is not a layer."""
    import keras

    if layer == "Lambda":  # runs code from the file
        return set()
    made_of = getattr(getattr(keras.layers, layer, None), "__mro__", ())
    names = {name for base in made_of for name in inspect.signature(base.__init__).parameters}
    return names | {"batch_shape", "batch_input_shape"} if names else names


def scales_itself(model) -> bool:
    """Whether a model has a layer for raw pixels: Rescaling or Normalization, also in a model or wrapper inside it."""
    parts = [*getattr(model, "layers", ()), *([model.layer] if hasattr(model, "layer") else ())]
    return type(model).__name__ in ("Rescaling", "Normalization") or any(scales_itself(part) for part in parts)


def save_keras(model, stem: Path, suffixes: tuple[str, ...] = (".keras", ".h5")) -> None:
    """Write `stem`.keras and `stem`.h5, or only one of them, without the optimizer's state.

    Keras warns that .h5 is legacy; the course asks for it, so the warning is not repeated.
    """
    import absl.logging
    import keras

    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)  # not compiled, so it has no optimizer
    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        for suffix in suffixes:
            plain.save(f"{stem}{suffix}")
    finally:
        absl.logging.set_verbosity(level)
