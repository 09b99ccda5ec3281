"""When no action is named: confidences on clips without any, and the threshold that follows from them."""

from __future__ import annotations

import keras
import numpy as np

from helpers.action.clips import ClipSpec, steps_of
from helpers.action.training import video_probabilities
from helpers.runtime import KerasFunction
from helpers.synthetic.scenes import COUPLE_ACTIONS, IDLE, render_action, render_couple


def no_action_confidence(
    head: keras.Model, encoder: keras.Model, spec: ClipSpec, people: range, actions: tuple[str, ...] = (IDLE,)
) -> np.ndarray:
    """float32 (clips,): how sure a head is of some action that it knows while drawn people (their seeds) only stand
    there, or do others; each person does one of `actions`, in turn.

    The frames come with all the camera's noise, as in the live system; compressed films of them have lost most of it.
    """
    films = (synthetic_video(actions[number % len(actions)], person) for number, person in enumerate(people))
    return video_confidences(KerasFunction(encoder), KerasFunction(head), spec, films)


def synthetic_video(action: str, person: int) -> list[tuple[np.ndarray, float]]:
    """(BGR uint8 frame (120, 160, 3), time in seconds) of what one person or two do, drawn, at 25 frames a second, not
    compressed."""
    draw = render_couple if action in COUPLE_ACTIONS else render_action
    return [(frame, index / 25) for index, frame in enumerate(draw(action, person, size=(120, 160)))]


def video_confidences(encode, classify, spec: ClipSpec, films) -> np.ndarray:
    """float32 (films,): how sure a network, in its two halves, is of its best answer for each stream of (frame, time)."""
    return video_probabilities(classify, [encode(steps_of(film, spec)) for film in films], spec).max(axis=1)


def fit_threshold(no_action: np.ndarray, false_alarms: float = 0.05) -> float:
    """The smallest confidence threshold at which at most this share of the clips without an action shows one.

    no_action: confidences (N,) on clips without an action, of a validation part. Rounded up to hundredths, at least 0.2.
    """
    allowed = int(false_alarms * len(no_action))
    return round(float(max(0.2, np.floor(100 * np.sort(no_action)[::-1][allowed] + 1) / 100)), 2)
