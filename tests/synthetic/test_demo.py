"""The demo clip: its script, and a face that dlib finds."""

from __future__ import annotations

import cv2
import dlib
import numpy as np

from helpers.data.videos import read_frames
from helpers.synthetic import demo
from helpers.synthetic.samples import demo_clip
from helpers.synthetic.scenes import ACTIONS


def test_demo_sections_cover_the_clip():
    sections = demo.demo_sections()
    assert sections[0][0] == 0
    assert all(a[1] == b[0] for a, b in zip(sections, sections[1:], strict=False))
    assert {action for *_, action in sections} <= {*ACTIONS, "idle"}


def test_the_demo_clip_has_a_face_where_it_is_near():
    detector, found = dlib.get_frontal_face_detector(), []
    for number, (frame, time_s) in enumerate(read_frames(demo_clip())):
        assert frame.shape == (480, 640, 3) and time_s == number / demo.DEMO_FPS
        if number % 10 == 0 and time_s < 6:
            boxes = detector(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 0)
            found.append(any(box.width() >= 100 for box in boxes))
    assert number + 1 == demo.demo_sections()[-1][1] * demo.DEMO_FPS
    assert len(found) == 15 and np.mean(found) > 0.9
