"""Training the emotion network on face crops: data, augmentation, calibration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import keras
import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from helpers.data.cache import cached_array, content_key, weights_key
from helpers.data.duplicates import group_by_pixels
from helpers.data.fer2013 import FER_PLUS, read_manifest
from helpers.data.folders import Sample, list_split
from helpers.data.paths import ARTIFACTS, data_root, find_dataset
from helpers.data.splits import split_groups
from helpers.emotion.classifier import (
    EmotionClassifier,
    save_emotion,
    save_emotion_settings,
    with_temperature,
)
from helpers.emotion.faces import FaceFinder, FacePreprocessor, FaceSpec, crop_samples
from helpers.emotion.model import (
    blend,
    build_face_resnet,
    build_mini_xception,
    calibrate_normalisation,
    compile_emotion,
    draw_mixup,
    mixup,
    trainable_twin,
)
from helpers.errors import DataError
from helpers.evaluate.predict import predict_emotions
from helpers.runtime import KerasFunction, load_keras
from helpers.synthetic.samples import cached_emotion_samples
from helpers.training import capped_class_weights, fit, load_run, make_optimizer, profile


def fer_samples(split: str) -> list[Sample]:
    """FER-2013's "train" or "test" faces; in the smoke profile, and where the data set is missing, drawn ones."""
    source = None if profile() == "smoke" else find_dataset("fer2013")
    if source is None:
        source = cached_emotion_samples(per_class=60)
    return list_split(source, split)


def fer_parts(config: dict) -> tuple[list[Sample], list[Sample]]:
    """FER-2013's training faces, and the validation faces that are cut off them; equal pictures stay on one side.

    config: validation_fraction, seed.
    """
    return split_groups(group_by_pixels(fer_samples("train")), config["validation_fraction"], config["seed"])


def expected_labels(labels: np.ndarray, votes: np.ndarray, classes: int) -> np.ndarray:
    """float32 (N, classes): which label FER-2013 gives, on average, to a face with these FER+ votes.

    labels: int (N,), FER-2013's. votes: (N, 10) counts of FER+ raters (Barsoum et al., 2016, arXiv:1608.01041) in the
    order of `datasets.FER_PLUS`; a row of zeros, where FER+ has no votes, keeps its label.

    FER+ raters call more faces neutral than FER-2013 does, so their votes are not taken as they are: a logistic
    regression from the shares of the votes to FER-2013's label keeps what the raters saw and FER-2013's habits.
    """
    expected = np.eye(classes, dtype=np.float32)[labels]
    rated = votes.sum(axis=1) > 0
    if rated.any():
        shares = votes[rated] / votes[rated].sum(axis=1, keepdims=True)
        regression = LogisticRegression(C=10.0, max_iter=1000).fit(shares, labels[rated])
        rows = np.zeros((len(shares), classes), np.float32)
        rows[:, regression.classes_] = regression.predict_proba(shares)
        expected[rated] = rows
    return expected


def fer_votes(samples: list[Sample]) -> np.ndarray:
    """int (N, 10): FER+ votes of each face from `fer2013_manifest.csv`; zeros where there are none, or no such file."""
    path, votes = data_root() / "fer2013_manifest.csv", np.zeros((len(samples), len(FER_PLUS)), int)
    if path.is_file():
        rows = {Path(row.file).name: row.votes for row in read_manifest(path)}
        for line, sample in zip(votes, samples, strict=True):
            line[:] = [rows.get(sample.path.name, {}).get(name, 0) for name in FER_PLUS]
    return votes


def face_arrays(samples: list[Sample], labels: tuple[str, ...], spec: FaceSpec) -> tuple[np.ndarray, np.ndarray]:
    """(crops uint8 (N, size, size), targets int (N,)) of images that are already cut to the face; cached on disk."""
    if not samples:
        raise DataError("no face images to read")
    framing = FaceSpec(spec.size, spec.align, spec.expand)  # the crop depends on nothing else
    crops = _cached_crops(content_key(samples), framing.as_dict(), samples)
    return crops, np.array([labels.index(sample.label) for sample in samples])


