"""The files beside a model: which file of a folder is the model, labels.json, config.json."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

from helpers.errors import DataError

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_JSON_TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


def locate_model(path: Path | str, *stems: str) -> tuple[Path, Path]:
    """(folder, model file): the file itself, or the folder's LiteRT, .keras, .h5 file, in this order.

    stems: names without suffix that are looked for before any other Keras file. Raises DataError when there is none.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise DataError(f"{path}: no such model folder or file")
    named = [path / f"{stem}{suffix}" for suffix in (".tflite", *KERAS_SUFFIXES) for stem in stems]
    found = [file for file in named if file.is_file()] or sorted(
        file for file in path.iterdir() if file.suffix in KERAS_SUFFIXES
    )
    if not found and (path / "saved_model.pb").is_file():
        raise DataError(
            f"{path}: is a TensorFlow SavedModel, which Keras 3 does not load; where it was made, save it as a file: "
            "tf.keras.models.load_model(FOLDER).save('model.h5')"
        )
    if not found:
        raise DataError(f"{path}: no model in it; expected {stems[-1]}.keras or .h5, or one .hdf5 file")
    return path, found[0]


def read_json(
    path: Path, missing: str = "not found; it belongs beside the model (see artifacts/README.md)", *, nan: bool = False
):
    """What a JSON file holds; a byte-order mark is passed over. Raises DataError.

    missing: what is said when there is no such file. nan: whether NaN and Infinity are taken, which are no JSON but
    the losses of a training that diverged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"), parse_constant=None if nan else _refuse)
    except FileNotFoundError:
        raise DataError(f"{path}: {missing}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); restore it") from error


def _refuse(constant: str):
    raise ValueError(f"{constant} is no number")


def save_labels(folder: Path, labels: tuple[str, ...]) -> None:
    """Write labels.json: the class names in the order of the model's outputs."""
    (Path(folder) / "labels.json").write_text(json.dumps(list(labels), indent=1) + "\n")


def load_labels(path: Path, outputs: int | None = None) -> tuple[str, ...]:
    """Class names of a model: a list, {"0": name, ...} or Keras's class_indices {name: 0, ...}.

    outputs: of the model, when it is known. Raises DataError when the file is missing, is not JSON, does not number its
    classes 0, 1, 2, ... or does not name as many as the model has outputs.
    """
    names = f"the {outputs} class names" if outputs else "the class names"
    content = read_json(
        path,
        f'not found; write {names} of the model into it, in the order of its outputs, as ["jump", "walk", ...]; '
        "folders read by Keras are in alphabetical order",
    )
    if isinstance(content, dict):
        by_name = all(type(value) is int for value in content.values())
        pairs = [(v, k) for k, v in content.items()] if by_name else list(content.items())
        try:
            numbered = {int(index): name for index, name in pairs}
        except ValueError:
            numbered = {}
        content = [numbered.get(index) for index in range(len(pairs))]
    if not isinstance(content, list) or not content or not all(isinstance(name, str) for name in content):
        raise DataError(f"{path}: must be a list of class names or a map of 0..n-1 to names")
    if len(set(content)) < len(content):
        raise DataError(f"{path}: a class name occurs twice: {', '.join(content)}")
    if outputs is not None and len(content) != outputs:
        raise DataError(
            f"{path}: {len(content)} labels ({', '.join(content)}) but the model has {outputs} outputs; "
            "use the labels.json that was saved with this model"
        )
    return tuple(content)


def read_config(path: Path) -> dict:
    """The map of settings in a config.json. Raises DataError."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise DataError(f"{path}: must be a map of settings; use the file saved with this model")
    return config


def checked_settings(path: Path, kind: type, values):
    """The dataclass `kind` (FaceSpec, ClipSpec) from what config.json at `path` says. Raises DataError."""
    try:
        for field in fields(kind):
            value = values.get(field.name)
            known = _JSON_TYPES.get(str(field.type).split(" | ")[0])
            if (
                known
                and value is not None
                and (not isinstance(value, known) or isinstance(value, bool) != (known is bool))
            ):
                raise TypeError(f"{field.name} must be of type {field.type}, not {value!r}")
        return kind(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: no valid {kind.__name__} in it ({error}); use the file saved with this model"
        ) from error


def checked_number(path: Path, config: dict, name: str, *, default: float, low: float, high: float) -> float:
    """The number `name` of config.json at `path`, within low..high, or `default` where it is not given.

    Raises DataError.
    """
    value = config.get(name, default)
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise DataError(f"{path}: {name} must be a number from {low:g} to {high:g}, not {value!r}; correct it")
    return float(value)
