"""Mini-Xception, its loss and mixup, in functional Keras 3."""

from __future__ import annotations

import re
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers, regularizers

from helpers.emotion.faces import recognition_model


def build_mini_xception(
    classes: int,
    size: int = 48,
    stem: int = 8,
    widths: tuple[int, ...] = (16, 32, 64, 128),
    dropout: float = 0.3,
    l2: float = 1e-4,
    middle: int = 0,
    inner_size: int | None = None,
) -> keras.Model:
    """Mini-Xception (Arriaga, Valdenegro-Toro & Plöger, 2017, arXiv:1710.07557).

    Two plain convolutions, one residual block of separable convolutions per entry of `widths` (each halves the side),
    a convolution that turns the last feature maps into one map per class, and their average.
    middle: blocks that keep side and width, in front of the last one, like the middle flow of Xception (Chollet, 2017).

    Input float32 (size, size, 1), standardised (`faces.FacePreprocessor`); output float32 (classes,) softmax.
    stem: filters of the two first convolutions. dropout: rate in front of the last convolution.
    l2: weight decay of every convolution kernel. inner_size: the face is enlarged to this side in pixels first
        (bilinear): more computing for each parameter (Tan & Le, 2019, arXiv:1905.11946).
    """
    penalty = regularizers.L2(l2) if l2 else None
    inputs = keras.Input((size, size, 1), name="face")
    x = layers.Resizing(inner_size, inner_size, name="enlarge")(inputs) if inner_size else inputs
    for number in (1, 2):
        x = layers.Conv2D(stem, 3, padding="same", use_bias=False, kernel_regularizer=penalty, name=f"stem{number}")(x)
        x = layers.BatchNormalization(name=f"stem{number}_norm")(x)
        x = layers.Activation("relu", name=f"stem{number}_relu")(x)
    for number, width in enumerate(widths, 1):
        if number == len(widths):
            for extra in range(1, middle + 1):
                deeper = _separable_pair(x, widths[-2], penalty, f"middle{extra}")
                x = layers.Add(name=f"middle{extra}_add")([deeper, x])
        x = _residual_block(x, width, penalty, f"block{number}")
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Conv2D(classes, 3, padding="same", kernel_regularizer=penalty, name="class_maps")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, layers.Activation("softmax", name="emotion")(x), name="mini_xception")


def _residual_block(x, width: int, penalty, name: str):
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


# Filters and blocks of dlib's face recognition network; its last block is left out, which knows people, not faces.
RECOGNITION_LEVELS = ((32, 3), (64, 4), (128, 3), (256, 3))
RECOGNITION_SIDE = 150  # pixels of the faces it was trained on


def build_face_resnet(classes: int, size: int = 48, dropout: float = 0.3, weights: str | None = "dlib") -> keras.Model:
    """dlib's face recognition network (King, 2017; a ResNet: He et al., 2016, arXiv:1512.03385) as a teacher of emotions.

    The gray face is enlarged to `RECOGNITION_SIDE` pixels in three equal channels; residual blocks, average, softmax.
    4.4 million parameters. weights: "dlib" starts from what three million pictures of faces taught it, None at random.

    Input and output are those of `build_mini_xception`. dlib's file has no normalisation to train with; here there is
    one after each convolution that changes nothing yet. Give it its statistics (`calibrate_normalisation`) before training.
    """
    learned = read_recognition_weights() if weights == "dlib" else None
    inputs = keras.Input((size, size, 1), name="face")
    x = layers.Resizing(RECOGNITION_SIDE, RECOGNITION_SIDE, name="enlarge")(inputs)
    x = layers.Rescaling(0.23, name="to_the_range_of_photos")(x)  # the usual deviation of a photo's pixels, of 0..1
    x = layers.Concatenate(name="three_channels")([x, x, x])
    x = layers.Activation("relu", name="stem_relu")(_normalised_convolution(x, 32, 7, 2, "stem", learned))
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for level, (width, blocks) in enumerate(RECOGNITION_LEVELS, 1):
        for block in range(blocks):
            name, stride = f"block{level}{'abcd'[block]}", 2 if level > 1 and block == 0 else 1
            y = _normalised_convolution(x, width, 3, stride, f"{name}_1", learned)
            y = layers.Activation("relu", name=f"{name}_relu1")(y)
            y = _normalised_convolution(y, width, 3, 1, f"{name}_2", learned)
            if stride == 2:
                x = layers.AveragePooling2D(2, name=f"{name}_shortcut")(x)
            sides = tuple(max(one, two) for one, two in zip(x.shape[1:], y.shape[1:]))
            x = layers.Add(name=f"{name}_add")([_zeros_to(x, sides, f"{name}_x"), _zeros_to(y, sides, f"{name}_y")])
            x = layers.Activation("relu", name=f"{name}_relu2")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="emotion")(x), name="face_resnet")


