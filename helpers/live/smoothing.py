"""Class probabilities smoothed over time, with hysteresis."""

from __future__ import annotations

import math

import numpy as np

from helpers.live.results import LiveSettings


class HysteresisSmoother:
    """Probabilities smoothed over time and a label that does not flicker."""

    def __init__(self):
        self.probabilities: np.ndarray | None = None
        self.index: int | None = None
        self._time_s = 0.0

    def update(self, probabilities: np.ndarray, time_s: float, threshold: float, settings: LiveSettings) -> None:
        """Take in probabilities (C,) of time `time_s`; `index` is the label to show, None below
        `threshold`.
        """
        if self.probabilities is None or settings.smoothing_s == 0:
            self.probabilities = np.asarray(probabilities, np.float32)
        else:
            weight = 1 - math.exp(-(time_s - self._time_s) / settings.smoothing_s)
            self.probabilities = self.probabilities + weight * (probabilities - self.probabilities)
        self._time_s = time_s
        self.index = self._choose(threshold, settings.hysteresis)

    def _choose(self, threshold: float, margin: float) -> int | None:
        best = int(self.probabilities.argmax())
        if self.index is not None:
            shown = self.probabilities[self.index]
            if shown >= threshold - margin and self.probabilities[best] - shown < margin:
                return self.index
        return best if self.probabilities[best] >= threshold else None
