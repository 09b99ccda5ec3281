"""Small faces in large frames: found at full resolution, within two seconds, the same in every run."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from helpers.emotion.faces import FaceFinder
from helpers.live import detection
from helpers.live.detection import iou
from helpers.live.pipeline import Pipeline

FPS = 10
PORTRAIT_FACE = 150  # pixels, side of the box round the face in the fixture `portrait`


def group_photograph(portrait, shape, widths):
    """A uint8 BGR frame of `shape` (H, W) with a face of each width in pixels, spread over it."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 190, (9, 16, 3), np.uint8)
    frame = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    columns = 4
    for number, width in enumerate(widths):
        scale = width / PORTRAIT_FACE
        head = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        y = shape[0] * (1 + 2 * (number // columns)) // 4 - head.shape[0] // 2
        x = shape[1] * (1 + 2 * (number % columns)) // (2 * columns) - head.shape[1] // 2
        frame[y : y + head.shape[0], x : x + head.shape[1]] = head
    return frame


def watched(frame, finder, seconds, is_live=False):
    """The faces after so many seconds of a camera that shows this frame, with its noise."""
    pipeline, rng = Pipeline(None, None, finder), np.random.default_rng(1)
    pipeline.reset(is_live=is_live)
    for k in range(round(seconds * FPS) + 1):
        noisy = cv2.add(frame, rng.integers(0, 4, (1, frame.shape[1], 3), np.uint8).repeat(frame.shape[0], 0))
        result = pipeline.step(noisy, k / FPS)
    return result.faces


@pytest.mark.parametrize("shape", [(720, 1280), (1080, 1920), (2160, 3840)], ids=lambda shape: f"{shape[1]} wide")
@pytest.mark.parametrize("widths", [[60] * 8, [60, 60, 66, 72, 80, 90, 105, 120]], ids=["60 pixels", "any size"])
def test_small_faces_are_found_within_two_seconds(shape, widths, portrait, wide_finder):
    frame = group_photograph(portrait, shape, widths)
    truth = FaceFinder().detect(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    assert len(truth) >= 6, "what dlib finds in the whole frame as it is"
    boxes = [face.box for face in watched(frame, wide_finder, 2.0)]
    found = [box for box in truth if any(iou(box, other) > 0.4 for other in boxes)]
    assert len(found) >= 0.8 * len(truth)
    assert len(boxes) <= len(widths), "nobody twice, and no chance pattern"


def test_a_live_stream_does_not_wait_for_a_scan(portrait, wide_finder, monkeypatch):
    """A machine on which a scan never ends: the faces that the reduced frame shows are followed all the same."""
    never = threading.Event()
    monkeypatch.setattr(detection._Scan, "detect", lambda scan, gray: never.wait(60) and [])
    try:
        frame = group_photograph(portrait, (720, 1280), [60, 130])
        assert len(watched(frame, wide_finder, 2.0, is_live=True)) == 1
    finally:
        never.set()


def test_a_scan_beside_the_stream_gives_the_same_in_every_run(portrait, wide_finder):
    frame = group_photograph(portrait, (720, 1280), [60, 90, 140])
    runs = [[(face.face_id, face.box) for face in watched(frame, wide_finder, 2.0)] for _ in range(2)]
    assert runs[0] == runs[1] and len(runs[0]) == 3
