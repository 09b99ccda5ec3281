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


def test_confidence_without_an_action_is_that_of_the_frames_as_the_camera_gives_them():
    """The same drawn frames, one by one through the stepper of the live system, give the same confidence."""
    keras.utils.set_random_seed(0)
    spec = ClipSpec(length=4, size=32)
    encoder, head = action_model.build_backbone(32, None), action_model.build_action_head(3, 4, units=8)
    found = rejection.no_action_confidence(head, encoder, spec, range(7, 9))
    stepper, steps = FrameSampler(spec), []
    for index, frame in enumerate(scenes.render_action(scenes.IDLE, 8, size=(120, 160))):
        step = stepper.push(frame, index / 25)
        steps += [] if step is None else [step]
    features = np.asarray(encoder(np.array(steps, np.float32)))
    expected = np.asarray(head(windows(features, spec))).mean(axis=0).max()
    assert found.shape == (2,) and found[1] == pytest.approx(expected, abs=1e-4) and (found > 1 / 3 - 1e-6).all()


def test_each_person_does_one_of_the_unknown_actions_in_turn():
    keras.utils.set_random_seed(0)
    spec = ClipSpec(length=4, size=32)
    encoder, head = action_model.build_backbone(32, None), action_model.build_action_head(3, 4, units=8)
    found = rejection.no_action_confidence(head, encoder, spec, range(7, 10), ("hug", scenes.IDLE))
    films = [rejection.synthetic_video(action, person) for action, person in (("hug", 7), (scenes.IDLE, 8), ("hug", 9))]
    assert len(films[0]) == 100 and films[0][25][1] == 1.0, "two people take four seconds"
    run = runtime.KerasFunction
    assert found == pytest.approx(rejection.video_confidences(run(encoder), run(head), spec, films), abs=1e-6)
