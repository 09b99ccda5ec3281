"""helpers.action.clips and motion: decoding, time steps, optical flow and windows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.action import clips
from helpers.action import motion as motion_module
from helpers.action.clips import ClipSpec, FrameSampler
from helpers.action.motion import MotionRegion
from helpers.data.videos import read_frames, write_video

FLOW = ClipSpec(length=8, window_s=1.0, size=64, channels="flow")
MASKED = ClipSpec(length=8, window_s=1.0, size=64, channels="masked_flow")
COLOUR = ClipSpec(length=8, window_s=1.0, size=64, channels="rgb")
ALL = pytest.mark.parametrize("spec", [MASKED, FLOW, COLOUR], ids=clips.CHANNELS)
MOVING = pytest.mark.parametrize("spec", [MASKED, FLOW], ids=clips.CHANNELS[:2])


def scene(time_s: float, size: tuple[int, int] = (120, 160), seed: int = 0) -> np.ndarray:
    """A square that swings to and fro in front of a textured wall, uint8 BGR: the same motion at any frame rate."""
    rows, columns = size
    wall = np.random.default_rng(seed).uniform(60, 140, (6, 8, 3)).astype(np.float32)
    frame = cv2.resize(wall, (columns, rows), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    x = columns * (0.5 + 0.2 * np.sin(2 * np.pi * 0.7 * time_s))
    corners = np.array([[x - 12, rows * 0.4], [x + 12, rows * 0.4], [x + 12, rows * 0.75], [x - 12, rows * 0.75]])
    cv2.fillPoly(frame, [(corners * 16).round().astype(np.int32)], (230, 240, 220), cv2.LINE_AA, shift=4)
    return frame


def stream(fps: float, seconds: float, **settings) -> list[tuple[np.ndarray, float]]:
    return [(scene(k / fps, **settings), k / fps) for k in range(round(seconds * fps))]


def mirrored(steps: np.ndarray) -> np.ndarray:
    """Time steps (n, size, size, 3) as seen in a mirror, where what goes right goes left."""
    return steps[:, :, ::-1] * np.float32([-1, 1, 1])


REST = np.float32([0, 0, -1])  # a pixel where nothing moves


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), two.ravel())[0, 1])


# --------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize(
    "frames, length, expected, reason",
    [
        (5, 5, [0, 1, 2, 3, 4], "as many as asked"),
        (3, 5, [0, 1, 2, 2, 2], "too few: the last is repeated"),
        (1, 4, [0, 0, 0, 0], "a one-frame video"),
        (9, 5, [0, 2, 4, 6, 8], "every second"),
        (100, 2, [0, 99], "the first and the last"),
        (100, 1, [0], "one frame"),
        (7, 3, [0, 3, 6], "both ends are in"),
        (6, 4, [0, 2, 3, 5], "uneven: rounded, never twice the same"),
    ],
)
def test_sample_indices(frames, length, expected, reason):
    assert clips.sample_indices(frames, length).tolist() == expected, reason


@pytest.mark.parametrize("frames, length", [(0, 4), (4, 0), (-1, 4)])
def test_sampling_nothing_is_refused(frames, length):
    with pytest.raises(ValueError, match="positive"):
        clips.sample_indices(frames, length)


@ALL
def test_a_one_frame_video_is_one_step_and_one_padded_window(tmp_path, spec):
    steps = clips.video_steps(write_video(tmp_path / "one.avi", [scene(0)]), spec)
    assert steps.shape == (1, 64, 64, 3)
    window = clips.windows(steps, spec)
    assert window.shape == (1, 8, 64, 64, 3) and (window == steps[0]).all()


# --------------------------------------------------------------------------------------------------- time


@ALL
def test_steps_are_floats_between_minus_one_and_one(spec):
    steps = clips.steps_of(stream(25, 2), spec)
    assert steps.shape[1:] == (64, 64, 3) and steps.dtype == np.float32
    assert steps.min() >= -1 and steps.max() <= 1 and np.ptp(steps) > 0.5


def test_rgb_steps_show_the_frame_in_rgb():
    frame = np.zeros((120, 160, 3), np.uint8)
    frame[:, :80] = (255, 0, 0)  # blue, as OpenCV orders it
    step = FrameSampler(COLOUR).push(frame, 0.0)
    np.testing.assert_allclose(step[32, 10], [-1, -1, 1])
    np.testing.assert_allclose(step[32, 54], [-1, -1, -1])


@pytest.mark.parametrize(
    "spec, fps, least",
    [
        (FLOW, 15, 0.5),  # one frame back is further than the 0.04 s of the flow
        (FLOW, 30, 0.75),
        (FLOW, 50, 0.75),
        (FLOW, 60, 0.75),
        (COLOUR, 15, 0.95),
        (COLOUR, 30, 0.95),
        (COLOUR, 60, 0.95),
    ],
)
def test_time_is_measured_in_seconds_not_frames(spec, fps, least):
    """The same motion filmed at another rate gives as many steps, and about the same ones."""
    one, other = clips.steps_of(stream(25, 3), spec), clips.steps_of(stream(fps, 3), spec)
    assert len(one) == len(other) == 24
    assert likeness(one[4:], other[4:]) > least


@ALL
def test_a_stream_gives_the_steps_of_the_file(tmp_path, spec):
    """As a camera delivers it, frame by frame: live sees what training saw. Where an array lies in memory changes the
    last bit of a sum, so flow is equal up to rounding."""
    path = write_video(tmp_path / "v.avi", [frame for frame, _ in stream(25, 2)])
    sampler = FrameSampler(spec)
    live = [sampler.push(frame, time_s) for frame, time_s in read_frames(path)]
    live = [step for step in live if step is not None]
    np.testing.assert_allclose(np.array(live), clips.video_steps(path, spec), atol=1e-5 if spec is FLOW else 0)


@ALL
def test_the_past_is_all_a_step_depends_on(spec):
    """A longer video starts with the steps of its beginning: nothing looks ahead."""
    frames = stream(25, 3)
    np.testing.assert_allclose(clips.steps_of(frames[:40], spec), clips.steps_of(frames, spec)[:13], atol=1e-5)


def test_a_jittering_clock_does_not_lose_steps():
    rng = np.random.default_rng(0)
    times = np.arange(100) / 25 + rng.uniform(-0.015, 0.015, 100)
    assert len(clips.steps_of([(scene(t), t) for t in times], FLOW)) in (31, 32)


def test_slow_sources_give_a_step_for_every_frame():
    assert len(clips.steps_of(stream(4, 3), FLOW)) == 12


@ALL
def test_after_a_gap_in_time_no_step_is_invented(spec):
    """A camera that stops for ten seconds: one step at once, then one every `step_s` again."""
    sampler = FrameSampler(spec)
    times = [*np.arange(0, 1, 0.04), *np.arange(11.03, 12.03, 0.04)]
    due = [t for t in times if sampler.push(scene(t), t) is not None]
    before, after = [t for t in due if t < 5], [t for t in due if t > 5]
    assert len(before) == 8 and len(after) == 8 and after[0] == 11.03
    assert np.diff(after).min() > 0.07 and np.diff(after).max() < 0.17


@MOVING
def test_a_change_of_frame_size_starts_the_motion_anew(spec):
    """A camera that switches its format: no error, and no image of the difference between two formats."""
    sampler = FrameSampler(spec)
    for frame, time_s in stream(25, 1):
        sampler.push(frame, time_s)
    wide = [(scene(1 + k / 25, (120, 240)), 1 + k / 25) for k in range(25)]
    steps = [step for step in (sampler.push(*item) for item in wide) if step is not None]
    assert len(steps) == 8 and (steps[0] == REST).all(), "the first frame has nothing to differ from"
    assert np.ptp(steps[-1]) > 0.3


# --------------------------------------------------------------------------------------------------- flow images


@pytest.mark.parametrize("brightness", [10, 60, 250])
@MOVING
def test_a_still_scene_gives_an_empty_image(brightness, spec):
    rng = np.random.default_rng(0)
    frames = [(np.clip(rng.normal(brightness, 1, (120, 160, 3)), 0, 255).astype(np.uint8), k / 25) for k in range(50)]
    changes = clips.steps_of(frames, spec)[..., 2]
    assert changes.mean() < -0.85, "sensor noise must not look like motion"
    assert clips.steps_of(stream(25, 2), spec)[..., 2].max() > 0


@pytest.mark.parametrize(
    "change, least, reason",
    [
        (lambda frame: (frame * 0.4).astype(np.uint8), 0.93, "a dark room"),
        (lambda frame: (frame * 0.7 + 70).clip(0, 255).astype(np.uint8), 0.97, "haze"),
        (lambda frame: (255 * (frame / 255) ** 1.6).astype(np.uint8), 0.9, "darker gamma"),
        (lambda frame: (255 * (frame / 255) ** 0.6).astype(np.uint8), 0.9, "brighter gamma"),
        (lambda frame: cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), 0.999, "no colour"),
        (lambda frame: cv2.resize(frame, (640, 480), interpolation=cv2.INTER_LINEAR), 0.97, "four times the size"),
    ],
)
@MOVING
def test_motion_steps_do_not_depend_on_light_or_size(change, least, reason, spec):
    frames = stream(25, 2)
    changed = [(change(frame), time_s) for frame, time_s in frames]
    assert likeness(clips.steps_of(frames, spec)[2:], clips.steps_of(changed, spec)[2:]) > least, reason


@MOVING
def test_motion_steps_do_not_show_the_room(spec):
    """The same motion in front of two walls; the frames themselves are much less alike."""
    one, other = stream(25, 2, seed=1), stream(25, 2, seed=2)
    motion = likeness(clips.steps_of(one, spec)[2:], clips.steps_of(other, spec)[2:])
    colour = likeness(clips.steps_of(one, COLOUR)[2:], clips.steps_of(other, COLOUR)[2:])
    assert motion > 0.85 > colour


def test_the_region_follows_a_moving_square():
    region, errors = MotionRegion(), []
    for k in range(60):
        difference = np.zeros((96, 128), np.float32)
        x = 10 + 1.5 * k
        difference[40:60, int(x) : int(x) + 16] = 1.5
        centre, side = region.update(difference, k / 12.5)
        errors.append(centre - (x + 8, 49.5))
        assert 0.45 * 96 <= side <= 1.3 * 96
    assert np.abs(errors[-1][1]) < 3, "its height does not change"
    assert np.abs(errors[-1][0]) < 24, "it lags by about a second of fading energy"
    assert side < 0.8 * 96, "and closes in on what moves"


@pytest.mark.parametrize("place", [(20, 20), (100, 70), (64, 48)])
def test_the_region_closes_in_on_where_it_moves(place):
    region, rng = MotionRegion(), np.random.default_rng(0)
    for k in range(40):
        difference = np.abs(rng.normal(0, 0.05, (96, 128))).astype(np.float32)  # sensor noise everywhere
        difference[place[1] - 8 : place[1] + 8, place[0] - 8 : place[0] + 8] += 1.0
        centre, side = region.update(difference, k / 8)
    np.testing.assert_allclose(centre, np.array(place) - 0.5, atol=2)
    assert side == pytest.approx(0.45 * 96, rel=0.02)


def test_without_motion_the_region_stays():
    region = MotionRegion()
    first = region.update(np.zeros((96, 128), np.float32), 0.0)
    later = region.update(np.full((96, 128), 0.1, np.float32), 5.0)
    np.testing.assert_array_equal(first[0], later[0])
    assert first[1] == later[1] and first[0].tolist() == [64, 48]


@MOVING
def test_someone_small_and_far_fills_the_picture(spec):
    """The crop makes the same motion about the same size, wherever and however large it is in the frame."""
    wall = 40 + texture(240, 320, 3, 20) // 6  # a bare wall would not tell who moves: the camera or the circle

    def figure(time_s, scale, x0, y0):
        frame = wall.copy()
        x = x0 + 30 * scale * np.sin(2 * np.pi * 0.7 * time_s)
        cv2.circle(frame, (round(x * 16), y0 * 16), round(25 * scale * 16), (220, 220, 220), -1, cv2.LINE_AA, 4)
        return frame

    shares = []
    for scale, x0, y0 in ((1.6, 160, 120), (0.8, 80, 80), (0.8, 240, 180)):
        steps = clips.steps_of([(figure(k / 25, scale, x0, y0), k / 25) for k in range(75)], spec)
        shares.append(float((steps[12:, ..., 2].max(axis=0) > -0.5).mean()))
    assert max(shares) / min(shares) < 2.5, "a quarter of the area in the frame"
    assert shares[1] == pytest.approx(shares[2], rel=0.2), "its place does not matter"


# --------------------------------------------------------------------------------------------------- optical flow


def texture(rows: int, columns: int, seed: int, spot: int = 4) -> np.ndarray:
    """uint8 (rows, columns, 3): random gray spots, `spot` pixels large."""
    grid = np.random.default_rng(seed).uniform(20, 235, (rows // spot + 1, columns // spot + 1)).astype(np.float32)
    gray = cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)


def drifting_square(right: float, down: float, seconds: float = 1.5) -> list[tuple[np.ndarray, float]]:
    """A textured square of 36 pixels on a textured wall of 96 x 128, with these speeds in pixels a second."""
    wall, square = texture(96, 128, 1), texture(36, 36, 2)
    frames = []
    for k in range(round(seconds * 25)):
        away = k / 25 - seconds / 2
        place = np.array([[1, 0, 46 + right * away], [0, 1, 30 + down * away]])
        painted = cv2.warpAffine(square, place, (128, 96))
        share = cv2.warpAffine(np.ones((36, 36, 1), np.float32), place, (128, 96))[..., None]
        frames.append(((share * painted + (1 - share) * wall).round().astype(np.uint8), k / 25))
    return frames


@pytest.mark.parametrize("spec, lost", [(MASKED, 0.07), (FLOW, 0.05)], ids=["masked_flow", "flow"])
@pytest.mark.parametrize("right, down", [(30, 0), (-30, 0), (0, 24), (0, -24), (18, 18)])
def test_flow_says_how_fast_and_where_to(right, down, spec, lost):
    """Speed v in sides of the square per second is shown as 1.2 * v / (|v| + 0.5); the side is 0.45 to 1.3 heights.
    The mask takes a little of every speed."""
    step = clips.steps_of(drifting_square(right, down), spec)[-4]
    moving = step[..., 2] > 0
    assert 0.05 < moving.mean() < 0.6
    for shown, speed in zip((step[..., 0], step[..., 1]), (right, down), strict=True):
        value, heights = float(np.median(shown[moving])) * (np.sign(speed) or 1), abs(speed) / 96
        slow, fast = (1.2 * v / (v + 0.5) for v in (heights / 1.3, heights / 0.45))
        assert (slow - lost < value < fast + 0.05) if speed else abs(value) < 0.06
    still = (step[..., 2] < -0.9) & (np.abs(step[..., :2]).max(axis=-1) < 0.1)
    assert still.mean() > 0.25, "the wall stands still"


def test_speeds_are_believed_where_something_changed():
    change = np.zeros((96, 128), np.float32)
    change[30:60, 40:70] = 1.0
    believed = motion_module.flow_mask(change)
    assert believed[45, 55] == pytest.approx(0.9 / (0.9 + motion_module.SUPPORT), abs=1e-4) and believed[45, 90] == 0
    assert not motion_module.flow_mask(np.full((96, 128), 3.0, np.float32)).any(), (
        "all of it changed alike: a lamp, or the camera"
    )
    assert not motion_module.flow_mask(np.full((96, 128), 0.05, np.float32)).any(), "noise"


def test_the_flow_mask_takes_speeds_from_a_dark_wall():
    """A square before a wall that is dark between floor and ceiling: flow carries its speed far into the dark."""
    frames, rng, room = [], np.random.default_rng(0), texture(96, 128, 1)
    for k in range(38):
        frame = rng.normal(12, 2, (96, 128, 3)).clip(0, 255).astype(np.uint8)
        frame[:24], frame[-24:] = room[:24], room[-24:]
        frame[30:66, 30 + k : 66 + k] = texture(36, 36, 2)
        frames.append((frame, k / 25))
    plain, masked = (clips.steps_of(frames, spec)[-4] for spec in (FLOW, MASKED))
    still = plain[..., 2] < -0.95
    assert np.abs(masked[still, 0]).mean() < 0.4 * np.abs(plain[still, 0]).mean()
    moving = plain[..., 2] > 0
    assert masked[moving, 0].mean() > 0.8 * plain[moving, 0].mean() > 0.2
    np.testing.assert_array_equal(masked[..., 2], plain[..., 2])


def test_the_mirrored_square_goes_the_other_way():
    frames = drifting_square(25, 10)
    flipped = [(cv2.flip(frame, 1), time_s) for frame, time_s in frames]
    plain, other = clips.steps_of(frames, FLOW)[4:], mirrored(clips.steps_of(flipped, FLOW))[4:]
    for channel in range(3):
        assert likeness(plain[..., channel], other[..., channel]) > 0.85


def ego_motion_flow(zoom: float, turn: float, right: float, down: float, other: float) -> tuple[np.ndarray, np.ndarray]:
    """(optical flow float32 (96, 128, 2), newer frame) of a textured image that a camera sees so.

    other: in the lower right quarter of the frame something goes so many pixels further to the right.
    """

    def seen(along: float) -> np.ndarray:
        matrix = np.array(
            [[1 + zoom, -turn, along - zoom * 64 + turn * 48], [turn, 1 + zoom, down - zoom * 48 - turn * 64]]
        )
        return cv2.warpAffine(image, matrix, (128, 96), borderMode=cv2.BORDER_REFLECT)

    image = cv2.cvtColor(texture(96, 128, 3, 6), cv2.COLOR_BGR2GRAY)
    newer = seen(right)
    if other:
        newer[48:, 64:] = seen(right + other)[48:, 64:]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(image, newer, None)
    return flow, motion_module.normalise_locally(newer)


@pytest.mark.parametrize("other", [0.0, 3.0], ids=["all alike", "a quarter moves otherwise"])
@pytest.mark.parametrize(
    "zoom, turn, right, down, reason",
    [
        (0.0, 0.0, 0.0, 0.0, "a camera at rest"),
        (0.0, 0.0, 2.0, -1.0, "a camera that pans"),
        (0.03, 0.0, 0.0, 0.0, "a camera that comes nearer"),
        (0.0, 0.03, 0.0, 0.0, "a camera that rolls"),
        (-0.02, 0.02, -1.0, 1.5, "everything at once"),
    ],
)
def test_ego_motion_is_found(zoom, turn, right, down, reason, other):
    found = motion_module.estimate_ego_motion(*ego_motion_flow(zoom, turn, right, down, other))
    np.testing.assert_allclose(found[:2], [zoom, turn], atol=0.012 if other else 0.006, err_msg=reason)
    np.testing.assert_allclose(found[2:], [right, down], atol=0.6 if other else 0.2, err_msg=reason)


@pytest.mark.parametrize("other", [0.0, 3.0], ids=["all alike", "a quarter moves otherwise"])
def test_ego_motion_from_exact_flow(other):
    """Flow that is known, not measured: right + zoom * x - turn * y, down + zoom * y + turn * x from the centre."""
    zoom, turn, right, down = 0.02, -0.01, 1.5, -0.7
    x, y = np.meshgrid(np.arange(128) - 64.0, np.arange(96) - 48.0)
    flow = np.dstack([right + zoom * x - turn * y, down + zoom * y + turn * x]).astype(np.float32)
    flow[48:, 64:, 0] += other
    gray = motion_module.normalise_locally(cv2.cvtColor(texture(96, 128, 3), cv2.COLOR_BGR2GRAY))
    found = motion_module.estimate_ego_motion(flow, gray)
    np.testing.assert_allclose(found[:2], [zoom, turn], atol=0.004 if other else 1e-4)
    np.testing.assert_allclose(found[2:], [right, down], atol=0.15 if other else 1e-3)


def test_a_panning_camera_sees_a_still_wall():
    """25 pixels a second over a wall: nearly nothing, where a square at this speed is bright."""
    wall = texture(140, 240, 5, 6)
    frames = [(cv2.getRectSubPix(wall, (128, 96), (70 + k, 70)), k / 25) for k in range(50)]
    panned, square = clips.steps_of(frames, FLOW)[3:], clips.steps_of(drifting_square(25, 0), FLOW)[3:]
    assert (panned[..., 2] > 0).mean() < 0.2 * (square[..., 2] > 0).mean()
    assert np.abs(panned[..., :2]).mean() < 0.04
    assert np.median(square[..., 0][square[..., 2] > 0]) > 0.3


def test_after_one_frame_nothing_has_moved():
    (step,) = clips.steps_of([(scene(0), 0.0)], FLOW)
    assert (step == np.float32([0, 0, -1])).all()


@pytest.mark.parametrize("lamp", [0, 255], ids=["no lamp", "a lamp"])
def test_contrast_is_local(lamp):
    """A dark corner with texture keeps its contrast when a lamp is switched on at the other end of the room."""
    gray = np.full((96, 160), 30, np.uint8)
    gray[:, :60] = cv2.cvtColor(texture(96, 60, 7), cv2.COLOR_BGR2GRAY) // 5 + 10
    gray[20:40, 130:150] = max(30, lamp)
    normal = motion_module.normalise_locally(gray)
    assert normal.dtype == np.float32 and normal.shape == gray.shape and abs(normal[:, :60].mean()) < 0.1
    assert 0.4 < normal[:, :40].std() < 1.1
    globally = (gray - gray.mean()) / (gray.std() + 4)
    assert lamp == 0 or globally[:, :40].std() < 0.6 * normal[:, :40].std(), "the lamp decides over the whole frame"


# --------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    "n, starts, reason",
    [
        (1, [0], "one step, seven repeats"),
        (7, [0], "one too few"),
        (8, [0], "just enough"),
        (9, [0, 1], "one more: a second window ends with it"),
        (12, [0, 4], "half a window more"),
        (13, [0, 2, 5], "spread evenly, at most half a window apart"),
        (16, [0, 4, 8], "two windows' worth"),
        (40, [0, 4, 8, 12, 16, 20, 24, 28, 32], "half-overlapping throughout"),
    ],
)
def test_windows_cover_all_steps(n, starts, reason):
    steps = np.arange(n, dtype=np.float32)[:, None]
    result = clips.windows(steps, FLOW)
    expected = [[min(start + k, n - 1) for k in range(8)] for start in starts]
    assert result[..., 0].tolist() == expected, reason
    assert result.shape == (len(starts), 8, 1) and result[-1, -1, 0] == n - 1
    assert set(result.ravel()) == set(range(n)), "no step is left out"


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="positive"):
        clips.windows(np.empty((0, 4), np.float32), FLOW)


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"length": 0}, "length"),
        ({"size": 16}, "size"),
        ({"window_s": 0}, "window_s"),
        ({"window_s": -1}, "window_s"),
        ({"lag_s": 0}, "lag_s"),
        ({"channels": "depth"}, "channels"),
    ],
)
def test_a_spec_refuses_what_cannot_work(settings, named):
    with pytest.raises(ValueError, match=named):
        ClipSpec(**settings)


def test_a_spec_survives_json():
    import json

    assert ClipSpec(**json.loads(json.dumps(FLOW.as_dict()))) == FLOW
    assert FLOW.step_s == 0.125
