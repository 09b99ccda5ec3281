"""When no action is named: confidences on clips without any, and the threshold that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from helpers.action.clips import ClipSpec, mean_over_windows, steps_of
from helpers.synthetic.scenes import COUPLE_ACTIONS, render_action, render_couple


def synthetic_video(action: str, person: int) -> list[tuple[np.ndarray, float]]:
    """(uint8 BGR frame (120, 160, 3), time in seconds) of a synthetic person or couple, 25 frames a second.

    Not compressed: the frames come with all the camera's noise, as in the live system; files have lost most of it.
    """
    render = render_couple if action in COUPLE_ACTIONS else render_action
    return [(frame, index / 25) for index, frame in enumerate(render(action, person, size=(120, 160)))]


def video_confidences(encode: Callable, classify: Callable, spec: ClipSpec, *, videos: Iterable) -> np.ndarray:
    """float32 (videos,): confidence in the best answer for each stream of (frame, time).

    encode, classify: the network's halves, see `ActionClassifier`.
    """
    return np.array([mean_over_windows(classify, encode(steps_of(video, spec)), spec).max() for video in videos])


def fit_threshold(no_action: np.ndarray, false_alarms: float = 0.05) -> float:
    """The smallest confidence threshold at which at most this share of the clips without an action shows one.

    no_action: confidences (N,) on validation clips without an action. Rounded up to hundredths, at least 0.2.
    """
    allowed = int(false_alarms * len(no_action))
    return round(float(max(0.2, np.floor(100 * np.sort(no_action)[::-1][allowed] + 1) / 100)), 2)


def fit_rejection(
    encode: Callable,
    classify: Callable,
    spec: ClipSpec,
    *,
    rules: Iterable[tuple[float, tuple[str, ...]]],
    people: range = range(2000, 2200),
) -> float:
    """The smallest threshold that keeps every rule (false alarms allowed, actions) on people never trained on.

    Each synthetic person does one of the rule's `actions`, in turn; none of these may be one that the network knows.
    """
    thresholds = []
    for allowed, actions in rules:
        videos = (synthetic_video(actions[number % len(actions)], person) for number, person in enumerate(people))
        thresholds.append(fit_threshold(video_confidences(encode, classify, spec, videos=videos), allowed))
    return max(thresholds)
