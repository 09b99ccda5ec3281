"""What the live system shows of a video, when it shows nothing, and the threshold that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helpers.smoothing import HysteresisSmoother, Smoothing


@dataclass(frozen=True)
class Rejection:
    """What the live system shows of whole videos with a threshold. A share of no video at all is not a number.

    answered: share of the action videos with an answer at any time. right: share of these whose longest-shown answer is
    right. false_alarms: share of the `negatives` videos without an action with any answer. latency_s: median time of
    the first right answer. actions, negatives: how many videos.
    """

    answered: float
    right: float
    false_alarms: float
    latency_s: float
    actions: int
    negatives: int

    def line(self) -> str:
        """The line a machine can read: `answered=0.78 right=0.91 false_alarms=0.06 negatives=132`."""
        return (
            f"answered={self.answered:.2f} right={self.right:.2f} "
            f"false_alarms={self.false_alarms:.2f} negatives={self.negatives}"
        )


@dataclass(frozen=True, eq=False)
class LiveAnswers:
    """What the network gives after each time step of one video, from the first answer on.

    probabilities: float32 (k, labels), without that of "none of these". times_s: float (k,), seconds of the video.
    """

    probabilities: np.ndarray
    times_s: np.ndarray

    def shown(self, threshold: float) -> list[int | None]:
        """What the live system shows after each step: number of the label, or None."""
        answer, shown = HysteresisSmoother(), []
        for row, time_s in zip(self.probabilities, self.times_s, strict=True):
            answer.update(row, time_s, threshold, Smoothing())
            shown.append(answer.index)
        return shown


def measure_rejection(live: Sequence[LiveAnswers], targets: Sequence[int], threshold: float) -> Rejection:
    """How the live system does on videos with these targets; the number of labels stands for none of them."""
    answered, right, alarms, latency = [], [], [], []
    for video, target in zip(live, targets, strict=True):
        shown = video.shown(threshold)
        named = [index for index in shown if index is not None]
        if target == video.probabilities.shape[1]:
            alarms.append(bool(named))
            continue
        answered.append(bool(named))
        if named:
            right.append(Counter(named).most_common(1)[0][0] == target)
        if target in shown:
            latency.append(video.times_s[shown.index(target)])
    shares = [float(np.mean(values)) if values else float("nan") for values in (answered, right, alarms)]
    return Rejection(*shares, float(np.median(latency)) if latency else float("nan"), len(answered), len(alarms))


def fit_threshold(live: Sequence[LiveAnswers], allowed: float = 0.05) -> float:
    """The smallest threshold, in hundredths from 0.2 to 0.95, at which at most this share of `live` gets any answer.

    live: of videos that show none of the actions.
    """
    for threshold in np.arange(20, 96) / 100:
        if np.mean([any(index is not None for index in video.shown(threshold)) for video in live]) <= allowed:
            return float(threshold)
    return 0.95
