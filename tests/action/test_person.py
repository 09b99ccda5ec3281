"""Time steps that follow a person: framing, flow, and what happens when nobody is found."""

import numpy as np
import pytest

from helpers.action.clips import ClipSpec
from helpers.action.joints import ROW, SCORE
from helpers.action.person import CameraAugmentation, PersonSampler, person_steps
from helpers.action.pose import JOINTS, Pose
from helpers.synthetic.scenes import render_action

SPEC = ClipSpec(channels="person_flow")


class Told:
    """Stands in for the estimator: the same person wherever it is told."""

    def __init__(self, centre=(160.0, 120.0), torso=30.0):
        self.centre, self.torso, self.resets = centre, torso, 0

    def reset(self):
        self.resets += 1

    def find(self, frame):
        if self.centre is None:
            return None
        points = np.zeros((len(JOINTS), 2), np.float32)
        points[1:3], points[9:11] = ((6, -15), (-6, -15)), ((5, 15), (-5, 15))
        points = points * self.torso / 30 + np.float32(self.centre)
        return Pose(points.astype(np.float32), np.ones(len(JOINTS), np.float32), 0.8)


def frames(action="wave_one_hand", seconds=1.0, seed=3):
    return [(frame, k / 25) for k, frame in enumerate(render_action(action, seed, seconds=seconds))]


def moving_square(place):
    """A textured square that moves to the right at half a frame height per second, at (x, y) of a 320 x 240 frame."""
    rng = np.random.default_rng(0)
    wall, block = rng.integers(90, 110, (240, 320, 3), np.uint8), rng.integers(0, 255, (24, 24, 3), np.uint8)
    for k in range(20):
        frame = wall.copy()
        x, y = round(place[0] + k * 120 / 25), place[1]
        frame[y : y + 24, x : x + 24] = block
        yield frame, k / 25


def test_one_step_every_eighth_of_a_second():
    images, joints = person_steps(frames(), SPEC, None)
    assert images.shape == (8, 96, 96, 3) and images.dtype == np.float32
    assert joints.shape == (8, ROW) and not joints.any(), "without an estimator nobody is found"
    assert np.abs(images).max() <= 1


def test_remember_and_look_are_push():
    whole, parts = PersonSampler(SPEC, Told()), PersonSampler(SPEC, Told())
    for frame, time_s in frames():
        step = whole.push(frame, time_s)
        due = parts.remember(frame, time_s)
        assert due == (step is not None)
        if due:
            other = parts.look(frame, time_s)
            assert np.array_equal(step.image, other.image) and np.array_equal(step.joints, other.joints)


def test_what_moves_beside_the_person_is_not_seen():
    near, _ = person_steps(moving_square((40, 108)), SPEC, Told((90.0, 120.0), 20.0))
    far, _ = person_steps(moving_square((40, 108)), SPEC, Told((270.0, 120.0), 20.0))
    assert near[3:, ..., 0].max() > 0.3, "to the right"
    assert np.abs(far[3:, ..., 0]).max() < 0.1


def test_the_square_waits_where_the_person_was_and_then_follows_what_moves():
    told = Told((270.0, 120.0), 20.0)
    sampler, seen = PersonSampler(SPEC, told), []
    for number, (frame, time_s) in enumerate(moving_square((40, 108))):
        told.centre = None if number > 2 else told.centre
        step = sampler.push(frame, time_s)
        if step is not None:
            seen.append((step.pose is not None, float(np.abs(step.image[..., 0]).max())))
    assert [found for found, _ in seen] == [True] + [False] * (len(seen) - 1)
    assert seen[3][1] < 0.1 < seen[-1][1]


def test_a_frame_of_another_size_starts_afresh():
    told = Told()
    sampler = PersonSampler(SPEC, told)
    first = told.resets
    sampler.push(np.zeros((240, 320, 3), np.uint8), 0.0)
    sampler.push(np.zeros((120, 160, 3), np.uint8), 0.2)
    assert told.resets == first + 1


@pytest.mark.parametrize("rows", [240, 480, 1000])
def test_large_frames_tell_the_same(rows):
    """The pose is given in the frame's own pixels, and its row in frame heights."""
    scale = rows / 240
    frame = np.zeros((rows, rows * 4 // 3, 3), np.uint8)
    factor = 2 if rows == 1000 else 1  # halved before anything looks at it
    step = PersonSampler(SPEC, Told((160 * scale / factor, 120 * scale / factor), 30 * scale / factor)).push(frame, 0.0)
    assert step.pose.trunk == pytest.approx((160 * scale, 120 * scale), abs=1)
    assert step.joints[SCORE] == pytest.approx(0.8)
    assert step.joints[1] * 240 == pytest.approx(120, abs=1)


def test_cameras_differ_and_repeat():
    clip = frames(seconds=0.4)
    one, same, other = (CameraAugmentation.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same != other
    seen = [list(camera.frames(clip)) for camera in (one, same, other)]
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(seen[0], seen[1], strict=True))
    assert seen[0][4][0].shape != seen[2][4][0].shape or not np.array_equal(seen[0][4][0], seen[2][4][0])


def test_a_mirrored_camera_mirrors():
    clip = frames(seconds=0.2)
    camera = CameraAugmentation(mirror=True, speed=2.0)
    (frame, _), (second, time_s) = list(camera.frames(clip))[:2]
    assert np.array_equal(frame, clip[0][0][:, ::-1])
    assert time_s == pytest.approx(clip[1][1] / 2)


@pytest.mark.parametrize("shape", [(1, 1), (7, 500), (7, 3000), (500, 7), (2160, 3840)])
def test_any_size_goes_through(shape):
    rng = np.random.default_rng(0)
    for estimator in (None, Told((shape[1] / 2, shape[0] / 2), max(1.0, shape[0] / 4))):
        sampler = PersonSampler(SPEC, estimator)
        for number in range(3):
            step = sampler.push(rng.integers(0, 255, (*shape, 3), np.uint8), number / 8)
            assert step.image.shape == (96, 96, 3) and np.isfinite(step.image).all()