@cached_array(ignore=("samples",))
def _cached_crops(key: str, spec: dict, samples: list[Sample]) -> np.ndarray:
    return crop_samples(samples, FacePreprocessor(FaceSpec(**spec)), FaceFinder())[0]


def augment_faces(
    crops: np.ndarray,
    rng: np.random.Generator,
    degrees: float = 12,
    shift: float = 0.08,
    zoom: float = 0.12,
    stretch: float = 0.0,
) -> np.ndarray:
    """Random mirror, rotation (degrees), shift and zoom (shares of the side) of uint8 crops (N, size, size).

    The ranges cover the alignment's own errors. Light is not varied: CLAHE and standardisation remove it.
    stretch: the face's height is multiplied by exp(u / 2) and its width divided by it, u between -stretch and stretch:
        0.25 covers photos of 4:5 and 5:4 that somebody squeezed to a square.
    """
    size = crops.shape[1]
    out = np.empty_like(crops)
    for index, crop in enumerate(crops):
        matrix = cv2.getRotationMatrix2D(
            (size / 2, size / 2), rng.uniform(-degrees, degrees), 1 + rng.uniform(-zoom, zoom)
        )
        matrix[:, 2] += rng.uniform(-shift, shift, 2) * size
        if stretch:
            taller = np.exp(rng.uniform(-stretch, stretch) / 2)
            sides = np.array([1 / taller, taller])
            matrix[:, 2] += matrix[:, :2] @ ((1 - sides) * size / 2)
            matrix[:, :2] *= sides
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        out[index] = cv2.warpAffine(np.ascontiguousarray(crop), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return out


def corrupt(image: np.ndarray, noise: float, blur: float, rng: np.random.Generator) -> np.ndarray:
    """An image, uint8 of any shape, as a worse camera gives it: blurred, then noisy.

    blur: standard deviation of the Gaussian filter, in pixels; up to 0.2 it is none. noise: that of the Gaussian noise, in gray levels.
    """
    if blur > 0.2:  # the neighbours' weights in a narrower filter are below 1 in 255
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return np.clip(np.rint(image + noise * rng.standard_normal(image.shape, np.float32)), 0, 255).astype(np.uint8)


def corrupt_faces(crops: np.ndarray, rng: np.random.Generator, noise: float, blur: float) -> np.ndarray:
    """Each of uint8 crops (N, size, size) disturbed (`corrupt`) by its own amounts, drawn evenly from 0 to `noise` and `blur`.

    With neither, the crops themselves, and nothing is drawn from rng.
    """
    if not (noise or blur):
        return crops
    out = np.empty_like(crops)
    for index, crop in enumerate(crops):
        sigma, deviation = rng.uniform(0, blur), rng.uniform(0, noise)
        out[index] = corrupt(crop, deviation, sigma, rng)
    return out


def resize_faces(images: np.ndarray, side: int | None) -> np.ndarray:
    """float32 (N, size, size, 1) to (N, side, side, 1), averaging over areas; None and the same side change nothing."""
    if side is None or side == images.shape[1]:
        return images
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])[..., None]


