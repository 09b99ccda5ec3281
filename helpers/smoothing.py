"""Class probabilities smoothed over time, with hysteresis: the live answer, and what --reject measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Smoothing:
    """How an answer is held steady.

    hysteresis: a shown label leaves only when it falls so far below the threshold or another leads by so much.
    smoothing_s: time constant of the exponential smoothing of the probabilities, in seconds; 0 turns it off.
    """

    hysteresis: float = 0.1
    smoothing_s: float = 0.4


class HysteresisSmoother:
    """Probabilities smoothed over time and a label that does not flicker.

    probabilities: float32 (C,), None before the first update. index: the label to show, None for none.
    """

    def __init__(self):
        self.probabilities: np.ndarray | None = None
        self.index: int | None = None
        self._time_s = 0.0

    def update(self, probabilities: np.ndarray, time_s: float, threshold: float, settings: Smoothing) -> None:
        """Take in probabilities (C,) of time `time_s`; `index` is the label to show, None below `threshold`."""
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
