"""Faces in moving pictures: real photographs, moved by hand, so that the truth is known."""

from __future__ import annotations

from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from live_tools import put, room, scene

from helpers.live.detection import DetectionSchedule
from helpers.live.pipeline import Pipeline
from helpers.live.results import LiveSettings
from helpers.live.sources import open_source
from helpers.live.tracking import FaceTrack, FaceTracker

FPS = 25  # of the films in conftest.py


def face_at(result, x, y):
    """The number of the face of the head at (x, y), None when there is none."""
    for face in result.faces:
        left, top, width, height = face.box
        if abs(left + width / 2 - x - 100) < 40 and abs(top + height / 2 - y - 100) < 50:
            return face.face_id
    return None


def test_each_face_keeps_its_number_while_it_moves_and_a_returning_one_gets_a_new_one(portrait, finder):
    pipeline = Pipeline(None, None, finder)
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
    pipeline = Pipeline(None, None, finder)
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


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("seconds, lower", [(3, 0), (3, 60), (1.6, 60)])
def test_when_two_faces_cross_the_one_in_front_keeps_its_number(front, seconds, lower, head, wide_finder):
    """The hidden one keeps its own, or leaves and gets a new one when it comes out."""
    pipeline, frames = Pipeline(None, None, wide_finder), round(seconds * FPS)
    numbers = []
    for k in range(frames + round(1.5 * FPS)):
        way = int(400 * min(k / frames, 1))
        heads = [(head, 20 + way, 100 + lower), (cv2.flip(head, 1), 420 - way, 100)]
        result = pipeline.step(room(heads[1 - front], heads[front]), k / FPS)
        numbers.append([face_at(result, x, y) for _, x, y in heads])
    assert set(numbers[0]) == {1, 2} and len(result.faces) == 2
    assert numbers[-1][front] == numbers[0][front]
    assert numbers[-1][1 - front] in (numbers[0][1 - front], 3)
    assert len(result.faces) == 2, "nobody twice"


def test_every_face_has_its_own_history_and_takes_it_along(head, wide_finder):
    """A face that comes back is judged by what it looks like now, not by what it looked like."""
    from helpers.emotion.classifier import EmotionClassifier

    emotion = EmotionClassifier.load()
    pipeline = Pipeline(None, emotion, wide_finder, settings=LiveSettings(smoothing_s=5.0))
    dark = cv2.convertScaleAbs(cv2.GaussianBlur(head, (0, 0), 4), alpha=0.6)
    for k in range(2 * FPS):
        old = pipeline.step(room((head, 20, 100), (dark, 400, 100)), k / FPS).faces
    assert len(old) == 2 and np.abs(old[0].probabilities - old[1].probabilities).max() > 0.1
    for k in range(2 * FPS, 4 * FPS):
        left = pipeline.step(room((dark, 400, 100)), k / FPS).faces
    assert len(left) == 1 and left[0].face_id in {face.face_id for face in old}
    for k in range(4 * FPS, 6 * FPS):
        frame = room((dark, 20, 100), (dark, 400, 100))
        new = [f for f in pipeline.step(frame, k / FPS).faces if f.face_id > 2]
        if new:
            break
    crop = emotion.preprocessor.crop(frame, new[0].landmarks)
    now = emotion.predict(emotion.preprocessor.normalise(crop[None]))[0]
    assert new[0].probabilities == pytest.approx(now, abs=1e-5)


@pytest.fixture(scope="module")
def demo_gray():
    """The demo clip from 11.6 to 13.6 s: a body that jumps, its face far too small to be found."""
    with open_source("demo") as film:
        return [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) for f, t in film if 11.6 <= t < 13.6]


@contextmanager
def no_stage(name):
    yield


def tracks_of(frames, wide_finder, *, tracker=None, settings=None):
    """The tracks after each uint8 gray (H, W) frame."""
    tracker, settings = tracker or FaceTracker(wide_finder), settings or LiveSettings()
    detection = DetectionSchedule(wide_finder)
    for k, gray in enumerate(frames):
        known = [track.box for track in tracker.tracks]
        boxes = detection.boxes(gray, known, time_s=k / FPS, settings=settings, stage=no_stage)
        yield tracker.update(gray, boxes, time_s=k / FPS, patience_s=settings.patience_s)


