"""helpers.action.rejection: what the live system shows of a video, and the threshold that follows from it."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.action.rejection import LiveAnswers, fit_threshold, measure_rejection

STEP_S = 0.125


def steady(*answers):
    """Answers to a video, 10 steps each: probabilities of (point, walk); the rest is that of none."""
    rows = np.repeat(np.float32(answers), 10, axis=0)
    return LiveAnswers(rows, (8 + np.arange(len(rows))) * STEP_S)


POINTS_THEN_WALKS, NOTHING, UNSURE = steady((0.8, 0.1), (0.1, 0.8)), steady((0.1, 0.1)), steady((0.5, 0))
TOO_SHORT = LiveAnswers(np.zeros((0, 2), np.float32), np.zeros(0))


def test_shown_answers_follow_the_stream():
    shown = POINTS_THEN_WALKS.shown(0.5)
    assert shown[0] == 0 and shown[-1] == 1 and NOTHING.shown(0.5) == [None] * 10


def test_a_video_with_gaps_is_smoothed_by_its_own_times():
    slow = LiveAnswers(POINTS_THEN_WALKS.probabilities, 8 * POINTS_THEN_WALKS.times_s)
    assert slow.shown(0.5).index(1) < POINTS_THEN_WALKS.shown(0.5).index(1)


@pytest.mark.parametrize(
    ("allowed", "threshold", "reason"),
    [(0.0, 0.51, "no false alarm at all"), (0.5, 0.2, "half of them may be answered")],
)
def test_threshold_from_videos_of_none(allowed, threshold, reason):
    assert fit_threshold([NOTHING, UNSURE], allowed) == threshold, reason


def test_no_threshold_is_beyond_what_a_network_reaches():
    assert fit_threshold([steady((1.0, 0.0))]) == 0.95


@pytest.mark.parametrize(
    ("live", "targets", "line", "latency_s"),
    [
        (
            [POINTS_THEN_WALKS, NOTHING, UNSURE, NOTHING],
            [0, 1, 2, 2],
            "answered=0.50 right=1.00 false_alarms=0.50 negatives=2",
            1.0,
        ),
        ([POINTS_THEN_WALKS, TOO_SHORT], [1, 0], "answered=0.50 right=0.00 false_alarms=nan negatives=0", 2.5),
        ([NOTHING], [1], "answered=0.00 right=nan false_alarms=nan negatives=0", np.nan),
    ],
)
def test_measures_by_hand(live, targets, line, latency_s):
    """A video that points first and then walks shows both equally long; the first one counts."""
    found = measure_rejection(live, targets, 0.4)
    assert found.line() == line and found.actions + found.negatives == len(live)
    assert found.latency_s == pytest.approx(latency_s, nan_ok=True)
