"""The deployed action model: features of a window to class probabilities. Reads models made elsewhere, too."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers.action.clips import ClipSpec, FrameSampler
from helpers.action.joints import ROW, WIDTH, joint_vectors
from helpers.action.person import PersonSampler, TimeStep, live_memory
from helpers.action.pose import open_estimator
from helpers.data.paths import ARTIFACTS
from helpers.errors import DataError
from helpers.keras_files import load_keras, save_keras
from helpers.model_files import checked_number, checked_settings, load_labels, locate_model, read_config, save_labels
from helpers.runtime import KerasFunction, LiteRT, as_probabilities, export_litert, kind_of_outputs

DEFAULT_ACTION = ARTIFACTS / "action" / "two_streams"


# What a step in -1..1 is multiplied by and added to, so that its pixels are in the range that a network wants.
SCALINGS = {"minus_one_to_one": (1.0, 0.0), "zero_to_one": (0.5, 0.5), "pixels": (127.5, 127.5)}
_GRAY = np.float32([0.299, 0.587, 0.114])  # of R, G, B (ITU-R BT.601)


@dataclass(frozen=True)
class ActionClassifier:
    """An action model in its two halves, with its labels and what its clips are.

    threshold: smallest confidence at which an action is shown. scaling: the range of the pixels that the encoder takes,
    a key of `SCALINGS`. outputs: what the head gives, see `kind_of_outputs`.
    """

    labels: tuple[str, ...]
    spec: ClipSpec
    encoder: LiteRT | KerasFunction | _Unchanged
    head: LiteRT | KerasFunction
    threshold: float = 0.5
    scaling: str = "minus_one_to_one"
    outputs: str = "probabilities"

    @classmethod
    def load(cls, path: Path | str = DEFAULT_ACTION, *, scaling: str | None = None) -> ActionClassifier:
        """From a folder that `save_action` wrote, or from any Keras or LiteRT network of RGB clips and its labels.json.

        A network made elsewhere needs no config.json: length, side and channels of its clips are those of its input.
        Without "clip" in config.json the clips last two seconds; without `scaling`, "scaling" in config.json and a
        Rescaling layer pixels are scaled to -1..1; what is assumed is said on stderr. Raises DataError.
        """
        folder, file = locate_model(path, "action_encoder", "action_model")
        settings = folder / "config.json"
        network = _Network.load(folder, file)
        config = read_config(settings) if settings.is_file() or network.own else {}
        labels = load_labels(folder / "labels.json", network.head.output_shape[-1] - network.two_streams)
        spec = _clip_spec(settings, config, network)
        kind = TwoStreamClassifier if network.two_streams else cls
        found = kind(
            labels,
            spec,
            network.encoder,
            network.head,
            checked_number(settings, config, "threshold", default=0.5, low=0, high=1.01),
            "minus_one_to_one" if network.own else _scaling(settings, config, network, scaling),
        )
        if network.own:
            return found
        noise = np.random.default_rng(0).uniform(-1, 1, (spec.length, spec.size, spec.size, 3)).astype(np.float32)
        return replace(found, outputs=kind_of_outputs(network.head(found.encode(noise)[None]), network.model))

    @property
    def shortest(self) -> int:
        """Time steps from which on it answers; a shorter clip than `spec.length` is padded (see `clips.windows`)."""
        return self.spec.length

    @property
    def memory(self) -> int:
        """The time steps that a live answer looks back on."""
        return self.spec.length

    def sampler(self) -> FrameSampler | PersonSampler:
        """Turns a video's frames into the time steps that `encode` takes; one for each video."""
        return FrameSampler(self.spec)

    def network_input(self, steps: Sequence):
        """What the whole Keras network takes for a clip of `spec.length` time steps, a batch of one."""
        return np.stack(steps)[None]

    def encode(self, steps: Sequence) -> np.ndarray:
        """float32 (N, features) from time steps float32 (N, size, size, 3) in [-1, 1]; each step on its own.

        A network that can only be run on whole windows has the scaled images themselves as features.
        """
        steps = np.asarray(steps, np.float32)
        if self.scaling != "minus_one_to_one":
            factor, offset = SCALINGS[self.scaling]
            steps = steps * np.float32(factor) + np.float32(offset)
        return self.encoder(steps @ _GRAY[:, None] if self.encoder.input_shape[-1] == 1 else steps)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """float32 (N, classes), rows sum to 1, from the features of clips (N, length, features)."""
        return as_probabilities(self.head(features), self.outputs)


@dataclass(frozen=True)
class TwoStreamClassifier(ActionClassifier):
    """An action model that is also told where the limbs are, and that knows when none of its actions is shown.

    head: float32 (N, length, 1280 + WIDTH) to (N, classes + 1), see `model.pack_head`. Features hold a row of joints
    behind MobileNetV2's, so that a window of them is all that the head needs.
    """

    @property
    def shortest(self) -> int:
        return self.spec.length // 2

    @property
    def memory(self) -> int:
        return live_memory(self.spec)

    def sampler(self) -> PersonSampler:
        return PersonSampler(self.spec, open_estimator())

    def network_input(self, steps: Sequence[TimeStep]):
        joints = joint_vectors(np.stack([step.joints for step in steps]))
        return [np.stack([step.image for step in steps])[None], joints[None]]

    def encode(self, steps: Sequence[TimeStep]) -> np.ndarray:
        """float32 (N, 1280 + ROW) from time steps of `sampler`; each step on its own."""
        motion = self.encoder(np.array([step.image for step in steps], np.float32))
        return np.concatenate([motion, np.array([step.joints for step in steps], np.float32)], axis=1)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """float32 (N, classes) from the features of clips (N, length, 1280 + ROW).

        What a row lacks to 1 is the share of "none of these".
        """
        motion, joints = features[..., :-ROW], features[..., -ROW:]
        return self.head(np.concatenate([motion, joint_vectors(joints)], axis=-1))[:, : len(self.labels)]


