"""The deployed action network: one LSTM sees the motion, one the joints, and their answers are averaged.

Two streams with late fusion (Simonyan & Zisserman, 2014, arXiv:1406.2199): each stream alone must name the action, so
that one of them can answer where the other sees nothing. The last output is "none of these".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from keras import layers
from scipy.special import softmax

from helpers.action.classifier import DEFAULT_ACTION, save_action
from helpers.action.clips import NONE, PERSON_FLOW, ClipSpec
from helpers.action.encoder import EncoderRecipe, train_encoder
from helpers.action.joints import ROW, WIDTH, augment_joints, join_rows, joint_vectors
from helpers.action.model import build_backbone, join_action_model, split_action_model
from helpers.action.person import NO_AUGMENTATION, CameraAugmentation, live_memory, person_steps
from helpers.action.pose import open_estimator
from helpers.action.rejection import LiveAnswers, fit_threshold
from helpers.data.cache import cached_array, content_key, weights_key
from helpers.data.folders import Sample, Skipped, list_samples
from helpers.data.jobs import map_files
from helpers.data.paths import data_root, find_dataset
from helpers.data.splits import leave_groups_out
from helpers.data.videos import read_frames
from helpers.errors import DataError
from helpers.keras_files import load_keras
from helpers.predictions import Predictions, stored_arrays
from helpers.runtime import KerasFunction
from helpers.synthetic.samples import cached_action_samples
from helpers.synthetic.scenes import ALONE, IDLE
from helpers.training import capped_class_weights, fit, make_optimizer, profile

SYNTHETIC_LABELS = {
    "low_wave": "wave_one_hand",
    "idle": NONE,
    "beckon": NONE,
    "fidget": NONE,
    "slow_down": NONE,
    "stop": NONE,
}
LEAD_IN = 0.2  # share of standing still at the beginning of the clips of some groups, see `ActionClips`
HELD_OUT = range(2000, 2024)  # synthetic people for the threshold, never trained on
PERSON_CLIP = ClipSpec(channels=PERSON_FLOW)


@dataclass(frozen=True)
class TwoStreamRecipe:
    """Everything that decides how an action network is trained.

    datasets: their actions are the labels; folders named "none" train rejection. encoder: how MobileNetV2 is trained
    before; None for the deployed model's. pose: whether joints are looked for; without, the image follows what moves.
    copies: of each real video, the first un-augmented. least, most: a rare class of a data set is shown so many times
    an epoch, each video at most so often. none_weight: of a clip that shows no action. joined: share of the windows
    that begin with the end of another video.
    """

    datasets: tuple[str, ...] = ("everyday", "webcam")
    encoder: EncoderRecipe | None = None
    pose: bool = True
    copies: int = 2
    synthetic_people: int = 48
    optimizer: str = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    epochs: int = 14
    batch: int = 64
    units: int = 64
    label_smoothing: float = 0.1
    class_weight_cap: float = 3.0
    none_weight: float = 0.7
    joined: float = 0.3
    least: int = 40
    most: int = 4
    folds: int = 8
    seed: int = 1
    clip: ClipSpec = field(default_factory=lambda: PERSON_CLIP)

    def as_dict(self) -> dict:
        """The fields as JSON types, for `fit_or_load`."""
        return {**asdict(self), "datasets": list(self.datasets)}

    @classmethod
    def from_dict(cls, values: dict) -> TwoStreamRecipe:
        """The recipe that `as_dict` recorded."""
        encoder = values["encoder"] and EncoderRecipe(
            **{**values["encoder"], "clip": ClipSpec(**values["encoder"]["clip"])}
        )
        clip, datasets = ClipSpec(**values["clip"]), tuple(values["datasets"])
        return cls(**{**values, "datasets": datasets, "encoder": encoder, "clip": clip})


# ------------------------------------------------------------------------------------------------------ features


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """One video, or one augmented copy of it, as the head sees it.

    motion: float32 (n, 1280), MobileNetV2's features of each time step. joints: float32 (n, ROW).
    """

    motion: np.ndarray
    joints: np.ndarray

    def window(self, start: int, length: int, whole: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`length` steps from `start` on, padded by the last one up to `whole` steps: (motion, joints)."""
        last = min(start + length, len(self.motion)) - 1
        index = np.minimum(np.arange(start, start + (whole or length)), last)
        return self.motion[index], self.joints[index]


