"""Architectures that Keras 2 (TensorFlow 2.x) wrote, said as Keras 3 says them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from helpers.errors import DataError

_MODELS = {"Functional": "Functional", "Model": "Functional", "Sequential": "Sequential"}
_TRAINING_ONLY = ("_regularizer", "_initializer", "_constraint")
# What Keras 3 finds out by itself, or what only says how something is computed.
_NEEDLESS = {"batch_input_shape", "input_length", "implementation"}
_NEUTRAL = (None, False, 1, [], {})  # an argument that Keras 3 does not have, at a value that changes nothing
_RENAMED = {("LeakyReLU", "alpha"): "negative_slope"}
_OPERATORS = {  # scale and offset of a Rescaling that does what a constant behind an operator does
    "truediv": lambda y: (1 / y, 0.0),
    "divide": lambda y: (1 / y, 0.0),
    "multiply": lambda y: (y, 0.0),
    "mul": lambda y: (y, 0.0),
    "subtract": lambda y: (1.0, -y),
    "sub": lambda y: (1.0, -y),
    "add": lambda y: (1.0, y),
}


def translate(path, node):
    """The configuration of a model, of a layer or of a part of one as Keras 3 takes it.

    Keras 2 wrote `groups` of DepthwiseConv2D, `time_major` of LSTM and `kernel_regularizer` of SeparableConv2D, named
    the axis of a normalisation in a list, said where in its own sources a class lies, and kept arithmetic with a
    constant (`preprocess_input`) as a layer of its own kind. What it computed otherwise keeps its meaning. Raises
    DataError, which names the file `path`, for a layer or a setting that cannot be translated.
    """
    if isinstance(node, list):
        return [translate(path, item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("class_name") in ("TFOpLambda", "SlicingOpLambda"):
        return _operator(path, node)
    node = {
        key: _hard_sigmoid() if key.endswith("activation") and value == "hard_sigmoid" else translate(path, value)
        for key, value in node.items()
        if not key.endswith(_TRAINING_ONLY) and key != "build_config"
    }
    name, config = node.get("class_name"), node.get("config")
    if not isinstance(name, str) or not isinstance(config, dict):
        return node
    inner = config.get("layers", [config["layer"]] if "layer" in config else [])
    for layer in inner if isinstance(inner, list) else ():
        _check_layer(path, layer)
    if name in _MODELS:
        return _model(node, name, config)
    return _layer(path, node, name, config) if arguments(name) else node


def _model(node: dict, name: str, config: dict) -> dict:
    _count_calls_from_zero(config)
    for key in ("input_layers", "output_layers"):
        if len(config.get(key, ())) == 1:  # a list of one would stay a list of one, where others want a tensor
            config[key] = config[key][0]
    return {**node, "class_name": _MODELS[name], "module": f"keras.src.models.{_MODELS[name].lower()}"}


def _count_calls_from_zero(config: dict) -> None:
    """Keras 2 counted the making of a model as its first call, so calls of a model inside another began at 1."""
    parts = [layer for layer in config.get("layers", ()) if isinstance(layer, dict)]
    nested = {layer.get("name") for layer in parts if layer.get("class_name") in _MODELS}
    calls = list(_calls([config.get("output_layers"), *(layer.get("inbound_nodes") for layer in parts)]))
    for name in nested:
        first = min((number for called, number, *_ in calls if called == name), default=0)
        for call in calls:
            call[1] -= first if call[0] == name else 0


def _calls(node) -> Iterator[list]:
    """The references [layer, number of its call, number of the output, ...] in a part of a configuration."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and all(type(number) is int for number in node[1:3]):
            yield node
        for item in node:
            yield from _calls(item)


def _layer(path, node: dict, name: str, config: dict) -> dict:
    if isinstance(config.get("axis"), list) and len(config["axis"]) == 1:
        config["axis"] = config["axis"][0]
    if name == "InputLayer" and "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    known, kept = arguments(name), {}
    for key, value in config.items():
        key = _RENAMED.get((name, key), key)
        if key in known:
            kept[key] = value
        elif key not in _NEEDLESS and (value is True or value not in _NEUTRAL):  # True equals 1
            raise DataError(
                f"{path}: its layer {config.get('name')!r} ({name}) has {key}={value!r}, which Keras 3 does not know; "
                "where it was trained, build it without and save the model anew"
            )
    return {**node, "module": "keras.layers", "config": kept}


def _operator(path, node: dict) -> dict:
    """A Rescaling in the place of `x / 127.5`, `x - 1` and the like."""
    name = (node.get("config") or {}).get("name") or node.get("name")
    function = str((node.get("config") or {}).get("function", "")).split(".")[-1]
    try:
        (call,) = node["inbound_nodes"]
        scale, offset = _OPERATORS[function](float(call[3]["y"]))
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        raise _unknown(path, name, f"call of {function or 'an operator'}") from None
    return {
        "class_name": "Rescaling",
        "module": "keras.layers",
        "config": {"name": name, "scale": scale, "offset": offset},
        "registered_name": None,
        "name": node.get("name", name),
        "inbound_nodes": [[[*call[:3], {}]]],
    }


def _check_layer(path, node) -> None:
    name = node.get("class_name") if isinstance(node, dict) else None
    if isinstance(name, str) and name not in _MODELS and not arguments(name):
        raise _unknown(path, (node.get("config") or {}).get("name") or node.get("name"), name)


def _unknown(path, name, what: str) -> DataError:
    return DataError(
        f"{path}: its layer {name!r} is a {what}, which Keras cannot build without the code that made it; where it was "
        "trained, replace it by a layer of Keras (Rescaling, Reshape, ...) and save the model anew"
    )


def arguments(layer: str) -> set[str]:
    """Names that a layer's constructor and those of its base classes take; empty for what is not a layer, and for
    Lambda, which runs code from the file."""
    import keras

    if layer == "Lambda":
        return set()
    made_of = getattr(getattr(keras.layers, layer, None), "__mro__", ())
    return {name for base in made_of for name in inspect.signature(base.__init__).parameters}


def _hard_sigmoid() -> dict:
    """Keras 2's, max(0, min(1, 0.2 x + 0.5)), as a configuration; Keras 3's rises by a sixth."""
    import keras

    @keras.saving.register_keras_serializable(package="keras2", name="hard_sigmoid")
    def hard_sigmoid(x):
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    return keras.saving.serialize_keras_object(hard_sigmoid)
