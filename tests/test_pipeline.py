"""Faces in moving pictures: real photographs, moved by hand, so that the truth is known; large frames."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice

import cv2
import matplotlib.cbook
import numpy as np
import pytest

from helpers.action.clips import ClipSpec, FrameSampler
from helpers.action.motion import halve_large
from helpers.emotion.faces import FaceFinder, landmark_box
from helpers.live.pipeline import Pipeline
from helpers.live.results import LiveSettings
from helpers.live.sources import open_source
from helpers.live.tracking import FaceTrack, FaceTracker, has_face_proportions, iou

FPS = 25


@pytest.fixture(scope="module")
def finder():
    return FaceFinder(detect_width=640)


@pytest.fixture(scope="module")
def portrait():
    """A real face (NASA, public domain, shipped by matplotlib), about 90 pixels wide, uint8 BGR."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(image[20:320, 100:400], (200, 200), interpolation=cv2.INTER_AREA)


def put(frame, portrait, x, y):
    """The head, without its background, on the frame; (x, y) is the corner of the portrait."""
    mask = cv2.ellipse(np.zeros((200, 200), np.float32), (100, 100), (70, 95), 0, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 3)[..., None]
    part = frame[y : y + 200, x : x + 200]
    part[:] = (mask * portrait + (1 - mask) * part).astype(np.uint8)


def room(*heads):
    """A 640x480 picture with (portrait, x, y), later ones in front."""
    frame = np.full((480, 640, 3), 90, np.uint8)
    for portrait, x, y in heads:
        put(frame, portrait, x, y)
    return frame


def face_at(result, x, y):
    """The number of the face in the portrait at (x, y), None when there is none."""
    for face in result.faces:
        left, top, width, height = face.box
        if abs(left + width / 2 - x - 100) < 40 and abs(top + height / 2 - y - 100) < 50:
            return face.face_id
    return None


# --- faces


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("seconds, lower", [(3, 0), (3, 60), (1.6, 60)])
def test_when_two_faces_cross_the_one_in_front_keeps_its_number(front, seconds, lower, portrait, finder):
    """The hidden one keeps its own, or leaves and gets a new one when it comes out."""
    pipeline, frames = Pipeline(None, None, finder), round(seconds * FPS)
    numbers = []
    for k in range(frames + round(1.5 * FPS)):
        way = int(400 * min(k / frames, 1))
        heads = [(portrait, 20 + way, 100 + lower), (cv2.flip(portrait, 1), 420 - way, 100)]
        result = pipeline.step(room(heads[1 - front], heads[front]), k / FPS)
        numbers.append([face_at(result, x, y) for _, x, y in heads])
    assert set(numbers[0]) == {1, 2} and len(result.faces) == 2
    assert numbers[-1][front] == numbers[0][front]
    assert numbers[-1][1 - front] in (numbers[0][1 - front], 3)
    assert len(result.faces) == 2, "nobody twice"


def test_every_face_has_its_own_history_and_takes_it_along(portrait, finder):
    """A face that comes back is judged by what it looks like now, not by what it looked like."""
    from helpers.emotion.classifier import EmotionClassifier

    emotion = EmotionClassifier.load()
    pipeline = Pipeline(None, emotion, finder, LiveSettings(smoothing_s=5.0))
    dark = cv2.convertScaleAbs(cv2.GaussianBlur(portrait, (0, 0), 4), alpha=0.6)
    for k in range(2 * FPS):
        old = pipeline.step(room((portrait, 20, 100), (dark, 400, 100)), k / FPS).faces
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


def mistaken(frames, finder):
    """(frame number, box): where the detector takes the body for a face."""
    return next((k, finder.detect(gray)[0]) for k, gray in enumerate(frames) if finder.detect(gray))


def test_what_only_one_look_takes_for_a_face_is_none(demo_gray, finder):
    number, box = mistaken(demo_gray, finder)
    tracker = FaceTracker(finder)
    for k, gray in enumerate(demo_gray[number:]):  # the first look is at the mistaken frame
        assert tracker.update(gray, k / FPS, LiveSettings(), no_stage) == []


def test_a_track_that_drifts_off_is_dropped_however_patient_we_are(demo_gray, finder):
    number, box = mistaken(demo_gray, finder)
    tracker = FaceTracker(finder)
    tracker.update(demo_gray[0] * 0, 0.0, LiveSettings(), no_stage)
    tracker.tracks = [FaceTrack(1, finder.landmarks(demo_gray[number], box), 0.0)]
    patient, widths = LiveSettings(patience_s=10), []
    for k, gray in enumerate(demo_gray[number + 1 :], 1):
        widths += [t.box[2] for t in tracker.update(gray, k / FPS, patient, no_stage)]
    assert len(widths) < 0.8 * FPS and min(widths, default=box[2]) > box[2] / 2


