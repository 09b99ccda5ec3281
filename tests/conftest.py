"""What several test modules use: a photo, saved models of both tasks, their own artifacts folder and feature cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import h5py
import matplotlib.cbook
import numpy as np
import pytest

from helpers.data.paths import REPOSITORY


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A photo with one real face (NASA, public domain, shipped by matplotlib), uint8 BGR (600, 512, 3)."""
    return cv2.imread(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


def _tiny_backbone():
    """What MobileNetV2 is made of, once: convolution, depthwise convolution, batch normalisation; partly frozen, as
    after fine-tuning, because .h5 files store frozen weights apart."""
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=4, use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, use_bias=False)(layers.ReLU(6.0)(x))
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(8, 1, use_bias=False)(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x)))
    for number, layer in enumerate(model.layers):
        layer.trainable = number > 3 and not isinstance(layer, layers.BatchNormalization)
    return model


def _shake(model):
    """Every weight different from its start value, so that a mixed-up order shows."""
    from keras import layers

    rng = np.random.default_rng(7)
    model.set_weights(
        [
            rng.uniform(0.2, 1.0, w.shape).astype(np.float32) * np.sign(rng.normal(size=w.shape) + 1.5)
            if w.ndim == 1
            else w + rng.normal(0, 0.05, w.shape)
            for w in model.get_weights()
        ]
    )
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, layers.TimeDistributed) else layer
        for part in getattr(inner, "layers", [inner]):
            if isinstance(part, layers.BatchNormalization):
                part.moving_variance.assign(np.abs(part.moving_variance) + 0.1)
    return model


@pytest.fixture(scope="session")
def saved_emotion(tmp_path_factory) -> Path:
    """Folder of a Mini-Xception of one block for seven emotions, 48 pixels, in every format."""
    import keras

    from helpers.emotion.classifier import save_emotion
    from helpers.emotion.faces import FaceSpec
    from helpers.emotion.model import NetworkSpec, build_mini_xception

    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("emotion")
    labels = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    model = build_mini_xception(7, 48, NetworkSpec(4, (8,), middle=0))
    save_emotion(folder, _shake(model), labels, spec=FaceSpec())
    return folder


@pytest.fixture(scope="session")
def saved_action(tmp_path_factory) -> Path:
    """Folder of an action model for bend, jump, walk: 4 steps in a second, 32 pixels, threshold 0.6."""
    import keras

    from helpers.action.classifier import save_action
    from helpers.action.clips import ClipSpec
    from helpers.action.model import build_action_head, join_action_model

    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("action")
    model = join_action_model(_tiny_backbone(), build_action_head(3, 4, features=8, units=4))
    spec = ClipSpec(length=4, window_s=1.0, size=32)
    model = _shake(model)
    save_action(folder, model, ("bend", "jump", "walk"), spec=spec, threshold=0.6)
    model.save(folder / "action_model.keras")
    return folder


@pytest.fixture
def copy_model(tmp_path, saved_emotion, saved_action):
    """copy_model(kind, *names): those files (default: all) of a saved "emotion" or "action" model in a folder of their
    own."""

    def make(kind: str, *names: str) -> Path:
        source = {"emotion": saved_emotion, "action": saved_action}[kind]
        folder = tmp_path / kind
        folder.mkdir(exist_ok=True)
        for path in source.iterdir():
            if not names or path.name in names:
                shutil.copy(path, folder)
        return folder

    return make


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """artifacts/ and .cache/, empty."""
    from helpers import training
    from helpers.data import cache

    monkeypatch.setattr(training, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setattr(cache, "REPOSITORY", tmp_path)
    return tmp_path


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Number of arrays in a feature cache of the test's own."""
    from helpers.data import cache

    monkeypatch.setattr(cache, "REPOSITORY", tmp_path)
    return lambda: len(list((tmp_path / ".cache").rglob("*.npz")))


_KERAS_2 = {  # what Keras 2 wrote into the configuration of a layer and Keras 3 refuses
    "SeparableConv2D": {
        "groups": 1,
        "kernel_initializer": {"class_name": "VarianceScaling", "config": {}},
        "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.01}},
        "kernel_constraint": None,
    },
    "DepthwiseConv2D": {"groups": 1},
    "LSTM": {"time_major": False},
}


def _as_keras_2(path: Path) -> Path:
    """Change the architecture in an .h5 file to what Keras 2 would have written."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        _add_arguments(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


def _add_arguments(node) -> None:
    if isinstance(node, dict):
        if node.get("class_name") in _KERAS_2:
            node["config"].update(_KERAS_2[node["class_name"]])
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            _add_arguments(item)


@pytest.fixture
def as_keras_2():
    """as_keras_2(path): change the architecture in an .h5 file to what Keras 2 would have written."""
    return _as_keras_2


@pytest.fixture
def run_on_own_data(tmp_path, monkeypatch, capsys):
    """run(name, changed): every cell of a notebook as somebody with data of their own runs it, in the full profile and
    without the series' data sets; returns what it prints. changed: text of its cells, and what to put in its place."""
    import matplotlib

    monkeypatch.setenv("HAR_PROFILE", "full")
    monkeypatch.setenv("HAR_DATA", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")

    def run(name: str, changed: dict[str, str]) -> str:
        notebook = json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        names: dict = {}
        for cell in notebook["cells"]:
            source = "".join(cell["source"])
            for old, new in {**changed, "display(": "(lambda figure: figure)("}.items():
                source = source.replace(old, new)
            if cell["cell_type"] == "code":
                exec(compile(source, cell["id"], "exec"), names)
        return capsys.readouterr().out

    return run
