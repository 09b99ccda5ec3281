"""Action models made elsewhere: where a network of RGB clips splits into a part per frame and a part per window."""

from __future__ import annotations

import keras
import numpy as np

from helpers.keras_files import scales_itself

# Layers that treat every time step alike, besides TimeDistributed and those of activation.
_ELEMENTWISE = ("Rescaling", "Activation", "ReLU", "LeakyReLU", "Dropout", "SpatialDropout3D", "GaussianNoise")


def split_by_frame(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """(encoder of one frame, rest of the network over the window of its features) of a network of clips.

    The encoder is the chain of TimeDistributed layers, whatever is inside them, behind the input (N, length, H, W, C).
    None when the network looks at several frames from its first layer on (Conv3D, ConvLSTM2D, ...), or when the chain
    cannot be followed: then it can only be run on whole windows.
    """
    chain, rest = (_split_sequential if isinstance(model, keras.Sequential) else _split_graph)(model)
    if not any(layer.weights for layer in chain):
        return None
    frame = features = keras.Input(model.inputs[0].shape[2:])
    for layer in chain:
        features = (layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer)(features)
    return keras.Model(frame, features), rest


def _split_sequential(model: keras.Sequential) -> tuple[list[keras.layers.Layer], keras.Model]:
    count = next((k for k, layer in enumerate(model.layers) if not _per_step(layer)), len(model.layers))
    window = x = keras.Input(model.layers[count - 1].output.shape[1:] if count else model.inputs[0].shape[1:])
    for layer in model.layers[count:]:
        x = layer(x)
    return model.layers[:count], keras.Model(window, x)


def _split_graph(model: keras.Model) -> tuple[list[keras.layers.Layer], keras.Model]:
    tensor, chain = model.inputs[0], []
    while (layer := _only_consumer(model, tensor)) is not None and _per_step(layer):
        chain.append(layer)
        tensor = layer.output
    return chain, keras.Model(tensor, model.outputs[0])


def _only_consumer(model: keras.Model, tensor) -> keras.layers.Layer | None:
    """The layer that takes `tensor` and nothing else, when no other takes it."""
    takers = [
        layer
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer) and any(item is tensor for item in _inputs(layer))
    ]
    return takers[0] if len(takers) == 1 and len(_inputs(takers[0])) == 1 else None


def _inputs(layer: keras.layers.Layer) -> list:
    try:
        return keras.tree.flatten(layer.input)
    except (AttributeError, ValueError):  # used more than once, or never called
        return []


def _per_step(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.TimeDistributed) or type(layer).__name__ in _ELEMENTWISE


def input_range(model: keras.Model) -> str | None:
    """In which range a network wants its pixels, by a Rescaling layer of its own: "pixels" (0..255), "zero_to_one", or
    None when it has none."""
    if not scales_itself(model):
        return None
    scales = [float(np.max(layer.scale)) for layer in _all_layers(model) if isinstance(layer, keras.layers.Rescaling)]
    return "zero_to_one" if scales and min(scales) > 0.1 else "pixels"


def _all_layers(layer) -> list:
    parts = [*getattr(layer, "layers", ()), *([layer.layer] if hasattr(layer, "layer") else ())]
    return [layer, *(found for part in parts for found in _all_layers(part))]