def test_a_face_that_is_covered_leaves_within_the_patience(portrait, finder):
    pipeline = Pipeline(None, None, finder, LiveSettings(patience_s=0.6))
    for k in range(FPS):
        assert len(pipeline.step(room((portrait, 220, 100)), k / FPS).faces) == 1
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
def test_built_like_a_face(change, kept, why, portrait, finder):
    found = finder.find(room((portrait, 220, 100)))[0].landmarks
    assert has_face_proportions(change(found - found.mean(axis=0)).astype(np.float32)) == kept, why


def turn(degrees):
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_a_still_face_stays_still_whatever_stage_looks_at_it(portrait, finder):
    pipeline, noise = Pipeline(None, None, finder), np.random.default_rng(0)
    centres, stages = [], set()
    for k in range(3 * FPS):
        frame = room((portrait, 220, 100)) + noise.normal(0, 3, (480, 640, 3))
        result = pipeline.step(np.clip(frame, 0, 255).astype(np.uint8), k / FPS)
        centres.append(result.faces[0].landmarks.mean(axis=0))
        stages |= set(result.stage_ms)
    assert {"detect", "look"} <= stages
    assert np.abs(np.diff(centres[5:], axis=0)).max() < 1.0, "pixels from frame to frame"


def test_new_faces_are_found_in_time(portrait, finder):
    """A large one at the next quick look when nobody is in view, any other at the next whole one."""
    large = cv2.resize(portrait, (440, 440))
    pipeline, settings, seen = Pipeline(None, None, finder), LiveSettings(), {}
    for k in range(5 * FPS):
        frame = room()
        if 0.5 <= k / FPS < 1.6:
            frame[20:460, 100:540] = large
        elif k / FPS >= 2.1:
            put(frame, portrait, 20, 100)
        if k / FPS >= 3.1:
            put(frame, portrait, 400, 100)
        for face in pipeline.step(frame, k / FPS).faces:
            seen.setdefault(face.face_id, k / FPS)
    assert len(seen) == 3
    assert seen[1] - 0.5 <= settings.look_every_s + 1 / FPS
    assert seen[2] - 2.1 <= settings.detect_every_s + 1 / FPS
    assert seen[3] - 3.1 <= settings.detect_every_s + 1 / FPS


def test_two_runs_give_the_same_result(finder):
    def run():
        pipeline = Pipeline(None, None, finder)
        with open_source("demo") as film:
            return [[(f.face_id, f.box) for f in pipeline.step(*x).faces] for x in islice(film, 60)]

    first = run()
    assert any(first) and first == run()


# --- large frames


@pytest.mark.parametrize(
    "shape, halved, factor, why",
    [
        ((480, 640), (480, 640), 1, "a webcam, and all that the models were trained on: untouched"),
        ((720, 1280), (720, 1280), 1, "too low"),
        ((1080, 1920), (540, 960), 2, "full HD"),
        ((2160, 3840), (540, 960), 4, "4K"),
        ((1921, 1281), (960, 640), 2, "odd sides lose a pixel"),
        ((5000, 100), (5000, 100), 1, "a strip"),
        ((1, 1), (1, 1), 1, "one pixel"),
    ],
)
def test_large_frames_are_halved(shape, halved, factor, why):
    frame = np.full((*shape, 3), 77, np.uint8)
    small, by = halve_large(frame)
    assert small.shape == (*halved, 3) and by == factor and (small == 77).all(), why
    assert factor > 1 or small is frame, why


def test_faces_of_a_large_frame_are_given_in_its_own_pixels(portrait, finder):
    frame = room((portrait, 220, 100))
    large = cv2.resize(frame, (2560, 1920), interpolation=cv2.INTER_CUBIC)
    small, big = (Pipeline(None, None, finder).step(f, 0.0).faces[0] for f in (frame, large))
    assert iou(tuple(4 * side for side in small.box), big.box) > 0.8
    assert np.abs((small.landmarks + 0.5) * 4 - 0.5 - big.landmarks).mean() < 8
    own = landmark_box(big.landmarks)
    assert iou(own, big.box) > 0.9, "box and landmarks belong together"


def test_a_large_film_gives_the_same_steps_whole_or_halved():
    """Live the frame is halved before the stepper, in training inside it."""
    spec, noise = ClipSpec(length=4, window_s=0.4, size=64), np.random.default_rng(0)
    whole, halved = FrameSampler(spec), FrameSampler(spec)
    for k in range(6):
        frame = cv2.resize(noise.integers(0, 255, (27, 48, 3), np.uint8), (1920, 1080))
        a, b = whole.push(frame, k / 10), halved.push(halve_large(frame)[0], k / 10)
        assert (a == b).all()
