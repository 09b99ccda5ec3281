"""MobileNetV2 per time step and an LSTM, in functional Keras 3."""

from __future__ import annotations

import os

import keras
from keras import layers, regularizers

from helpers.errors import DataError

TUNED_FROM = (
    "block_3_expand"  # MobileNetV2's layers from here on are fine-tuned, those before it stay as ImageNet left them
)


BACKBONE_SIDE = 224  # the input side that Keras's published MobileNetV2 weights were trained at


def build_backbone(size: int, weights: str | None = "imagenet") -> keras.Model:
    """MobileNetV2 (Sandler et al., 2018) without its classifier: float32 (size, size, 3) in [-1, 1] to (1280,).

    weights: "imagenet" needs Keras's weight file, downloaded once or found below KERAS_HOME. Without either, raises
    DataError. None starts from random weights (the smoke profile, which must work offline).
    """
    model = keras.applications.MobileNetV2((size, size, 3), include_top=False, pooling="avg", weights=None)
    if weights == "imagenet":
        try:  # the file for 224 pixels fits every side: the network is fully convolutional
            source = keras.applications.MobileNetV2(
                (BACKBONE_SIDE, BACKBONE_SIDE, 3), include_top=False, pooling="avg", weights="imagenet"
            )
        except Exception as error:
            raise DataError(
                "MobileNetV2's ImageNet weights could not be downloaded and are not in KERAS_HOME "
                f"({os.environ.get('KERAS_HOME', '~/.keras')}); "
                f"put the file into its models/ folder ({error})"
            ) from error
        model.set_weights(source.get_weights())
    return model


def build_action_head(
    classes: int, length: int, features: int = 1280, *, units: int = 128, dropout: float = 0.5, l2: float = 1e-4
) -> keras.Model:
    """LSTM over the features of a clip: float32 (length, features) to float32 (classes,) softmax.

    The LSTM's states are averaged over time: an action may end before the window does. What the encoder is fine-tuned
    with; the deployed head has two such streams, see `two_stream.build_two_stream_head`.
    """
    penalty = regularizers.L2(l2) if l2 else None
    inputs = keras.Input((length, features), name="features")
    steps = layers.LayerNormalization(name="feature_norm")(inputs)
    x = layers.Dropout(dropout, name="feature_dropout")(steps)
    x = layers.LSTM(units, return_sequences=True, kernel_regularizer=penalty, name="lstm")(x)
    x = layers.GlobalAveragePooling1D(name="average")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="action")(x), name="action_head")


def join_action_model(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """The whole network: float32 (length, size, size, 3) clip to (classes,), MobileNetV2 in TimeDistributed + LSTM.

    A head of two streams has a second input, joints (length, WIDTH), and so has the whole.
    """
    motion, *others = head.inputs
    clip = keras.Input((motion.shape[1], *backbone.input_shape[1:]), name="clip")
    features = layers.TimeDistributed(backbone, name="frame_features")(clip)
    if not others:
        return keras.Model(clip, head(features), name="action_model")
    joints = keras.Input(others[0].shape[1:], name="joints")
    return keras.Model([clip, joints], head([features, joints]), name="action_model")


def pack_head(head: keras.Model) -> keras.Model:
    """A head of two streams with one input, joints behind motion (length, 1280 + WIDTH); any other head as it is."""
    if len(head.inputs) == 1:
        return head
    motion, joints = (tensor.shape[-1] for tensor in head.inputs)
    packed = keras.Input((head.inputs[0].shape[1], motion + joints), name="features")
    return keras.Model(packed, head([packed[..., :motion], packed[..., motion:]]), name="packed_head")


def split_action_model(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """(backbone, head) of a joined model: what the live system runs, once per frame and once per window."""
    return model.get_layer("frame_features").layer, model.get_layer("action_head")


def freeze_before(backbone: keras.Model, name: str) -> None:
    """Make the layers from `name` on trainable and no other, and no batch normalisation at all.

    It keeps its statistics and scales: batches of a few similar frames would spoil them.
    """
    reached = False
    for layer in backbone.layers:
        reached = reached or layer.name == name
        layer.trainable = reached and not isinstance(layer, layers.BatchNormalization)
    if not reached:
        raise ValueError(f"{backbone.name} has no layer {name!r}")


def join_for_training(backbone: keras.Model, head: keras.Model) -> keras.Model:
    """The function of `join_action_model`, with all steps of all clips in one batch: several times as fast to train."""
    length, image = head.input_shape[1], backbone.input_shape[1:]
    inputs = keras.Input((length, *image), name="clip")
    features = backbone(keras.ops.reshape(inputs, (-1, *image)))
    return keras.Model(
        inputs, head(keras.ops.reshape(features, (-1, length, features.shape[-1]))), name="clip_training"
    )