def mistaken(frames, wide_finder):
    """(frame number, box): where the detector takes the body for a face."""
    return next((k, wide_finder.detect(gray)[0]) for k, gray in enumerate(frames) if wide_finder.detect(gray))


def test_what_is_detected_at_one_scale_only_is_no_face(demo_gray, wide_finder):
    number, _ = mistaken(demo_gray, wide_finder)
    assert not any(tracks_of(demo_gray[number:], wide_finder)), "the first frame is the mistaken one"


def test_a_track_that_drifts_off_is_dropped_however_patient_we_are(demo_gray, wide_finder):
    number, box = mistaken(demo_gray, wide_finder)
    tracker, widths = FaceTracker(wide_finder), []
    frames = [demo_gray[0] * 0, *demo_gray[number + 1 :]]
    for tracks in tracks_of(frames, wide_finder, tracker=tracker, settings=LiveSettings(patience_s=10)):
        widths += [track.box[2] for track in tracks]
        if tracks == [] and not widths:  # the first frame is black
            tracker.tracks = [FaceTrack(1, wide_finder.landmarks(demo_gray[number], box), 0.0)]
    assert len(widths) < 0.8 * FPS and min(widths, default=box[2]) > box[2] / 2


def test_a_face_that_is_covered_leaves_within_the_patience(head, wide_finder):
    pipeline = Pipeline(None, None, wide_finder, settings=LiveSettings(patience_s=0.6))
    for k in range(FPS):
        assert len(pipeline.step(room((head, 220, 100)), k / FPS).faces) == 1
    covered = [pipeline.step(room(), k / FPS) for k in range(FPS, 2 * FPS)]
    assert not covered[-1].faces
    assert max((r.time_s for r in covered if r.faces), default=0.0) <= (FPS - 1) / FPS + 0.6


@pytest.mark.parametrize(
    "change, kept, why",
    [
        (lambda points: points, True, "a face"),
        (lambda points: points @ turn(35), True, "a tilted one"),
        (lambda points: points @ turn(80), False, "lying on its side"),
        (lambda points: points @ turn(180), False, "upside down"),
        (lambda points: points * (1, 0.2), False, "squeezed flat"),
        (lambda points: points * (0.2, 1), False, "squeezed to a line"),
        (lambda points: points * 0, False, "a point"),
    ],
)
def test_built_like_a_face(change, kept, why, head, wide_finder):
    found = wide_finder.find(room((head, 220, 100)))[0].landmarks
    centre = found.mean(axis=0)
    track = FaceTrack(1, (change(found - centre) + centre).astype(np.float32), 0.0)
    assert track.stays((480, 640), 0.0, 1.0) == kept, why


def turn(degrees):
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_a_still_face_stays_still_whatever_stage_runs(head, wide_finder):
    pipeline, noise = Pipeline(None, None, wide_finder), np.random.default_rng(0)
    centres, stages = [], set()
    for k in range(3 * FPS):
        frame = room((head, 220, 100)) + noise.normal(0, 3, (480, 640, 3))
        result = pipeline.step(np.clip(frame, 0, 255).astype(np.uint8), k / FPS)
        centres.append(result.faces[0].landmarks.mean(axis=0))
        stages |= set(result.stage_ms)
    assert {"detect", "redetect"} <= stages
    assert np.abs(np.diff(centres[5:], axis=0)).max() < 1.0, "pixels from frame to frame"


def test_new_faces_are_found_in_time(head, wide_finder):
    """A large one at the next redetection when nobody is in view, any other at the next detection."""
    large = cv2.resize(head, (440, 440))
    pipeline, settings, seen = Pipeline(None, None, wide_finder), LiveSettings(), {}
    for k in range(5 * FPS):
        frame = room()
        if 0.5 <= k / FPS < 1.6:
            frame[20:460, 100:540] = large
        elif k / FPS >= 2.1:
            put(frame, head, 20, 100)
        if k / FPS >= 3.1:
            put(frame, head, 400, 100)
        for face in pipeline.step(frame, k / FPS).faces:
            seen.setdefault(face.face_id, k / FPS)
    assert len(seen) == 3
    assert seen[1] - 0.5 <= settings.redetect_every_s + 1 / FPS
    assert seen[2] - 2.1 <= settings.detect_every_s + 1 / FPS
    assert seen[3] - 3.1 <= settings.detect_every_s + 1 / FPS