@dataclass(frozen=True)
class FaceView:
    """One fixed look at all training faces: augmented pictures, and with whom each is blended (`mixup`).

    pictures: uint8 (N, size, size), already equalised. partner: int (N,). share: float32 (N,), of the face itself.
    """

    pictures: np.ndarray
    partner: np.ndarray
    share: np.ndarray

    def images(self, chosen: np.ndarray, preprocessor: FacePreprocessor) -> np.ndarray:
        """float32 (B, size, size, 1): the blended faces with these indices, as a network takes them."""
        first, second = (preprocessor.scale(self.pictures[which]) for which in (chosen, self.partner[chosen]))
        return blend(first, second, self.share[chosen])

    def targets(self, rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """float32 (B, classes): their targets, of those of all faces (N, classes)."""
        return blend(rows[chosen], rows[self.partner[chosen]], self.share[chosen])


def face_view(
    crops: np.ndarray,
    preprocessor: FacePreprocessor,
    number: int,
    mixup_alpha: float,
    stretch: float = 0.0,
    noise: float = 0.0,
    blur: float = 0.0,
) -> FaceView:
    """View `number` of crops uint8 (N, size, size): the same number gives the same pictures, on any machine.

    Noise and blur (`corrupt_faces`) change neither the faces' places nor who is blended with whom.
    """
    rng = np.random.default_rng((2015, number))
    pictures = augment_faces(crops, rng, stretch=stretch)
    blends = draw_mixup(len(crops), mixup_alpha, rng)
    return FaceView(preprocessor.equalise(corrupt_faces(pictures, rng, noise, blur)), *blends)


def teach(
    teacher: keras.Model,
    crops: np.ndarray,
    preprocessor: FacePreprocessor,
    views: int,
    mixup_alpha: float,
    stretch: float = 0.0,
    batch: int = 256,
) -> np.ndarray:
    """float32 (views, N, classes): what a network answers to `face_view` 0, 1, ... of crops (N, size, size).

    What a student is trained on (distillation: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531; the same view, blended
    too, for teacher and student: Beyer et al., 2022, arXiv:2106.05237).
    """
    function = KerasFunction(teacher)
    answers = np.empty((views, len(crops), teacher.output_shape[-1]), np.float32)
    for number in range(views):
        view = face_view(crops, preprocessor, number, mixup_alpha, stretch)
        for start in range(0, len(crops), batch):
            chosen = np.arange(start, min(start + batch, len(crops)))
            answers[number, chosen] = function(view.images(chosen, preprocessor), batch)
    return answers


class FaceBatches(keras.utils.PyDataset):
    """Shuffled, augmented batches of faces: crops -> augment -> the evaluation's own normalisation -> side -> mixup.

    stretch: how much `augment_faces` may change the ratio of a face's sides. noise, blur: see `corrupt_faces`; the
        teachers saw the same faces without.
    side: the pictures are reduced to this many pixels in front of mixup; None leaves them as they are.
    answers: float32 (views, N, classes), what teachers say to each `face_view` (`teach`). They make `teacher_share` of
        the targets, and epoch after epoch shows one view after the other.
    Gives (images float32 (B, side, side, 1), targets float32 (B, classes), weights float32 (B,)).
    """

    def __init__(
        self,
        crops: np.ndarray,
        targets: np.ndarray,
        preprocessor: FacePreprocessor,
        batch: int,
        seed: int,
        mixup_alpha: float = 0.0,
        weights: np.ndarray | None = None,
        augment: bool = True,
        side: int | None = None,
        answers: np.ndarray | None = None,
        teacher_share: float = 0.0,
        stretch: float = 0.0,
        noise: float = 0.0,
        blur: float = 0.0,
    ):
        super().__init__(
            workers=max(1, (os.cpu_count() or 1) // 4)
        )  # two cores are busy enough with the training itself
        self.side, self.answers, self.teacher_share, self._view, self._lock = side, answers, teacher_share, None, Lock()
        self.crops, self.targets, self.preprocessor, self.batch = crops, targets, preprocessor, batch
        self.seed, self.mixup_alpha, self.augment, self.epoch = seed, mixup_alpha, augment, 0
        self.stretch, self.noise, self.blur = stretch, noise, blur
        self.weights = np.ones(targets.shape[1], np.float32) if weights is None else weights
        self.order = np.random.default_rng(seed).permutation(len(crops))

    def __len__(self) -> int:
        return int(np.ceil(len(self.crops) / self.batch))

    def __getitem__(self, index: int):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        if self.answers is not None:
            number = self.epoch % len(self.answers)
            view = self._taught_view(number)
            images = resize_faces(view.images(chosen, self.preprocessor), self.side)
            targets = self.teacher_share * self.answers[number, chosen] + (1 - self.teacher_share) * view.targets(
                self.targets, chosen
            )
        else:
            crops = augment_faces(self.crops[chosen], rng, stretch=self.stretch) if self.augment else self.crops[chosen]
            crops = corrupt_faces(crops, rng, self.noise, self.blur)
            images = resize_faces(self.preprocessor.normalise(crops), self.side)
            images, targets = mixup(images, self.targets[chosen], self.mixup_alpha, rng)
        return images, targets, targets @ self.weights

    def _taught_view(self, number: int) -> FaceView:
        with self._lock:
            if self._view is None or self._view[0] != number:
                self._view = (
                    number,
                    face_view(
                        self.crops, self.preprocessor, number, self.mixup_alpha, self.stretch, self.noise, self.blur
                    ),
                )
            return self._view[1]

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.crops))


