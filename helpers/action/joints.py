"""Joints over time as numbers for the action network: relative to the trunk, in torso lengths, whatever the distance.

A row is what is kept of one time step, a clip is (..., T, ROW). Only here it becomes the network's input, for a whole
window at once, so that training, evaluation and the live system cannot differ.
"""

from __future__ import annotations

import numpy as np

from helpers.action.pose import BONES, HANDS, HIPS, JOINTS, SHOULDERS, WRISTS, Pose, torso_lengths

COUNT = len(JOINTS)
POINTS, VISIBILITY, FLOW, SCORE = slice(0, 30), slice(30, 45), slice(45, 75), 75  # the columns of a row
ROW = 76
SEGMENTS = (*BONES, (HIPS[0], SHOULDERS[0]), (HIPS[1], SHOULDERS[1]), (WRISTS[0], HANDS[0]), (WRISTS[1], HANDS[1]))
WIDTH = 7 * COUNT + 2 * len(SEGMENTS) + 6  # numbers of a time step as `joint_vectors` gives them


def joint_row(pose: Pose | None, height: int, flow: np.ndarray | None = None) -> np.ndarray:
    """float32 (ROW,): one time step. Zeros when nobody was found.

    height: of the frame, in pixels. flow: float32 (15, 2), at the joints, as the network's image shows it.
    """
    row = np.zeros(ROW, np.float32)
    if pose is not None:
        row[POINTS] = pose.points.ravel() / height
        row[VISIBILITY], row[SCORE] = pose.visibility, pose.score
        row[FLOW] = 0 if flow is None else flow.ravel()
    return row


def joint_vectors(rows: np.ndarray) -> np.ndarray:
    """float32 (..., T, WIDTH), about -4..4: the network's input from rows (..., T, ROW) of a window.

    Per step: joints relative to the trunk, their speed, directions of the limbs, where the trunk is and how fast it
    moves, its size, the optical flow at the joints, what is visible, and whether somebody was found. All lengths are in
    torso lengths, the median over the window. Without a person all of it is 0.
    """
    found = rows[..., SCORE] > 0
    points = _without_gaps(rows[..., POINTS].reshape(*rows.shape[:-1], COUNT, 2), found)
    lengths = torso_lengths(points)
    size = np.median(lengths, axis=-1)[..., None, None, None]
    trunk = _trunks(points)
    joints = (points - trunk) / size
    segments = np.stack([joints[..., end, :] - joints[..., start, :] for start, end in SEGMENTS], axis=-2)
    parts = [
        0.7 * joints,
        3 * _change(joints),
        segments / (np.linalg.norm(segments, axis=-1, keepdims=True) + 0.05),
        (trunk - trunk.mean(axis=-3, keepdims=True)) / size,
        3 * _change(trunk) / size,
        2 * np.log(lengths / size[..., 0, 0])[..., None, None],
        2 * rows[..., FLOW].reshape(points.shape),
        rows[..., VISIBILITY][..., None],
    ]
    vectors = np.concatenate([part.reshape(*rows.shape[:-1], -1) for part in parts], axis=-1)
    known = found[..., None].astype(np.float32)
    return np.concatenate([np.clip(vectors, -4, 4) * known, known], axis=-1).astype(np.float32)


def _change(values: np.ndarray) -> np.ndarray:
    """Differences (..., T, J, 2) from one step to the next; 0 at the first."""
    return np.diff(values, axis=-3, prepend=values[..., :1, :, :])


def _without_gaps(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Joints (..., T, 15, 2) with those last seen where nobody was found, with the first seen before that."""
    steps = np.arange(found.shape[-1])
    last = np.maximum.accumulate(np.where(found, steps, -1), axis=-1)
    source = np.where(last < 0, found.argmax(axis=-1)[..., None], last)
    return np.take_along_axis(points, source[..., None, None], axis=-3)


def join_rows(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Rows (m, ROW) and (n, ROW) of two clips as those of one (m + n, ROW): the person of the first is moved and scaled
    to where the second one begins."""
    before = before.copy()
    seen, begins = (np.flatnonzero(rows[:, SCORE] > 0) for rows in (before, after))
    if len(seen) and len(begins):
        points = before[:, POINTS].reshape(-1, COUNT, 2)
        old, new = points[seen[-1]], after[begins[0], POINTS].reshape(COUNT, 2)
        (old_trunk, new_trunk), scale = (_trunks(old), _trunks(new)), torso_lengths(new) / torso_lengths(old)
        before[:, POINTS] = ((points - old_trunk) * scale + new_trunk).reshape(len(before), -1)
    return np.concatenate([before, after])


def _trunks(points: np.ndarray) -> np.ndarray:
    """(..., 1, 2): the middle of shoulders and hips of joints (..., 15, 2)."""
    return points[..., [*SHOULDERS, *HIPS], :].mean(axis=-2, keepdims=True)


def augment_joints(
    rows: np.ndarray,
    rng: np.random.Generator,
    degrees: float = 7.0,
    *,
    stretch: float = 0.12,
    noise: float = 0.04,
    lost: float = 0.075,
    gaps: float = 0.03,
) -> np.ndarray:
    """Random changes of clips (B, T, ROW), one draw per clip; the rows are copied.

    degrees: largest rotation. stretch: exponent of a factor on each axis. noise: deviation in torso lengths, half of it
        the same in all steps. lost: share of the clips in which nobody is found. gaps: share of the steps.
    """
    rows, batch = rows.copy(), len(rows)
    points = rows[..., POINTS].reshape(*rows.shape[:2], COUNT, 2)
    size = np.median(torso_lengths(points), axis=-1)[:, None, None, None]
    angle = np.deg2rad(rng.uniform(-degrees, degrees, batch))
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)
    matrix = matrix * np.exp(rng.uniform(-stretch, stretch, (batch, 1, 2)))
    points = np.einsum("btjk,bkl->btjl", points, matrix)
    for shape in (points.shape, (batch, 1, COUNT, 2)):
        points = points + size * rng.normal(0, 1, shape) * rng.uniform(0, noise, (batch, 1, 1, 1))
    rows[..., POINTS] = points.reshape(*rows.shape[:2], -1)
    rows[..., SCORE] *= (rng.random((batch, 1)) > lost) & (rng.random(rows.shape[:2]) > gaps)
    return rows