class _Unchanged:
    """The encoder of a network that does not split: the image itself. input_shape: (None, size, size, channels)."""

    def __init__(self, input_shape: tuple[int | None, ...]):
        self.input_shape = input_shape

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        return steps


@dataclass(frozen=True)
class _Network:
    """A model file in two halves. own: written by `save_action`. model: the Keras model of one made elsewhere."""

    encoder: LiteRT | KerasFunction | _Unchanged
    head: LiteRT | KerasFunction
    own: bool = True
    model: object = None

    @property
    def two_streams(self) -> bool:
        return self.own and self.head.input_shape[-1] == self.encoder.output_shape[-1] + WIDTH

    @classmethod
    def load(cls, folder: Path, file: Path) -> _Network:
        if file.suffix == ".tflite":
            if file.stem == "action_encoder":
                return cls(LiteRT(file), LiteRT(folder / "action_head.tflite"))
            return cls._whole(file, LiteRT(file), None)
        from helpers.action import foreign
        from helpers.action.model import pack_head, split_action_model

        model = load_keras(file)
        if {"frame_features", "action_head"} <= {layer.name for layer in model.layers}:
            encoder, head = split_action_model(model)
            return cls(KerasFunction(encoder), KerasFunction(pack_head(head)))
        halves = foreign.split_by_frame(model) if _check_input(file, model.input_shape, model.output_shape) else None
        if halves is None:
            return cls._whole(file, KerasFunction(model), model)
        return cls(*(KerasFunction(half) for half in halves), own=False, model=model)

    @classmethod
    def _whole(cls, file: Path, head: LiteRT | KerasFunction, model) -> _Network:
        _check_input(file, head.input_shape, head.output_shape)
        print(
            f"note: {file.name} has no part that looks at one frame at a time, so every step costs a whole window: "
            "expect few answers a second in the live image",
            file=sys.stderr,
        )
        return cls(_Unchanged((None, *head.input_shape[2:])), head, own=False, model=model)


def _check_input(file: Path, shape, outputs) -> bool:
    """True when a network takes clips of square images and gives a value per class. Raises DataError."""
    if not isinstance(shape, tuple) or len(shape) != 5 or None in shape[1:] or shape[2] != shape[3]:
        raise DataError(
            f"{file}: not an action model; its input is {shape}, not clips (N, length, side, side, channels) of fixed "
            "length and side"
        )
    if shape[4] not in (1, 3) or not isinstance(outputs, tuple) or len(outputs) != 2:
        raise DataError(
            f"{file}: takes {shape[4]} channels and gives {outputs}, not gray or RGB images and (N, classes)"
        )
    return True


def _clip_spec(path: Path, config: dict, network: _Network) -> ClipSpec:
    length, size = network.head.input_shape[1], network.encoder.input_shape[1]
    clip = config.get("clip", {})
    if network.own or not isinstance(clip, dict):
        spec = checked_settings(path, ClipSpec, config.get("clip"))
    else:
        spec = checked_settings(path, ClipSpec, {"length": length, "size": size, "channels": "rgb", **clip})
        if "window_s" not in clip:
            print(
                f"note: the {length} frames of a clip are taken evenly from {spec.window_s:g} s; if the model was "
                f'trained on others, write {{"clip": {{"window_s": 3.0}}}} into {path}',
                file=sys.stderr,
            )
    if (spec.length, spec.size) != (length, size):
        raise DataError(
            f"{path}: says {spec.length} steps of {spec.size} pixels but the model takes {length} of {size}; use the "
            "file saved with this model"
        )
    return spec


def _scaling(path: Path, config: dict, network: _Network, asked: str | None) -> str:
    from helpers.action import foreign

    value = asked or config.get("scaling") or (network.model and foreign.input_range(network.model))
    if value is None:
        print(
            "note: pixels are scaled to -1..1; if the model was trained on others, write "
            f'{{"scaling": "zero_to_one"}} (0..1) or "pixels" (0..255) into {path}',
            file=sys.stderr,
        )
        return "minus_one_to_one"
    if value not in SCALINGS:
        raise DataError(f"{path}: scaling must be one of {', '.join(SCALINGS)}, not {value!r}; correct it")
    return value


def save_action(folder: Path, model, labels: tuple[str, ...], *, spec: ClipSpec, threshold: float = 0.5) -> None:
    """Write a joined model as action_model.h5, action_encoder.tflite (float16 weights) and action_head.tflite, with
    labels.json and config.json."""
    from helpers.action.model import pack_head, split_action_model

    folder = Path(folder)
    save_keras(model, folder / "action_model", (".h5",))
    encoder, head = split_action_model(model)
    export_litert(encoder, folder / "action_encoder.tflite", "float16")
    export_litert(pack_head(head), folder / "action_head.tflite")
    save_labels(folder, labels)
    (folder / "config.json").write_text(json.dumps({"clip": spec.as_dict(), "threshold": threshold}, indent=1) + "\n")