def _normalised_convolution(x, width: int, side: int, stride: int, name: str, learned: Iterator | None):
    """Convolution and normalisation; with dlib's weights the normalisation only adds the bias."""
    convolution = layers.Conv2D(
        width, side, strides=stride, padding="same" if stride == 1 else "valid", use_bias=False, name=name
    )
    norm = layers.BatchNormalization(momentum=0.98, name=f"{name}_norm")
    out = norm(convolution(x))
    if learned:
        kernel, bias = next(learned)
        convolution.set_weights([kernel])
        one = np.ones(width, np.float32)
        norm.set_weights([one, bias, 0 * one, one - norm.epsilon])
    return out


def _zeros_to(x, shape: tuple[int, ...], name: str):
    """dlib adds maps of different sizes as if the smaller one went on with zeros."""
    rows, columns, channels = (want - have for want, have in zip(shape, x.shape[1:]))
    if rows or columns:
        x = layers.ZeroPadding2D(((0, rows), (0, columns)), name=f"{name}_side")(x)
    if channels:  # always twice as many
        x = layers.Concatenate(name=f"{name}_channels")([x, layers.Rescaling(0.0, name=f"{name}_zeros")(x)])
    return x


def read_recognition_weights() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Kernel float32 (side, side, in, out) and bias (out,) of each convolution of dlib's network, from the input on.

    They are in a file of dlib's own format (`faces.recognition_model`): after a layer's name the version
    and the sizes of its parameters, then the parameters. Each convolution is followed by a scale and an offset per
    channel, what training left of its normalisation; they are part of the kernel and bias here.
    """
    content = recognition_model().read_bytes()
    kernel = None
    for name in re.finditer(rb"con_4|affine_", content):
        values = _dlib_tensor(content, name.end())
        if name.group() == b"con_4":
            kernel = values
            continue
        scale, offset = np.split(values, 2)
        weights, bias = kernel[: -len(scale)].reshape(len(scale), -1), kernel[-len(scale) :]
        side = 7 if weights.shape[1] == 3 * 49 else 3
        weights = (weights * scale[:, None]).reshape(len(scale), -1, side, side)
        yield weights.transpose(2, 3, 1, 0), bias * scale + offset


def _dlib_tensor(content: bytes, place: int) -> np.ndarray:
    """The float32 values of a tensor. dlib writes a whole number as a byte that counts its bytes, then these."""
    numbers = []
    for _ in range(5):  # version, then four sizes
        length = content[place] & 15
        numbers.append(int.from_bytes(content[place + 1 : place + 1 + length], "little"))
        place += 1 + length
    return np.frombuffer(content, "<f4", int(np.prod(numbers[1:])), place)


def calibrate_normalisation(model: keras.Model, images: np.ndarray) -> None:
    """Give every batch normalisation the mean and variance of its input on these images, and the scale and offset with
    which the network computes what it did before.

    Networks whose normalisation was merged into their convolutions can be trained on with it after that.
    """
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    seen = keras.Model(model.input, [norm.input for norm in norms]).predict(images, batch_size=64, verbose=0)
    for norm, values in zip(norms, seen, strict=True):
        scale, offset, mean, variance = norm.get_weights()
        slope = scale / np.sqrt(variance + norm.epsilon)
        new_mean, new_variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
        norm.set_weights(
            [slope * np.sqrt(new_variance + norm.epsilon), offset + slope * (new_mean - mean), new_mean, new_variance]
        )


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


def trainable_twin(model: keras.Model, side: int, precision: str = "float32") -> keras.Model:
    """A copy of a fully convolutional face model for pictures of another side, with fused batch normalisation.

    precision: "mixed_bfloat16" computes the layers before the average in bfloat16, twice as fast on processors with
    AVX-512 BF16 or AMX and slower on all others; the weights stay float32 (Micikevicius et al., 2018, arXiv:1710.03740).
    The weights have the same order: `model.set_weights(twin.get_weights())` brings them back.
    """
    whole = {model.get_layer("average"), model.layers[-1]}

    def copy(layer):
        kind = FusedBatchNormalization if type(layer) is layers.BatchNormalization else type(layer)
        return kind.from_config({**layer.get_config(), "dtype": "float32" if layer in whole else precision})

    twin = keras.models.clone_model(model, input_tensors=keras.Input((side, side, 1), name="face"), clone_function=copy)
    twin.set_weights(model.get_weights())
    return twin


def mixup(
    images: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blend each sample of a batch with another one (Zhang et al., 2018, arXiv:1710.09412).

    images (N, ...), targets (N, classes) one-hot or soft. The share of the first is drawn per sample from
    Beta(alpha, alpha) and is at least one half, so a sample stays mostly itself.
    """
    if alpha <= 0:
        return images, targets
    partner, share = draw_mixup(len(images), alpha, rng)
    return blend(images, images[partner], share), blend(targets, targets[partner], share)


def draw_mixup(count: int, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For `count` samples the partner int (N,) that each is blended with, and its own share float32 (N,)."""
    share = rng.beta(alpha, alpha, count).astype(np.float32)
    return rng.permutation(count), np.maximum(share, 1 - share)


def blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """share * first + (1 - share) * second, row by row."""
    share = share.reshape(-1, *[1] * (first.ndim - 1))
    return share * first + (1 - share) * second


def compile_emotion(model: keras.Model, optimizer: keras.optimizers.Optimizer, smoothing: float, gamma: float) -> None:
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