def clip_features(
    samples: Sequence[Sample],
    recipe: TwoStreamRecipe,
    encoder: keras.Model,
    copies: int,
    *,
    skipped: list[Skipped] | None = None,
    jobs: int = 1,
    progress: Callable = iter,
) -> tuple[list[Sample], list[list[ClipFeatures]]]:
    """The videos that could be read, and of each its copies. Cached on disk by the video's content, the augmentation
    and the encoder's weights.

    A video that cannot be read is appended to `skipped`; without that list its DataError is raised. jobs, progress: see
    `map_files`.
    """
    done = map_files(_ClipReader(recipe, encoder, copies), samples, jobs, skipped=skipped, progress=progress)
    return [sample for sample, _ in done], [features for _, features in done]


class _ClipReader:
    """Makes of a video its copies as features; another process gets the encoder and opens BlazePose by itself."""

    def __init__(self, recipe: TwoStreamRecipe, encoder: keras.Model, copies: int):
        self._made_from = recipe, encoder, copies
        self._estimator = open_estimator() if recipe.pose else None
        self._key = weights_key(encoder) if self._estimator else f"{weights_key(encoder)}, no pose"
        self._encode = KerasFunction(encoder)
        # Windows of any length share their steps.
        self._step = replace(recipe.clip, length=16, window_s=16 * recipe.clip.step_s)

    def __reduce__(self) -> tuple:
        return _ClipReader, self._made_from

    def __call__(self, sample: Sample) -> list[ClipFeatures]:
        recipe, _, copies = self._made_from
        content = content_key([sample])
        rng = np.random.default_rng([recipe.seed, int(content[:8], 16)])
        changes = [NO_AUGMENTATION, *(CameraAugmentation.draw(rng) for _ in range(copies - 1))]
        given = {"path": sample.path, "encode": self._encode, "estimator": self._estimator}
        arrays = [_person_features(content, self._step, change, self._key, **given) for change in changes]
        return [ClipFeatures(array[:, :-ROW], array[:, -ROW:]) for array in arrays]


@cached_array(ignore=("path", "encode", "estimator"))
def _person_features(content, spec, augmentation, weights, *, path, encode, estimator) -> np.ndarray:
    images, joints = person_steps(read_frames(path), spec, estimator, augmentation=augmentation)
    return np.concatenate([encode(images, batch=16), joints], axis=1)


def synthetic_people(people: range, actions: tuple[str, ...] = tuple(sorted(ALONE))) -> list[Sample]:
    """Clips of synthetic people, 240 rows high, rendered once and kept below .cache/."""
    folder = cached_action_samples(people, actions, (240, 320))
    return [sample for sample in list_samples(folder) if sample.label in actions]


# ------------------------------------------------------------------------------------------------------ the head


def build_two_stream_head(
    outputs: int, length: int, units: int = 64, *, features: int = 1280, dropout: float = 0.4
) -> keras.Model:
    """Motion float32 (length, 1280) and joints (length, WIDTH) to probabilities (outputs,).

    The last output is "none of these". Each stream is Dense, LSTM, mean over time, softmax; the answer is their
    geometric mean.
    """
    motion, joints = keras.Input((length, features), name="motion"), keras.Input((length, WIDTH), name="joints")
    normed = layers.LayerNormalization(name="motion_norm")(motion)
    logs = [
        _stream(layers.Dropout(dropout, name="motion_norm_dropout")(normed), outputs, units, "motion"),
        _stream(joints, outputs, units, "joints"),
    ]
    answer = layers.Activation("softmax", name="action")(layers.Average(name="fusion")(logs))
    return keras.Model([motion, joints], answer, name="action_head")


