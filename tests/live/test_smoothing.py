"""Smoothed probabilities and labels with hysteresis; the settings."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.live import results as results_module
from helpers.smoothing import HysteresisSmoother


@pytest.mark.parametrize(
    "sequence, shown, why",
    [
        ([0.9, 0.45, 0.45], 0, "just below the threshold: stays, no flicker"),
        ([0.9, 0.3], None, "far below the threshold: gone"),
        ([0.45], None, "never reached the threshold"),
        ([0.6, 0.49], 0, "another leads by less than the margin"),
        ([0.9, 0.1], 1, "another is clearly likelier and above the threshold"),
    ],
)
def test_label_has_hysteresis(sequence, shown, why):
    settings, answer = results_module.LiveSettings(smoothing_s=0), HysteresisSmoother()
    for number, first in enumerate(sequence):
        rest = 1 - first if first in (0.1, 0.49) else (1 - first) / 2
        answer.update(np.array([first, rest, 1 - first - rest]), number * 0.1, 0.5, settings)
    assert answer.index == shown, why


def test_smoothing_goes_by_time_not_by_frames():
    settings = results_module.LiveSettings(smoothing_s=0.5)
    ends = []
    for frames in (10, 40):
        answer = HysteresisSmoother()
        answer.update(np.array([1.0, 0.0]), 0.0, 0.5, settings)
        for time_s in np.linspace(0, 1, frames + 1)[1:]:
            answer.update(np.array([0.0, 1.0]), time_s, 0.5, settings)
        ends.append(answer.probabilities)
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)
    assert ends[0][0] == pytest.approx(np.exp(-2), abs=1e-5)


@pytest.mark.parametrize("values", [{"threshold": 1.5}, {"smoothing_s": -1}, {"patience_s": 1e9}])
def test_settings_are_checked(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        results_module.LiveSettings(**values)
