"""Joints over time as numbers: the same at any distance, place and size of the frame."""

import numpy as np
import pytest

from helpers.action.joints import (
    FLOW,
    POINTS,
    ROW,
    SCORE,
    VISIBILITY,
    WIDTH,
    augment_joints,
    join_rows,
    joint_row,
    joint_vectors,
)
from helpers.action.pose import HIPS, JOINTS, SHOULDERS, WRISTS, Pose


def standing(wrist=(0.0, 0.0), *, torso=100.0, at=(320.0, 240.0)):
    """A pose in pixels; the left wrist is moved by `wrist` torso lengths."""
    points = np.zeros((len(JOINTS), 2), np.float32)
    for side, sign in enumerate((1, -1)):
        points[SHOULDERS[side]], points[HIPS[side]] = (sign * 0.3, -0.5), (sign * 0.2, 0.5)
        points[WRISTS[side]] = (sign * 0.4, 0.4)
    points[WRISTS[0]] += wrist
    return Pose(points * torso + np.float32(at), np.ones(len(JOINTS), np.float32), 0.9)


def clip(poses, height=480):
    return np.stack([joint_row(pose, height) for pose in poses])


def test_a_row_holds_a_pose():
    pose = standing()
    row = joint_row(pose, 480, np.full((15, 2), 0.5))
    assert row.shape == (ROW,) and row.dtype == np.float32
    assert np.allclose(row[POINTS].reshape(15, 2) * 480, pose.points)
    assert (row[VISIBILITY] == 1).all() and (row[FLOW] == 0.5).all() and row[SCORE] == np.float32(0.9)
    assert not joint_row(None, 480).any()


@pytest.mark.parametrize(
    ("torso", "at", "height", "reason"),
    [
        (50.0, (320.0, 240.0), 480, "twice as far away"),
        (100.0, (100.0, 300.0), 480, "elsewhere in the frame"),
        (200.0, (640.0, 480.0), 960, "a frame of twice the size"),
    ],
)
def test_vectors_do_not_know_the_distance(torso, at, height, reason):
    moves = [(0.0, -0.1 * k) for k in range(6)]
    one = joint_vectors(clip([standing(move) for move in moves]))
    other = joint_vectors(clip([standing(move, torso=torso, at=at) for move in moves], height))
    assert one.shape == (6, WIDTH)
    assert np.allclose(one, other, atol=1e-4), reason


def test_vectors_of_a_batch_are_those_of_its_clips():
    clips = np.stack([clip([standing((0.1 * k, 0)) for k in range(5)]), clip([standing()] * 5)])
    assert np.array_equal(joint_vectors(clips)[1], joint_vectors(clips[1]))


def test_without_a_person_all_is_zero_and_gaps_are_bridged():
    assert not joint_vectors(clip([None] * 4)).any()
    vectors = joint_vectors(clip([None, standing(), None, standing((0, -0.2)), None]))
    assert vectors[:, -1].tolist() == [0, 1, 0, 1, 0]
    assert not vectors[[0, 2, 4]].any()
    still = joint_vectors(clip([standing(), None, standing()]))
    assert np.allclose(still[2], joint_vectors(clip([standing()] * 3))[2]), "nothing moved while nobody was seen"


def test_augmentation_keeps_the_rows_it_was_given():
    rows = np.stack([clip([standing()] * 8)] * 40)
    before = rows.copy()
    changed = augment_joints(rows, np.random.default_rng(0), lost=0.5)
    assert np.array_equal(rows, before)
    found = changed[..., SCORE] > 0
    assert 0.2 < (~found).all(axis=1).mean() < 0.8, "in half of the clips nobody is found"
    assert np.abs(changed[..., POINTS] - rows[..., POINTS]).max() > 0
    same = augment_joints(rows, np.random.default_rng(0), 0.0, stretch=0.0, noise=0.0, lost=0.0, gaps=0.0)
    assert np.allclose(same, rows, atol=1e-6)


def test_joined_clips_go_on_where_the_second_begins():
    before, after = clip([standing()] * 3), clip([standing(torso=50.0, at=(500.0, 100.0))] * 4)
    joined = join_rows(before, after)
    assert joined.shape == (7, ROW)
    assert np.allclose(joined[:, POINTS], after[0, POINTS], atol=1e-5), "the same person stands there all the time"
    assert np.allclose(before, clip([standing()] * 3)), "the rows it was given stay"
    nobody = clip([None] * 2)
    assert np.array_equal(join_rows(nobody, after), np.concatenate([nobody, after]))
