"""helpers.action.rejection: the threshold, and confidence where nobody shows an action."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from helpers import runtime
from helpers.action import model as action_model
from helpers.action import rejection
from helpers.action.clips import ClipSpec, FrameSampler, windows
from helpers.synthetic import scenes

SPEC = ClipSpec(length=4, size=32)


@pytest.mark.parametrize(
    "confidences, false_alarms, expected, reason",
    [
        ([0.91, 0.33, 0.50, 0.25], 0.25, 0.51, "one of four may show: above the second largest"),
        ([0.91, 0.33, 0.50, 0.25], 0.05, 0.92, "none may: above the largest"),
        ([0.91, 0.33, 0.50, 0.25], 0.5, 0.34, "two may"),
        ([0.804, 0.333], 0.0, 0.81, "rounded up to hundredths"),
        ([0.05, 0.1, 0.15], 0.05, 0.2, "never below 0.2"),
        ([1.0] * 3 + [0.3] * 37, 0.05, 1.01, "three of forty are sure: nothing may ever be shown"),
    ],
)
def test_the_threshold_by_hand(confidences, false_alarms, expected, reason):
    threshold = rejection.fit_threshold(np.array(confidences), false_alarms)
    assert threshold == pytest.approx(expected), reason
    assert (np.array(confidences) >= threshold).mean() <= false_alarms


@pytest.fixture(scope="module")
def halves():
    """(encode, classify) of an untrained network for three actions, 4 steps of 32 pixels."""
    keras.utils.set_random_seed(0)
    return runtime.KerasFunction(action_model.build_backbone(32, None)), runtime.KerasFunction(
        action_model.build_action_head(3, 4, units=8)
    )


def test_confidence_is_that_of_the_frames_as_the_camera_gives_them(halves):
    """The same synthetic frames, one by one through the sampler of the live system, give the same confidence."""
    encode, classify = halves
    videos = [rejection.synthetic_video(scenes.IDLE, person) for person in (7, 8)]
    found = rejection.video_confidences(encode, classify, SPEC, videos=videos)
    sampler, steps = FrameSampler(SPEC), []
    for index, frame in enumerate(scenes.render_action(scenes.IDLE, 8, size=(120, 160))):
        step = sampler.push(frame, index / 25)
        steps += [] if step is None else [step]
    expected = classify(windows(encode(np.array(steps)), SPEC)).mean(axis=0).max()
    assert found.shape == (2,) and found[1] == pytest.approx(expected, abs=1e-4) and (found > 1 / 3 - 1e-6).all()


def test_the_strictest_rule_decides_and_each_person_does_one_of_its_actions_in_turn(halves):
    rules, people = [(0.0, (scenes.IDLE,)), (0.4, ("hug", scenes.IDLE))], range(7, 10)
    threshold = rejection.fit_rejection(*halves, SPEC, rules=rules, people=people)
    turns = [[(scenes.IDLE, person) for person in people], [("hug", 7), (scenes.IDLE, 8), ("hug", 9)]]
    thresholds = []
    for (allowed, _), turn in zip(rules, turns, strict=True):
        videos = [rejection.synthetic_video(action, person) for action, person in turn]
        thresholds.append(rejection.fit_threshold(rejection.video_confidences(*halves, SPEC, videos=videos), allowed))
    assert threshold == max(thresholds)
    assert len(videos[0]) == 100 and videos[0][25][1] == 1.0, "two people take four seconds"
