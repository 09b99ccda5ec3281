"""Reading .keras, .h5 and .hdf5 models whoever wrote them, and writing them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from helpers.errors import DataError
from helpers.keras2 import translate

_LONGEST_READ_S = 20  # half a second is usual
_READ_ALL = """
import sys, h5py
def read(_, item):
    dict(item.attrs), item[()] if isinstance(item, h5py.Dataset) else None
with h5py.File(sys.argv[1], "r") as file:
    read("", file), file.visititems(read)
"""


def load_keras(path: Path | str):
    """A Keras model for inference from a .keras, .h5 or .hdf5 file, also one that Keras 2 (TensorFlow 2.x) wrote.

    The architecture in a copy of Keras 2's file is written as Keras 3 writes it. Raises DataError when the file is
    missing, truncated, not a model, weights without an architecture, or holds a layer that this Keras does not know; no
    code that a file brings along is run.
    """
    import keras

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such model file")
    if not zipfile.is_zipfile(path):
        _check_hdf5(path)
    if _is_of_keras_2(path):  # read as it is, some of its layers would answer otherwise
        return _rebuild(path)
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        return _rebuild(path, error)


def _is_of_keras_2(path: Path) -> bool:
    import h5py

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json"))["keras_version"]
        else:
            with h5py.File(path, "r") as file:
                version = file.attrs["keras_version"]
        return str(version).startswith("2.")
    except Exception:  # damaged, or no model at all: said when it is read
        return False


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


def _rebuild(path: Path, error: Exception | None = None):
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
        reasons = "; ".join(dict.fromkeys(_first_line(reason) for reason in (error, second) if reason))
        raise DataError(f"{path}: cannot be read, truncated or not a Keras model; restore it ({reasons})") from second


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _rewrite_hdf5(path: Path, copy: Path) -> None:
    import h5py

    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        config = file.attrs.get("model_config")
        if config is None:
            raise DataError(f"{path}: holds weights but no architecture; save the whole model (model.save)")
        file.attrs["model_config"] = json.dumps(translate(path, json.loads(config)))


def _rewrite_zip(path: Path, copy: Path) -> None:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as rewritten:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                content = json.dumps(translate(path, json.loads(content))).encode()
            rewritten.writestr(name, content)


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

    plain = keras.Model(
        model.inputs if len(model.inputs) > 1 else model.inputs[0], model.outputs[0], name=model.name
    )  # not compiled, so it has no optimizer
    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        for suffix in suffixes:
            plain.save(f"{stem}{suffix}")
    finally:
        absl.logging.set_verbosity(level)
