"""Faces keep their numbers."""

from __future__ import annotations

import pytest
from live_tools import scene

from helpers.live import pipeline as pipeline_module

FPS = 25  # of the films in conftest.py


def test_each_face_keeps_its_number_while_it_moves_and_a_returning_one_gets_a_new_one(portrait, finder):
    pipeline = pipeline_module.Pipeline(None, None, finder)
    seen = []
    for number in range(90):
        places = [(10 + 2 * number, 60)] if number < 30 or number >= 60 else []
        if number < 60:
            places.append((390, 60 + number // 2))
        result = pipeline.step(scene(portrait, *places), number / FPS)
        seen.append({face.face_id for face in result.faces})
    assert seen[29] == {1, 2}, "two faces, two numbers, all along"
    assert all(ids == {1, 2} for ids in seen[:30])
    left = seen[29 + round(1.2 * FPS)]
    assert len(left) == 1 and left < {1, 2}, "the one that left is dropped after the patience, the other stays"
    assert seen[-1] == {3}, "nobody gets a number that was used before"


def test_face_is_followed_between_detections(portrait, finder):
    """The detector runs on a fraction of the frames, the box follows on every one."""
    pipeline = pipeline_module.Pipeline(None, None, finder)
    detections = 0
    for number in range(25):
        x = 20 + 6 * number
        result = pipeline.step(scene(portrait, (x, 60)), number / FPS)
        detections += "detect" in result.stage_ms
        centre = result.faces[0].box[0] + result.faces[0].box[2] / 2
        if number == 0:
            offset = centre - x
        assert centre - x == pytest.approx(offset, abs=10)
    assert detections <= 4
