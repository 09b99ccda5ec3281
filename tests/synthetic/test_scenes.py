"""Synthetic people: repeatable, varied, and no appearance gives its label away."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest

from helpers.synthetic import faces as synthetic_faces
from helpers.synthetic import scenes, skeleton

PEOPLE = (3, 11)


@lru_cache
def movement(action: str, seed: int) -> float:
    """Mean change between frames 0.2 s apart, after a blur that removes the camera's noise."""
    frames = scenes.render_action(action, seed, 2.5, size=(96, 128))
    smooth = [cv2.GaussianBlur(frame, (0, 0), 3).astype(np.float32) for frame in frames[::5]]
    return float(np.mean([np.abs(b - a).mean() for a, b in zip(smooth, smooth[1:], strict=False)]))


def test_same_seed_gives_the_same_pixels():
    first, again = (scenes.render_action("walk", 4, seconds=0.2) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(synthetic_faces.render_expression("happy", 4), synthetic_faces.render_expression("happy", 4))


def test_another_seed_is_another_person():
    assert not np.array_equal(*(scenes.render_action("walk", seed, 0.04)[0] for seed in PEOPLE))
    assert not np.array_equal(*(synthetic_faces.render_expression("happy", seed) for seed in PEOPLE))


@pytest.mark.parametrize(
    ("seconds", "size", "fps", "count"),
    [
        (1.0, (240, 320), 25, 25),  # the default image
        (0.5, (64, 64), 30, 15),  # as small as the Weizmann clips
        (0.1, (480, 640), 10, 1),  # a single frame is still a clip
    ],
)
def test_frames_have_the_asked_shape(seconds, size, fps, count):
    frames = scenes.render_action("jump", 1, seconds, size=size, fps=fps)
    assert len(frames) == count
    assert all(frame.shape == (*size, 3) and frame.dtype == np.uint8 for frame in frames)


@pytest.mark.parametrize("action", scenes.ACTIONS)
def test_every_action_moves_more_than_standing_still(action):
    seeds = [seed for seed in range(30) if not scenes.sample_appearance(seed, (60, 80)).shake][:4]
    moved, still = ([movement(name, seed) for seed in seeds] for name in (action, "idle"))
    assert np.mean(moved) > 1.5 * np.mean(still)


def test_wave_one_hand_moves_on_one_side_only():
    appearances = ((seed, scenes.sample_appearance(seed, (240, 320))) for seed in range(50))
    seed, appearance = next(
        (s, appearance) for s, appearance in appearances if abs(appearance.heading) < 0.2 and not appearance.shake
    )
    away = np.arange(320) - appearance.camera.centre * 320
    trunk = 0.12 * 240 / appearance.camera.span  # half its width, pixels

    def sides(action: str) -> np.ndarray:
        change = np.std(np.float32(scenes.render_action(action, seed)), axis=0).mean(axis=2)
        change[change < 12] = 0
        return np.array([change[:, away < -trunk].sum(), change[:, away > trunk].sum()])

    one, two = sides("wave_one_hand"), sides("wave_two_hands")
    assert one.min() < 0.15 * one.max()
    assert two.min() > 0.5 * two.max()


@pytest.mark.parametrize("seed", PEOPLE)
def test_the_appearance_tells_nothing_about_the_action(seed):
    """Outside the figure the first frame of every action is the same but for the camera's noise."""
    frames = np.array(
        [cv2.GaussianBlur(scenes.render_action(action, seed, 0.04)[0], (0, 0), 2) for action in scenes.ACTIONS], float
    )
    assert np.ptp(frames.mean(axis=(1, 2, 3))) < 0.25 * frames.mean() + 2
    same = np.ptp(frames, axis=0).max(axis=-1) < 6
    assert same.mean() > 0.3


def test_the_empty_room_is_the_room_without_its_person():
    """Outside the figure nothing differs but the camera's noise; where the figure stands, much does."""
    empty, idle = (
        cv2.GaussianBlur(scenes.render_action(action, 11, 0.04)[0], (0, 0), 2).astype(float)
        for action in (scenes.NOBODY, scenes.IDLE)
    )
    changed = np.abs(empty - idle).max(axis=-1) > 12
    assert 0.01 < changed.mean() < 0.6


def test_half_of_the_cameras_turn_after_those_who_go():
    """The top rows show the wall alone: they stay where they are, but for the camera's shaking, or pass by."""
    turning = 0
    for seed in range(16):
        frames = scenes.render_action("walk", seed, 2.0, size=(60, 80))
        rows = [cv2.GaussianBlur(frame, (0, 0), 2)[:5].astype(float) for frame in (frames[0], frames[-1])]
        moved = np.abs(rows[0] - rows[1]).mean() / (np.ptp(rows[0], axis=1).mean() + 3)
        turning += moved > 0.15
    assert 2 <= turning <= 12


@pytest.mark.parametrize(
    "route, depth, reason",
    [
        (0.2, 0.0, "across the image"),
        (0.41, 0.12, "towards the camera, near"),
        (0.64, 2.88, "towards the camera, from far off"),
        (0.89, 2.88, "away, as in a corridor"),
        (0.95, 0.0, "on the spot"),
    ],
)
def test_some_walkers_are_far_off(route, depth, reason):
    """In the middle of the clip they are in the middle of their way."""
    style = scenes._sample_style("walk", 4, scenes.sample_appearance(4, (96, 128)), 2.5, (96, 128))
    pose = skeleton.rest(1.25, style)
    skeleton.MOTIONS["walk"](pose, 1.25, replace(style, route=route))
    assert pose.place[1] == pytest.approx(-depth, abs=0.02), reason


@pytest.mark.parametrize("phase, flights", [(1.0, 1), (4.0, 3)])
def test_half_of_the_jumpers_jump_once_and_then_stand(phase, flights):
    """One jump takes 1.3 seconds."""
    style = replace(
        scenes._sample_style("jump", 4, scenes.sample_appearance(4, (96, 128)), 4.0, (96, 128)),
        phase=phase,
        rate=1.0,
        start=0.3,
    )
    flying = []
    for t in np.arange(0, 4.0, 0.04):
        pose = skeleton.rest(t, style)
        skeleton.MOTIONS["jump"](pose, t, style)
        flying.append(pose.lift > 0)
    assert (np.diff(np.int8(flying)) > 0).sum() == flights


def test_furniture_stands_before_a_quarter_of_the_people_and_below_their_arms():
    appearances = [scenes.sample_appearance(seed, (96, 128)) for seed in range(200)]
    hidden = [appearance.furniture for appearance in appearances if appearance.furniture]
    assert 30 <= len(hidden) <= 70 and min(top for *_, top in hidden) >= 0.6


def test_furniture_hides_who_walks_behind_it_and_passes_by_when_the_camera_turns():
    appearance = replace(
        scenes.sample_appearance(3, (96, 128)), furniture=((0.0, 0.0, 255.0), 0.25, 0.75, 0.8), shake=0.0
    )
    pose = skeleton.rest(0.0, scenes._sample_style("idle", 3, appearance, 2.0, (96, 128)))
    for pan, columns in ((0, slice(32, 96)), (20, slice(12, 76))):
        scene = scenes.paint_scene(appearance, [(pose, appearance.body)], 0.0, (96, 128), pan=pan)
        red = (scene == (0, 0, 255)).all(axis=-1)
        assert red[78:, columns].all() and not red[:76].any() and red.sum() < 1.1 * red[78:, columns].size


def test_light_reaches_from_very_dark_to_bright():
    levels = [scenes.render_action("idle", seed, 0.04, size=(60, 80))[0].mean() for seed in range(60)]
    assert min(levels) < 25 and max(levels) > 120


@pytest.mark.parametrize(
    ("render", "known"),
    [
        (scenes.render_action, scenes.ACTIONS),  # the message lists what can be painted
        (synthetic_faces.render_expression, synthetic_faces.EXPRESSIONS),
    ],
)
def test_unknown_label_lists_the_known_ones(render, known):
    with pytest.raises(ValueError, match="dancing") as caught:
        render("dancing", 0)
    assert all(label in str(caught.value) for label in known)


def test_nearest_mean_cannot_read_the_expressions():
    """The sample faces must need a model: the mean image of a class is not enough."""

    def faces(seeds: range) -> np.ndarray:
        images = np.array(
            [
                [synthetic_faces.render_expression(label, seed) for seed in seeds]
                for label in synthetic_faces.EXPRESSIONS
            ],
            float,
        )
        images -= images.mean(axis=(2, 3), keepdims=True)
        return (images / images.std(axis=(2, 3), keepdims=True)).reshape(7, len(seeds), -1)

    means, others = faces(range(40)).mean(axis=1), faces(range(1000, 1020))
    nearest = ((others[:, :, None] - means) ** 2).sum(axis=-1).argmin(axis=-1)
    assert np.mean(nearest == np.arange(7)[:, None]) < 0.5