def train_emotion(model: keras.Model, config: dict, data: dict, work: Path) -> dict[str, list[float]]:
    """Train `model` on face crops as `config` says; returns the history.

    config: optimizer, learning_rate, batch, epochs, label_smoothing, focal_gamma, mixup_alpha, class_weight_cap, seed;
        optionally weight_decay, augment (bool), stretch, noise, blur, precision (`trainable_twin`), and side, to
        train on reduced pictures (progressive resizing: cheap epochs first).
    data: train and val crops uint8 (N, size, size); train_targets and val_targets int (N,); preprocessor; optionally
        soft_targets float32 (N, classes) to train on instead of the labels, and answers (`teach`), which are worth
        config["teacher_share"] of the targets.
    work: folder of the checkpoints.
    """
    classes, side = model.output_shape[-1], config.get("side") or model.input_shape[1]
    one_hot = np.eye(classes, dtype=np.float32)
    targets = data["soft_targets"] if "soft_targets" in data else one_hot[data["train_targets"]]
    batches = FaceBatches(
        data["train"],
        targets,
        data["preprocessor"],
        config["batch"],
        config["seed"],
        config["mixup_alpha"],
        capped_class_weights(data["train_targets"], classes, config["class_weight_cap"]),
        config.get("augment", True),
        side,
        data.get("answers"),
        config.get("teacher_share", 0.0),
        config.get("stretch", 0.0),
        config.get("noise", 0.0),
        config.get("blur", 0.0),
    )
    optimizer = make_optimizer(
        config["optimizer"], config["learning_rate"], len(batches) * config["epochs"], config.get("weight_decay", 1e-4)
    )
    twin = trainable_twin(model, side, config.get("precision", "float32"))
    compile_emotion(twin, optimizer, config["label_smoothing"], config["focal_gamma"])
    validation = (resize_faces(data["preprocessor"].normalise(data["val"]), side), one_hot[data["val_targets"]])
    history = fit(twin, batches, validation, config["epochs"], work, config["seed"])
    model.set_weights(twin.get_weights())
    return history


def fer_data(config: dict) -> dict:
    """`fer_parts` as `train_emotion` needs them.

    With vote_share also votes (`fer_votes`) of the training faces.

    config: labels, face, validation_fraction, vote_share (0: the labels alone, 1: `expected_labels` alone), seed;
        optionally teacher, a run of `train_teachers` below artifacts/ whose answers are learned from, with its view_alpha
        as mixup_alpha and its stretch (not in the smoke profile: it has other faces).
    """
    labels, spec = tuple(config["labels"]), FaceSpec(**config["face"])
    fit_part, validation = fer_parts(config)
    data = {"preprocessor": FacePreprocessor(spec), "content": content_key(fit_part)}
    for name, part in (("train", fit_part), ("val", validation)):
        data[name], data[f"{name}_targets"] = face_arrays(part, labels, spec)
    if config["vote_share"]:
        data["votes"] = votes = fer_votes(fit_part)
        if profile() == "full" and not votes.any():
            raise DataError(
                f"{data_root() / 'fer2013_manifest.csv'}: no FER+ votes for these faces; get the file "
                "(data/README.md) or set vote_share to 0"
            )
        expected = expected_labels(data["train_targets"], votes, len(labels))
        one_hot = np.eye(len(labels), dtype=np.float32)[data["train_targets"]]
        data["soft_targets"] = (1 - config["vote_share"]) * one_hot + config["vote_share"] * expected
    if config.get("teacher") and profile() != "smoke":
        folder = ARTIFACTS / config["teacher"]
        asked = load_run(folder).config
        seen = {"face": asked["face"], "mixup_alpha": asked["view_alpha"], "stretch": asked.get("stretch", 0.0)}
        shown = {key: config.get(key, 0.0) for key in seen}
        if seen != shown:
            raise DataError(f"{folder}: its answers are to faces with {seen}; a student must see the same, not {shown}")
        data["answers"] = load_answers(folder, data["content"])
    return data


