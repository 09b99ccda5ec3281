"""Mini-Xception and its loss, in functional Keras 3."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers, regularizers


@dataclass(frozen=True)
class NetworkSpec:
    """Size and regularisation of a Mini-Xception. The defaults are the shipped network, 798,119 parameters.

    stem: filters of the two plain convolutions in front.
    widths: filters of the residual blocks, each of which halves the side. The original has (16, 32, 64, 128) after a
        stem of 8, 58,423 parameters.
    middle: blocks that keep side and width, in front of the last one, like the middle flow of Xception (Chollet, 2017):
        at 6x6 pixels depth is cheap.
    dropout: rate in front of the last convolution. l2: weight decay of every kernel, as a part of the loss.
    """

    stem: int = 16
    widths: tuple[int, ...] = (32, 96, 256, 384)
    middle: int = 2
    dropout: float = 0.3
    l2: float = 0.0


def build_mini_xception(classes: int, size: int = 48, spec: NetworkSpec | None = None) -> keras.Model:
    """Mini-Xception (Arriaga, Valdenegro-Toro & Plöger, 2017, arXiv:1710.07557).

    Two plain convolutions, one residual block of separable convolutions per width, a convolution that turns the last
    feature maps into one map per class, and their average.
    Input float32 (size, size, 1), standardised (`faces.FacePreprocessor`); output float32 (classes,) softmax.
    spec: None builds the shipped network.
    """
    spec = spec or NetworkSpec()
    penalty = regularizers.L2(spec.l2) if spec.l2 else None
    x = inputs = keras.Input((size, size, 1), name="face")
    for number in (1, 2):
        x = layers.Conv2D(
            spec.stem, 3, padding="same", use_bias=False, kernel_regularizer=penalty, name=f"stem{number}"
        )(x)
        x = layers.BatchNormalization(name=f"stem{number}_norm")(x)
        x = layers.Activation("relu", name=f"stem{number}_relu")(x)
    for number, width in enumerate(spec.widths, 1):
        if number == len(spec.widths):
            for extra in range(1, spec.middle + 1):
                deeper = _separable_pair(x, x.shape[-1], penalty, f"middle{extra}")
                x = layers.Add(name=f"middle{extra}_add")([deeper, x])
        x = residual_block(x, width, f"block{number}", penalty=penalty)
    x = layers.Dropout(spec.dropout, name="dropout")(x)
    x = layers.Conv2D(classes, 3, padding="same", kernel_regularizer=penalty, name="class_maps")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="emotion")(x), name="mini_xception")


def residual_block(x, width: int, name: str, *, penalty: regularizers.Regularizer | None = None):
    """Two separable convolutions and a pooling, beside a strided 1x1 convolution, added."""
    shortcut = layers.Conv2D(
        width, 1, strides=2, padding="same", use_bias=False, kernel_regularizer=penalty, name=f"{name}_shortcut"
    )(x)
    shortcut = layers.BatchNormalization(name=f"{name}_shortcut_norm")(shortcut)
    x = _separable_pair(x, width, penalty, name)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"{name}_pool")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _separable_pair(x, width: int, penalty, name: str):
    for part in ("a", "b"):
        x = layers.SeparableConv2D(
            width,
            3,
            padding="same",
            use_bias=False,
            depthwise_regularizer=penalty,
            pointwise_regularizer=penalty,
            name=f"{name}{part}",
        )(x)
        x = layers.BatchNormalization(name=f"{name}{part}_norm")(x)
        if part == "a":
            x = layers.Activation("relu", name=f"{name}a_relu")(x)
    return x


class FusedBatchNormalization(layers.BatchNormalization):
    """The same function and weights as Keras's layer, in training with TensorFlow's fused kernel.

    Keras 3 computes mean and variance in separate passes; on two CPU cores that is a third of a training step. With
    another backend, for other shapes than (N, H, W, C), and outside training it is Keras's own layer.
    """

    def call(self, inputs, training=None, mask=None):
        fused = training and self.trainable and keras.backend.backend() == "tensorflow" and len(inputs.shape) == 4
        if not fused:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow

        outputs, mean, variance, *_ = tensorflow.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=keras.ops.zeros_like(self.moving_mean),
            variance=keras.ops.ones_like(self.moving_variance),
            epsilon=self.epsilon,
            is_training=True,
        )
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        return outputs


def trainable_twin(model: keras.Model) -> keras.Model:
    """A copy of a face model to train, with fused batch normalisation.

    The weights have the same order: `model.set_weights(twin.get_weights())` brings them back.
    """

    def copy(layer):
        kind = FusedBatchNormalization if type(layer) is layers.BatchNormalization else type(layer)
        return kind.from_config(layer.get_config())

    twin = keras.models.clone_model(model, clone_function=copy)
    twin.set_weights(model.get_weights())
    return twin


def compile_emotion(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, smoothing: float, *, gamma: float
) -> None:
    """Cross-entropy with label smoothing (Szegedy et al., 2016) and a mild focal factor (Lin et al., 2017)."""
    loss = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma, label_smoothing=smoothing)
    model.compile(
        optimizer,
        loss,
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.F1Score(average="macro", name="macro_f1"),
        ],
    )
