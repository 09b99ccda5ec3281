"""The demo clip: its script, and a face that dlib finds."""

from __future__ import annotations

import cv2
import dlib
import numpy as np

from helpers.data.videos import write_video
from helpers.synthetic import demo
from helpers.synthetic.scenes import ACTIONS


def test_demo_sections_cover_the_clip():
    sections = demo.demo_sections()
    assert sections[0][0] == 0
    assert all(a[1] == b[0] for a, b in zip(sections, sections[1:], strict=False))
    assert {action for *_, action in sections} <= {*ACTIONS, "idle"}


def test_demo_clip_decodes_with_a_face_where_it_is_near(tmp_path):
    path = write_video(tmp_path / "demo.mp4", demo.render_demo(seconds=6.0), demo.DEMO_FPS)
    video, detector = cv2.VideoCapture(str(path)), dlib.get_frontal_face_detector()
    found, count = [], 0
    while (read := video.read())[0]:
        if count % 10 == 0:
            boxes = detector(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY), 0)
            found.append(any(box.width() >= 100 for box in boxes))
        count += 1
    video.release()
    assert count == 150
    assert np.mean(found) > 0.9