def train_teachers(config: dict, work: Path) -> dict[str, list[float]]:
    """Train some networks that differ in their starts and in the order of the faces alone, and keep what they answer.

    Their mean answers to `views` views (`teach`) go to answers.npz, each one's answers to the validation faces to
    validation.npz. Of the networks the first is kept, in emotion_model.keras, with labels.json and config.json.
    config: members, views, view_alpha (the views' mixup) and what `train_face_model` needs. Gives the mean history;
        `seconds` is their sum.
    """
    data, histories, said, answers = fer_data(config), [], [], 0.0
    views = dict(views=config["views"], mixup_alpha=config["view_alpha"], stretch=config.get("stretch", 0.0))
    for member in range(config["members"]):
        model, history = train_face_model(dict(config, seed=config["seed"] + member), data, work / "work" / str(member))
        histories.append(history)
        said.append(KerasFunction(model)(data["preprocessor"].normalise(data["val"])))
        if member == 0:
            save_face_network(model, config, fit_temperature(said[0], data["val_targets"]), work)
        twin = trainable_twin(model, model.input_shape[1], config.get("precision", "float32"))
        answers = (
            answers
            + _cached_answers(
                data["content"], config["face"], views, weights_key(model), twin, data["train"], data["preprocessor"]
            )
            / config["members"]
        )
    save_answers(work, answers, data["content"])
    np.savez_compressed(
        work / "validation.npz", probabilities=np.float16(said), targets=data["val_targets"].astype(np.uint8)
    )
    mean = {key: np.mean([history[key] for history in histories], axis=0).tolist() for key in histories[0]}
    return {**mean, "seconds": np.sum([history["seconds"] for history in histories], axis=0).tolist()}


@cached_array(ignore=("teacher", "crops", "preprocessor"))
def _cached_answers(content: str, face: dict, views: dict, weights: str, teacher, crops, preprocessor) -> np.ndarray:
    return teach(teacher, crops, preprocessor, **views)


def save_answers(folder: Path, answers: np.ndarray, content: str) -> None:
    """Write answers.npz: answers (views, N, classes) in steps of 1/255, and which faces they are for (`content_key`)."""
    np.savez_compressed(Path(folder) / "answers.npz", answers=np.round(255 * answers).astype(np.uint8), content=content)


def load_answers(folder: Path, content: str) -> np.ndarray:
    """float32 (views, N, classes), rows sum to 1, from answers.npz; `content` says for which faces they must be.

    Raises DataError when the file is missing or is for other faces.
    """
    path = Path(folder) / "answers.npz"
    if not path.is_file():
        raise DataError(f"{path}: no answers of teachers; restore it from git, or train them (`make retrain`)")
    with np.load(path) as file:
        if str(file["content"]) != content:
            raise DataError(
                f"{path}: answers for other training faces than those in {data_root()}; train the teachers "
                "on yours: delete this folder, `make retrain`"
            )
        answers = file["answers"].astype(np.float32)
    return answers / answers.sum(axis=-1, keepdims=True)


def load_face_model(run: str) -> keras.Model:
    """The network that the emotion run of this name, below artifacts/, has trained."""
    return load_keras(ARTIFACTS / run / "emotion_model.keras")