def _stream(steps, outputs: int, units: int, name: str):
    """Log-probabilities (outputs,) of one stream.

    The LSTM's states are averaged over time: an action may end before the window does.
    """
    x = layers.Dense(64, activation="relu", name=f"{name}_dense")(steps)
    x = layers.Dropout(0.3, name=f"{name}_dense_dropout")(x)
    x = layers.LSTM(units, return_sequences=True, unroll=True, name=f"{name}_lstm")(x)
    x = layers.GlobalAveragePooling1D(name=f"{name}_average")(x)
    x = layers.Dropout(0.4, name=f"{name}_dropout")(x)
    return layers.Activation("log_softmax", name=f"{name}_log")(layers.Dense(outputs, name=f"{name}_votes")(x))


def stream_logs(head: keras.Model) -> keras.Model:
    """The head with each stream's log-probabilities, (2, outputs): motion, joints. It shares the head's weights."""
    logs = [head.get_layer(f"{name}_log").output for name in ("motion", "joints")]
    return keras.Model(head.inputs, keras.ops.stack(logs, axis=1), name="streams")


# ------------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True, eq=False)
class ActionClips:
    """What the head is trained on: real videos and synthetic ones, as features.

    labels: the actions; `targets` number them, `len(labels)` stands for none of them. encoder: gave the features, of
    the real videos, then of the synthetic ones. lead_in: groups whose clips of an action begin with standing still, for
    a share `LEAD_IN`. missing: data sets that were not there.
    """

    labels: tuple[str, ...]
    real: list[Sample]
    synthetic: list[Sample]
    features: list[list[ClipFeatures]]
    encoder: keras.Model | None = None
    lead_in: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()

    @property
    def targets(self) -> np.ndarray:
        """int (videos,)."""
        known = {label: number for number, label in enumerate(self.labels)}
        names = [sample.label for sample in (*self.real, *self.synthetic)]
        return np.array([known.get(name, known.get(SYNTHETIC_LABELS.get(name), len(known))) for name in names])


def load_action_clips(recipe: TwoStreamRecipe, encoder: keras.Model) -> ActionClips:
    """All videos of the recipe as features; says which data sets are missing. Raises DataError when all are.

    In the smoke profile two synthetic people stand in for everything.
    """
    if profile() == "smoke":
        actions = ("wave_one_hand", "raise_hand", "idle")
        real = [
            replace(sample, label=SYNTHETIC_LABELS.get(sample.label, sample.label))
            for sample in synthetic_people(range(2), actions)
        ]
        return read_clips(real, replace(recipe, copies=1), encoder, people=range(1000, 1002))
    found = {name: find_dataset(name) for name in recipe.datasets}
    missing = tuple(name for name, path in found.items() if path is None)
    if len(missing) == len(found):
        raise DataError(f"none of {', '.join(missing)} is in {data_root()}; data/README.md says how to get them")
    for name in missing:
        print(f"left out: data set {name!r} is not in {data_root()}; data/README.md says how to get it")
    real = [sample for path in found.values() if path for sample in list_samples(path)]
    clips = read_clips(real, recipe, encoder, people=range(recipe.synthetic_people))
    still = {sample.group for sample in real if sample.group.startswith("w0")}  # of `webcam`, see data/README.md
    return replace(clips, lead_in=frozenset(still), missing=missing)


def read_clips(
    real: list[Sample],
    recipe: TwoStreamRecipe,
    encoder: keras.Model,
    *,
    people: range,
    skipped: list[Skipped] | None = None,
    jobs: int = 1,
    progress: Callable = iter,
) -> ActionClips:
    """Real videos, and synthetic people who do the same actions or none of them, as features.

    skipped, jobs, progress: see `clip_features`.
    """
    how = {"jobs": jobs, "progress": progress}
    real, features = clip_features(real, recipe, encoder, recipe.copies, skipped=skipped, **how)
    labels = actions_of(real)
    shown = synthetic_people(people, synthetic_actions(labels)) if people else []
    synthetic, more = clip_features(shown, recipe, encoder, 1, **how)
    return ActionClips(labels, real, synthetic, features + more, encoder)


