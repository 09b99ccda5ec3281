"""What the tests of the live system start from: faces, films, small models, a network camera."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from live_tools import ip_camera, scene, write_video

from helpers.action import classifier as action_classifier
from helpers.action.clips import ClipSpec
from helpers.emotion import classifier as emotion_classifier
from helpers.emotion.faces import FaceFinder, FaceSpec
from helpers.live import cameras

FPS = 25


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    """A camera that is gone is given up at once, not after ten seconds."""
    monkeypatch.setattr(cameras, "RECONNECT_S", 0.4)
    monkeypatch.setattr(cameras, "_RETRY_S", 0.02)
    monkeypatch.setattr(cameras, "_FIRST_FRAME_S", 0.2)


@pytest.fixture
def camera():
    with ip_camera() as camera:
        yield camera


@pytest.fixture(scope="session")
def finder():
    return FaceFinder(detect_width=480)


@pytest.fixture(scope="session")
def wide_finder():
    """As in the deployed pipeline."""
    return FaceFinder(detect_width=640)


@pytest.fixture(scope="session")
def photograph(photo):
    """The photo's face, about 190 pixels wide, uint8 BGR (300, 300, 3)."""
    return photo[20:320, 100:400]


@pytest.fixture(scope="session")
def portrait(photograph):
    """The face about 150 pixels wide, uint8 BGR (240, 240, 3)."""
    return cv2.resize(photograph, (240, 240), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def head(photograph):
    """The face about 125 pixels wide, uint8 BGR (200, 200, 3)."""
    return cv2.resize(photograph, (200, 200), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory, portrait):
    """One second: a face that drifts to the right."""
    frames = [scene(portrait, (20 + 4 * i, 60)) for i in range(FPS)]
    return write_video(tmp_path_factory.mktemp("clips") / "face.mp4", frames)


@pytest.fixture(scope="session")
def gray_clip(tmp_path_factory):
    """Two seconds of changing gray, nobody in view."""
    frames = [np.full((120, 160, 3), 5 * i, np.uint8) for i in range(2 * FPS)]
    return write_video(tmp_path_factory.mktemp("clips") / "gray.mp4", frames)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """(action folder, emotion folder): small random networks, saved as the real ones are.

    The action model's backbone is three convolutions: what is tested does not depend on its depth.
    """
    import keras
    from keras import layers

    from helpers.action.model import build_action_head, join_action_model
    from helpers.emotion.model import NetworkSpec, build_mini_xception

    keras.utils.set_random_seed(0)
    backbone = [layers.Conv2D(filters, 3, 2, activation="relu") for filters in (8, 16, 32)]
    backbone = keras.Sequential([keras.Input((64, 64, 3)), *backbone, layers.GlobalMaxPooling2D()])
    network = join_action_model(backbone, build_action_head(3, 4, features=32, units=16))
    action, emotion = tmp_path_factory.mktemp("action"), tmp_path_factory.mktemp("emotion")
    spec = ClipSpec(length=4, window_s=0.5, size=64)
    action_classifier.save_action(action, network, ("run", "sit", "walk"), spec=spec, threshold=0.0)
    network = build_mini_xception(7, spec=NetworkSpec(8, (8,), middle=0))
    emotion_classifier.save_emotion(emotion, network, emotion_classifier.FER_ORDER, spec=FaceSpec())
    return action, emotion
