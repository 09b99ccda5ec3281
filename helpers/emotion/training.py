"""The recipe of the emotion network and its training: one stage, from labelled faces to a calibrated classifier."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import keras
import numpy as np
from scipy.optimize import minimize_scalar

from helpers.emotion.augmentation import FaceAugmentation, augment_faces, mixup
from helpers.emotion.classifier import DEFAULT_EMOTION, save_emotion, with_temperature
from helpers.emotion.data import FaceData
from helpers.emotion.faces import FacePreprocessor, FaceSpec
from helpers.emotion.model import NetworkSpec, build_mini_xception, compile_emotion, trainable_twin
from helpers.keras_files import load_keras
from helpers.model_files import load_labels, read_config
from helpers.runtime import KerasFunction
from helpers.training import capped_class_weights, fit, make_optimizer

_ENOUGH_TO_CALIBRATE = 30  # validation faces; a temperature fitted on fewer says more about them than about the network


@dataclass(frozen=True)
class OptimizerSpec:
    """name: of `training.make_optimizer`. rate: learning rate at its peak. weight_decay: AdamW's, per step and rate."""

    name: str = "adamw"
    rate: float = 2e-3
    weight_decay: float = 0.05


@dataclass(frozen=True)
class EmotionRecipe:
    """Everything that decides what a face network becomes. The defaults train in 80 minutes on two cores.

    face: how a face becomes the input (pixels); notebook 03 measures it.
    network: widths and regularisation; below a million parameters, so that a face takes 1 ms on one thread.
    augmentation: how far training changes a face; covers cameras that FER-2013 does not know.
    optimizer: AdamW with warm-up and cosine decay: notebook 05 compares it with others.
    batch: faces a step; 128 keeps two cores busy and the gradient noisy enough to regularise.
    epochs: passes over the faces; the cosine ends with the last one.
    label_smoothing: share of each target that is spread evenly, because labels are sometimes wrong.
    focal_gamma: exponent of (1 - p) in the loss; 0.5 turns a little towards hard faces.
    class_weight_cap: a class counts inversely to its frequency but at most so much (then rescaled to mean 1): 1 lifts
        no class above average and lowers the most frequent ones.
    vote_share: share of each target that FER+'s ten raters decide, where there are votes (`data.expected_labels`).
    validation_fraction: share of the training faces that is held out to choose the epoch and the temperature.
    seed: of the first weights, the order of the faces and the augmentation; the split does not depend on it.
    """

    face: FaceSpec = field(default_factory=FaceSpec)
    network: NetworkSpec = field(default_factory=NetworkSpec)
    augmentation: FaceAugmentation = field(default_factory=FaceAugmentation)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    batch: int = 128
    epochs: int = 60
    label_smoothing: float = 0.05
    focal_gamma: float = 0.5
    class_weight_cap: float = 1.0
    vote_share: float = 0.5
    validation_fraction: float = 0.1
    seed: int = 1

    def as_dict(self) -> dict:
        """JSON types only; `from_dict` reads it back."""
        return {**asdict(self), "network": {**asdict(self.network), "widths": list(self.network.widths)}}

    @classmethod
    def from_dict(cls, config: dict) -> EmotionRecipe:
        """From `as_dict`; keys that are no field, as a data set's name, are passed over."""
        values = {key: config[key] for key in (item.name for item in fields(cls)) if key in config}
        network = {**values["network"], "widths": tuple(values["network"]["widths"])}
        parts = {
            "face": FaceSpec(**values["face"]),
            "network": NetworkSpec(**network),
            "augmentation": FaceAugmentation(**values["augmentation"]),
            "optimizer": OptimizerSpec(**values["optimizer"]),
        }
        return cls(**{**values, **parts})


class FaceBatches(keras.utils.PyDataset):
    """Shuffled batches of faces: crops -> augmented -> the evaluation's own `normalise` -> mixup.

    crops uint8 (N, size, size); targets float32 (N, classes), one-hot or soft; weights float32 (classes,), 1 if None.
    Gives (images float32 (B, size, size, 1), targets float32 (B, classes), weights float32 (B,)). A batch depends on
    seed, epoch and its number alone.
    """

    def __init__(
        self,
        crops: np.ndarray,
        targets: np.ndarray,
        preprocessor: FacePreprocessor,
        *,
        augmentation: FaceAugmentation,
        batch: int,
        seed: int,
        weights: np.ndarray | None = None,
    ):
        super().__init__(workers=max(1, (os.cpu_count() or 1) // 4))  # two cores are busy enough with the training
        self.crops, self.targets, self.preprocessor, self.augmentation = crops, targets, preprocessor, augmentation
        self.batch, self.seed, self.epoch = batch, seed, 0
        self.weights = np.ones(targets.shape[1], np.float32) if weights is None else weights
        self._shuffle()

    def __len__(self) -> int:
        return int(np.ceil(len(self.crops) / self.batch))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        images = self.preprocessor.normalise(augment_faces(self.crops[chosen], self.augmentation, rng))
        images, targets = mixup(images, self.targets[chosen], self.augmentation.mixup_alpha, rng=rng)
        return images, targets, targets @ self.weights

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.crops))