def train_face_model(config: dict, data: dict, work: Path) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train the network of `config` on `fer_data` in two stages; (network, history).

    `small_epochs` on pictures reduced to `small_side` pixels, then `epochs` on whole ones.
    """
    keras.utils.set_random_seed(config["seed"])
    model = emotion_network(config)
    if config.get("network") == "face_resnet":
        calibrate_normalisation(model, data["preprocessor"].normalise(data["train"][::100]))
    history: dict[str, list[float]] = {}
    small = dict(
        config,
        side=config["small_side"],
        learning_rate=config["small_rate"],
        epochs=min(config["small_epochs"], config["epochs"]),
    )
    for name, stage in (("small", small), ("whole", config)):
        if stage["epochs"]:
            more = train_emotion(model, stage, data, work / "work" / name)
            history = {key: history.get(key, []) + more[key] for key in more}
    return model, history


def train_compared(config: dict, work: Path) -> dict[str, list[float]]:
    """Train a face network that is compared with the deployed one; `save_face_network` into `work`, the history."""
    data = fer_data(config)
    model, history = train_face_model(config, data, work)
    save_face_network(model, config, validation_temperature(model, data), work)
    return history


def save_face_network(model: keras.Model, config: dict, temperature: float, folder: Path) -> None:
    """Write emotion_model.keras, labels.json and config.json."""
    model.save(folder / "emotion_model.keras")
    save_emotion_settings(folder, tuple(config["labels"]), FaceSpec(**config["face"]), temperature)


def train_on_fer(config: dict, work: Path) -> dict[str, list[float]]:
    """Train a face network on FER-2013 and write model and predictions into `work`; the history.

    predictions.npz, of the test part, is calibrated with the temperature fitted on validation. With even_mixture the
    model's answers assume that all classes are equally likely (`correct_prior`).
    """
    data = fer_data(config)
    model, history = train_face_model(config, data, work)
    labels, frequencies = tuple(config["labels"]), None
    if config.get("even_mixture"):
        counts = np.bincount(data["train_targets"], minlength=len(labels))
        frequencies = dict(zip(labels, (counts / counts.sum()).round(6).tolist()))
    save_emotion(work, model, labels, FaceSpec(**config["face"]), validation_temperature(model, data), frequencies)
    classifier = EmotionClassifier.load(work)
    predict_emotions(fer_samples("test"), classifier)[0].save(work / "predictions.npz")
    return history


def validation_temperature(model: keras.Model, data: dict) -> float:
    """`fit_temperature` on the validation faces of `fer_data`."""
    return fit_temperature(KerasFunction(model)(data["preprocessor"].normalise(data["val"])), data["val_targets"])


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The temperature T for which softmax(log p / T) has the smallest cross-entropy on these faces (Guo et al., 2017).

    probabilities (N, classes), targets int (N,): of a validation part. Above 1 the network was too sure, below too shy.
    """
    probabilities = np.asarray(probabilities, np.float64)  # small ones to a high power

    def cross_entropy(log_temperature: float) -> float:
        scaled = with_temperature(probabilities, np.exp(log_temperature))
        return float(-np.mean(np.log(scaled[np.arange(len(targets)), targets])))

    return round(float(np.exp(minimize_scalar(cross_entropy, bounds=(-2, 2), method="bounded").x)), 4)


def emotion_network(config: dict) -> keras.Model:
    """The network to train: a Mini-Xception, or a ResNet that knows faces (`build_face_resnet`).

    config: labels, face, dropout and, for a Mini-Xception, stem, widths, l2, middle and optionally inner_size;
        network="face_resnet" needs no more; optionally start_from, the run below artifacts/ whose weights are the first
        ones.
    """
    classes, size = len(config["labels"]), config["face"]["size"]
    if config.get("network") == "face_resnet":
        model = build_face_resnet(classes, size, config["dropout"], None if profile() == "smoke" else "dlib")
    else:
        model = build_mini_xception(
            classes,
            size,
            config["stem"],
            tuple(config["widths"]),
            config["dropout"],
            config["l2"],
            config["middle"],
            config.get("inner_size"),
        )
    if config.get("start_from") and profile() != "smoke":  # there the networks are narrower than the committed ones
        model.set_weights(load_face_model(config["start_from"]).get_weights())
    return model