def actions_of(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The labels in order, without that of the clips that show no action."""
    return tuple(sorted({sample.label for sample in samples} - {NONE}))


def synthetic_actions(labels: tuple[str, ...]) -> tuple[str, ...]:
    """What synthetic people do for a network with these labels: the same actions, and what is none of them.

    A gesture (beckoning, a stop sign) could be what a name that the generator does not know means; then those who are
    to be none of the actions stand still or fidget.
    """
    foreign = set(labels) - set(ALONE)
    none = {IDLE, "fidget"} if foreign else {name for name, label in SYNTHETIC_LABELS.items() if label == NONE}
    same = {name for name in ALONE if name in labels or SYNTHETIC_LABELS.get(name) in labels}
    return tuple(sorted(same | none))


def synthetic_none(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `synthetic_actions` that are none of the labels."""
    actions = synthetic_actions(labels)
    return tuple(name for name in actions if SYNTHETIC_LABELS.get(name) == NONE and name not in labels)


def shipped_encoder() -> keras.Model:
    """MobileNetV2 of the deployed model, fine-tuned on the flow of synthetic people; random in the smoke profile.

    It stays frozen: real videos are too few to train it without learning their rooms by heart.
    """
    if profile() == "smoke":
        return build_backbone(PERSON_CLIP.size, None)
    return split_action_model(load_keras(DEFAULT_ACTION / "action_model.h5"))[0]


class TwoStreamBatches(keras.utils.PyDataset):
    """Shuffled batches of windows: of each video a random copy, a random start, and often not yet a whole window.

    Gives ((motion float32 (B, length, 1280), joints float32 (B, length, WIDTH)), targets (B, outputs), weights (B,)).
    """

    def __init__(self, clips: ActionClips, chosen: np.ndarray, recipe: TwoStreamRecipe):
        super().__init__()
        self.clips, self.recipe, self.targets = clips, recipe, clips.targets
        self._counts = Counter(self._kind(number) for number in chosen if number < len(clips.real))
        self.pool = np.repeat(chosen, [self._times(number) for number in chosen])
        outputs = len(clips.labels) + 1
        self.rows = np.eye(outputs, dtype=np.float32)
        self.weights = capped_class_weights(self.targets[self.pool], outputs, recipe.class_weight_cap)
        self.weights[-1] = recipe.none_weight
        self.epoch = -1
        self.on_epoch_end()

    def _times(self, number: int) -> int:
        """How often a video is shown in an epoch: rare actions of a data set more often, synthetic people once."""
        if number >= len(self.clips.real) or self.clips.real[number].label == NONE:
            return 1
        return min(self.recipe.most, max(2, -(-self.recipe.least // self._counts[self._kind(number)])))

    def _kind(self, number: int) -> tuple[Path, str]:
        sample = self.clips.real[number]
        return sample.path.parents[1], sample.label

    def __len__(self) -> int:
        return len(self.order) // self.recipe.batch or 1

    def __getitem__(self, index: int):
        rng = np.random.default_rng((self.recipe.seed, self.epoch, index))
        chosen = self.order[index * self.recipe.batch : (index + 1) * self.recipe.batch]
        drawn = [self._window(number, rng) for number in chosen]
        motion, joints = (np.stack([window[k] for window in drawn]) for k in range(2))
        targets = np.array([target for *_, target in drawn])
        inputs = motion.astype(np.float32), joint_vectors(augment_joints(joints, rng))
        return inputs, self.rows[targets], self.weights[targets]

    def _window(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        copies, target, length = self.clips.features[number], self.targets[number], self.recipe.clip.length
        features = copies[rng.integers(len(copies))]
        steps, none = len(features.motion), len(self.clips.labels)
        share = LEAD_IN if target != none and self._begins_still(number) else 0.0
        if share and rng.random() < 0.06:  # before the action begins
            return *features.window(0, max(4, int(share * steps)), length), none
        shown = length if rng.random() < 0.6 else int(rng.integers(length // 2 - 1, length + 1))
        first = int(share * steps)
        start = int(rng.integers(first, max(first, steps - shown) + 1))
        if rng.random() >= self.recipe.joined:
            return *features.window(start, shown, length), target
        shown = int(rng.integers(length // 2 - 2, length - 3))
        return *self._after_another(features.window(start, shown), length - shown, rng), target

    def _after_another(
        self, now: tuple[np.ndarray, np.ndarray], steps: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A window that begins with the last `steps` steps of another video: a stream does not stop between actions."""
        copies = self.clips.features[rng.choice(self.pool)]
        other = copies[rng.integers(len(copies))]
        motion, joints = other.window(max(0, len(other.motion) - steps), steps)
        return np.concatenate([motion, now[0]]), join_rows(joints, now[1])

    def _begins_still(self, number: int) -> bool:
        return number < len(self.clips.real) and self.clips.real[number].group in self.clips.lead_in

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng((self.recipe.seed, self.epoch)).permutation(self.pool)


def _stream_loss(smoothing: float):
    """Cross-entropy of both streams, added: each must name the action without the other."""

    def loss(targets, logs):
        outputs = targets.shape[-1]
        targets = targets * (1 - smoothing) + smoothing / outputs
        return -keras.ops.sum(targets[:, None] * logs, axis=(1, 2))

    return loss


def _fused_accuracy(targets, logs):
    """Of the two streams' common answer."""
    return keras.metrics.categorical_accuracy(targets, keras.ops.sum(logs, axis=1))


def train_head(
    clips: ActionClips, chosen: np.ndarray, recipe: TwoStreamRecipe, *, work: Path, held_out: np.ndarray | None = None
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train a head on the videos with these numbers, for a fixed number of epochs; (head, history).

    held_out: numbers of real videos of other groups, for the validation curve only; nothing is chosen on them.
    """
    keras.utils.set_random_seed(recipe.seed)
    head = build_two_stream_head(len(clips.labels) + 1, recipe.clip.length, recipe.units)
    streams, batches = stream_logs(head), TwoStreamBatches(clips, chosen, recipe)
    steps = len(batches) * recipe.epochs
    optimizer = make_optimizer(recipe.optimizer, recipe.learning_rate, steps, weight_decay=recipe.weight_decay)
    _fused_accuracy.__name__ = "accuracy"
    streams.compile(optimizer, _stream_loss(recipe.label_smoothing), weighted_metrics=[], metrics=[_fused_accuracy])
    validation = None if held_out is None else _middle_windows(clips, held_out, recipe)
    history = fit(streams, batches, validation, epochs=recipe.epochs, work=work, seed=recipe.seed, keep_best=False)
    return head, history


def _middle_windows(clips: ActionClips, chosen: np.ndarray, recipe: TwoStreamRecipe):
    length = recipe.clip.length
    videos = [clips.features[number][0] for number in chosen]
    pairs = [video.window(max(0, (len(video.motion) - length) // 2), length, length) for video in videos]
    return _as_input(pairs), np.eye(len(clips.labels) + 1, dtype=np.float32)[clips.targets[chosen]]


# ------------------------------------------------------------------------------------------------------ answers


def whole_windows(features: ClipFeatures, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Half-overlapping windows of a video as the head's input; a short video is padded with its last step."""
    steps = len(features.motion)
    if steps <= length:
        pairs = [features.window(0, steps, length)]
    else:
        starts = np.linspace(0, steps - length, 1 + -(-(steps - length) // (length // 2))).round().astype(int)
        pairs = [features.window(start, length) for start in starts]
    return _as_input(pairs)


def live_windows(features: ClipFeatures, spec: ClipSpec) -> tuple[np.ndarray, np.ndarray]:
    """What the live system sees after each step of a video, from half a window on, as the head's input."""
    steps, memory = len(features.motion), live_memory(spec)
    ends = range(min(spec.length // 2, steps), steps + 1)
    return _as_input([features.window(max(0, end - memory), min(memory, end), spec.length) for end in ends])


def _as_input(pairs) -> tuple[np.ndarray, np.ndarray]:
    motion, joints = (np.stack([pair[k] for pair in pairs]) for k in range(2))
    return motion.astype(np.float32), joint_vectors(joints)


def live_answers(rows: np.ndarray, spec: ClipSpec) -> LiveAnswers:
    """What the live system gives after each step of a video. rows: float (k, outputs), "none of these" last."""
    return LiveAnswers(rows[:, :-1], (spec.length // 2 + np.arange(len(rows))) * spec.step_s)


def source_of(group: str) -> str:
    """Where the clips of a group of this series' own data are from: "ARID", "Weizmann" or "webcam" (data/README.md)."""
    return next((name for name in ("ARID", "Weizmann") if group.startswith(name.lower())), "webcam")


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What each real video got from a head that never saw its group.

    files, labels, groups: of N videos, "none" among the labels. classes: the outputs, "none" last. answers: by stream
    ("motion", "joints", "fusion") float32 (N, outputs), the mean over a video's windows. rows: per video float
    (k, outputs), after each step as the live system.
    """

    files: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    answers: dict[str, np.ndarray]
    rows: list[np.ndarray]
    spec: ClipSpec = PERSON_CLIP

    def save(self, folder: Path) -> None:
        """Write crossval.npz."""
        names = {name: getattr(self, name) for name in ("files", "labels", "groups", "classes")}
        live = np.concatenate(self.rows).astype(np.float16)
        np.savez_compressed(
            folder / "crossval.npz", **names, live=live, steps=[len(rows) for rows in self.rows], **self.answers
        )

    @classmethod
    def load(cls, folder: Path) -> CrossValidation:
        with stored_arrays(folder / "crossval.npz", "restore it from git") as stored:
            names = (tuple(stored[name].tolist()) for name in ("files", "labels", "groups", "classes"))
            answers = {name: stored[name] for name in ("motion", "joints", "fusion")}
            rows = np.split(stored["live"].astype(np.float32), np.cumsum(stored["steps"])[:-1])
            return cls(*names, answers, rows)

    @property
    def targets(self) -> np.ndarray:
        """int (N,): numbers of the labels among the classes."""
        return np.array([self.classes.index(label) for label in self.labels])

    @cached_property
    def live(self) -> list[LiveAnswers]:
        """Of each video."""
        return [live_answers(rows, self.spec) for rows in self.rows]

    def of(self, name: str) -> np.ndarray:
        """int (n,): numbers of the videos from this source, see `source_of`."""
        return np.array([k for k, group in enumerate(self.groups) if source_of(group) == name])

    def predictions(self, chosen: Iterable[int] | None = None, stream: str = "fusion") -> Predictions:
        """The answers to the chosen videos (default: all) among the actions, those of none left out."""
        chosen = range(len(self.files)) if chosen is None else chosen
        chosen = [k for k in chosen if self.labels[k] != NONE]
        rows = self.answers[stream][chosen][:, :-1].astype(float)
        return Predictions(
            files=tuple(self.files[k] for k in chosen),
            labels=tuple(self.labels[k] for k in chosen),
            classes=self.classes[:-1],
            probabilities=rows / rows.sum(axis=1, keepdims=True),
            groups=tuple(self.groups[k] for k in chosen),
        )


def cross_validate(
    clips: ActionClips,
    recipe: TwoStreamRecipe,
    work: Path,
    folds: Iterable[tuple[list[Sample], list[Sample]]] | None = None,
    tune: Callable[[int, np.ndarray], ActionClips] | None = None,
) -> tuple[CrossValidation, dict[str, list[float]]]:
    """Score each real video once by a head that never saw its group; and the mean history, `seconds` summed.

    folds: pairs (train, test); by default the recipe's number, by group. tune: called as tune(fold, numbers of the
    videos to learn from), gives the same clips through an encoder that learned from these; by default all folds share
    `clips`.
    """
    place = {sample.path: number for number, sample in enumerate(clips.real)}
    outputs, length = len(clips.labels) + 1, recipe.clip.length
    answers = {name: np.zeros((len(clips.real), outputs), np.float32) for name in ("fusion", "motion", "joints")}
    live: list[np.ndarray] = [np.zeros((0, outputs), np.float32)] * len(clips.real)
    histories, synthetic = [], np.arange(len(clips.real), len(clips.features))
    if folds is None:
        count = min(recipe.folds, len({sample.group for sample in clips.real}))
        folds = leave_groups_out(clips.real, count, recipe.seed)
    for fold, (train, test) in enumerate(folds):
        inside, outside = (np.array([place[sample.path] for sample in part]) for part in (train, test))
        chosen = np.concatenate([inside, synthetic])
        seen = tune(fold, chosen) if tune else clips
        head, history = train_head(seen, chosen, recipe, work=work / str(fold), held_out=outside)
        streams = stream_logs(head)
        for number in outside:
            features = seen.features[number][0]
            logs = streams.predict_on_batch(whole_windows(features, length))
            for name, part in (("fusion", logs.mean(axis=1)), ("motion", logs[:, 0]), ("joints", logs[:, 1])):
                answers[name][number] = softmax(part, axis=-1).mean(axis=0)
            live[number] = softmax(streams.predict_on_batch(live_windows(features, recipe.clip)).mean(axis=1), axis=-1)
        histories.append(history)
    mean = {key: np.mean([history[key] for history in histories], axis=0).tolist() for key in histories[0]}
    names = [f"{sample.label}/{sample.path.name}" for sample in clips.real]
    labels, groups = ([getattr(sample, name) for sample in clips.real] for name in ("label", "group"))
    scored = CrossValidation(
        tuple(names), tuple(labels), tuple(groups), (*clips.labels, NONE), answers, live, recipe.clip
    )
    return scored, {**mean, "seconds": np.sum([history["seconds"] for history in histories], axis=0).tolist()}


def choose_threshold(
    scored: CrossValidation,
    head: keras.Model,
    clips: ActionClips,
    recipe: TwoStreamRecipe,
    *,
    progress: Callable = iter,
) -> float:
    """The smallest threshold at which at most 5 % of the held-out real videos of none, where there are any, and at most
    5 % of synthetic people who do none of the actions get any answer.

    scored: the answers to the first, by heads that never saw their group. head: answers to the others, the people
    `HELD_OUT`, whom it never saw.
    """
    none = [video for video, label in zip(scored.live, scored.labels, strict=True) if label == NONE]
    people = HELD_OUT[:1] if profile() == "smoke" else HELD_OUT
    shown = synthetic_people(people, synthetic_none(clips.labels))
    _, features = clip_features(shown, recipe, clips.encoder, 1, progress=progress)
    windows = (live_windows(copies[0], recipe.clip) for copies in features)
    drawn = [live_answers(head.predict_on_batch(window), recipe.clip) for window in windows]
    return max(fit_threshold(videos) for videos in (none, drawn) if videos)


def train_two_streams(config: dict, work: Path) -> dict[str, list[float]]:
    """The deployed model, from data sets to files: cross-validation, threshold, then a head on all videos.

    For `fit_or_load`: writes the model (see `save_action`) and what the cross-validation gave (`CrossValidation.save`);
    returns its history, and what was measured under "result".
    """
    recipe, before = TwoStreamRecipe.from_dict(config), {}
    if recipe.encoder is None:
        encoder = shipped_encoder()
    else:
        tuned = replace(recipe.encoder, epochs=min(recipe.epochs, recipe.encoder.epochs))
        encoder, before = train_encoder(tuned, work / "work" / "encoder")
    clips = load_action_clips(recipe, encoder)
    scored, history = cross_validate(clips, recipe, work / "work" / "folds")
    scored.save(work)
    head, _ = train_head(clips, np.arange(len(clips.features)), recipe, work=work / "work" / "all")
    threshold = choose_threshold(scored, head, clips, recipe)
    save_action(work, join_action_model(encoder, head), clips.labels, spec=recipe.clip, threshold=threshold)
    history |= {f"encoder_{name}": before[name] for name in ("loss", "accuracy") if name in before}
    history["seconds"] += before.get("seconds", [])
    history["result"] = {"threshold": threshold, "left_out": list(clips.missing), "real": len(clips.real)}
    return history