def train_emotion(
    recipe: EmotionRecipe, data: FaceData, work: Path, *, from_shipped: bool = False
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train a Mini-Xception; (network with the weights of the best validation epoch, history). Continues in `work`.

    from_shipped: keep the shipped network's features and train the last layer alone, for when there are few faces.
    """
    keras.utils.set_random_seed(recipe.seed)
    classes, preprocessor = len(data.labels), FacePreprocessor(recipe.face)
    batches = FaceBatches(
        data.crops,
        data.soft_targets,
        preprocessor,
        augmentation=recipe.augmentation,
        batch=recipe.batch,
        seed=recipe.seed,
        weights=capped_class_weights(data.targets, classes, recipe.class_weight_cap),
    )
    model = build_mini_xception(classes, recipe.face.size, recipe.network)
    if from_shipped:
        _start_from_shipped(model, data.labels)
    twin = trainable_twin(model)
    steps = len(batches) * recipe.epochs
    optimizer = make_optimizer(
        recipe.optimizer.name, recipe.optimizer.rate, steps, weight_decay=recipe.optimizer.weight_decay
    )
    compile_emotion(twin, optimizer, recipe.label_smoothing, gamma=recipe.focal_gamma)
    validation = (
        preprocessor.normalise(data.validation_crops),
        np.eye(classes, dtype=np.float32)[data.validation_targets],
    )
    history = fit(twin, batches, validation, epochs=recipe.epochs, work=work, seed=recipe.seed)
    model.set_weights(twin.get_weights())
    model.trainable = True
    return model, history


def train_classifier(recipe: EmotionRecipe, data: FaceData, folder: Path) -> dict[str, list[float]]:
    """Train a network and write it with labels, temperature and class prior into `folder`; returns the history.

    What `EmotionClassifier.load` reads: its answers are calibrated on the validation faces and assume that all classes
    are equally likely (`classifier.correct_prior`). Checkpoints are kept in `folder`/work.
    """
    model, history = train_emotion(recipe, data, folder / "work")
    save_trained(model, recipe, data, folder=folder, suffixes=(".h5",))
    return history


def save_trained(
    model: keras.Model,
    recipe: EmotionRecipe,
    data: FaceData,
    *,
    folder: Path,
    suffixes: tuple[str, ...] = (".keras", ".h5"),
) -> None:
    """Write a trained network with its labels, its temperature on the validation faces and training's class prior."""
    answers = KerasFunction(model)(FacePreprocessor(recipe.face).normalise(data.validation_crops))
    temperature = fit_temperature(answers, data.validation_targets)
    save_emotion(
        folder,
        model,
        data.labels,
        spec=recipe.face,
        temperature=temperature,
        class_prior=data.class_prior(recipe.class_weight_cap),
        suffixes=suffixes,
    )


def _start_from_shipped(model: keras.Model, labels: Sequence[str]) -> None:
    """Give `model` the shipped network's weights and freeze all but the last layer.

    A class that the shipped network knows starts from its map there, with the bias that a uniform prior asks for.
    """
    shipped, known = load_keras(DEFAULT_EMOTION / "emotion_model.h5"), load_labels(DEFAULT_EMOTION / "labels.json")
    for layer in model.layers:
        if layer.weights and layer.name != "class_maps":
            layer.set_weights(shipped.get_layer(layer.name).get_weights())
            layer.trainable = False
    config = read_config(DEFAULT_EMOTION / "config.json")
    (kernel, bias), (shipped_kernel, shipped_bias) = (
        network.get_layer("class_maps").get_weights() for network in (model, shipped)
    )
    for place, label in enumerate(labels):
        if label in known:
            kernel[..., place] = shipped_kernel[..., known.index(label)]
            share = config.get("class_prior", {}).get(label, 1.0)
            bias[place] = shipped_bias[known.index(label)] - config["temperature"] * np.log(share)
    model.get_layer("class_maps").set_weights([kernel, bias])


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T for which softmax(log p / T) has the smallest cross-entropy on these faces (Guo et al., 2017).

    probabilities (N, classes), targets int (N,): of a validation part. Above 1 the network was too sure, below too shy;
    1 when there are fewer than 30 faces to tell.
    """
    if len(targets) < _ENOUGH_TO_CALIBRATE:
        return 1.0
    probabilities = np.asarray(probabilities, np.float64)  # small ones to a high power

    def cross_entropy(log_temperature: float) -> float:
        scaled = with_temperature(probabilities, np.exp(log_temperature))
        return float(-np.mean(np.log(scaled[np.arange(len(targets)), targets])))

    return round(float(np.exp(minimize_scalar(cross_entropy, bounds=(-2, 2), method="bounded").x)), 4)
