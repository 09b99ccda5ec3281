"""One frame in, action and emotions out; large frames."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_tools import count_frames, live_threads, room, scene, write_video

from helpers import keras_files
from helpers.action import classifier as action_classifier
from helpers.action import pose
from helpers.action.clips import ClipSpec, FrameSampler
from helpers.action.motion import halve_large
from helpers.data.videos import read_frames
from helpers.emotion.faces import landmark_box
from helpers.live import overlay, recording
from helpers.live import pipeline as pipeline_module
from helpers.live.detection import iou
from helpers.live.overlay import draw_overlay
from helpers.live.pipeline import Pipeline
from helpers.live.results import UNSURE, LiveSettings
from helpers.live.sources import open_source
from helpers.synthetic import demo, scenes

FPS = 25  # of the films in conftest.py


@pytest.mark.parametrize("shape, why", [((1, 1), "one pixel"), ((2160, 3840), "4K"), ((7, 500), "a strip")])
def test_any_size_goes_through(shape, why, finder, tmp_path):
    frame = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    result = Pipeline(None, None, finder).step(frame, 0.0)
    picture = overlay.draw_overlay(frame, result, fps=30)
    assert max(picture.shape[:2]) >= overlay.SMALLEST_IMAGE, why
    with recording.VideoWriter(tmp_path / "any.mp4") as writer:
        writer.write(picture)
    assert count_frames(tmp_path / "any.mp4") == 1, why


def test_a_change_of_size_starts_afresh(portrait, finder):
    pipeline = Pipeline(None, None, finder)
    first = pipeline.step(scene(portrait, (20, 60)), 0.0)
    other = pipeline.step(scene(portrait, (20, 60))[:, :400], 0.04)
    assert len(first.faces) == len(other.faces) == 1
    assert (first.frame_index, other.frame_index) == (0, 1)


@pytest.mark.parametrize("time_s, why", [(60.0, "a gap"), (0.0, "time that starts again")])
def test_a_face_number_is_not_used_again_after_a_cut(time_s, why, portrait, finder):
    pipeline = Pipeline(None, None, finder)
    frame = scene(portrait, (20, 60))
    first = [pipeline.step(frame, at).faces[0].face_id for at in (0.0, 0.04)]
    after = [pipeline.step(frame, time_s + at).faces[0].face_id for at in (0.0, 0.04)]
    assert (first, after) == ([1, 1], [2, 2]), why
    pipeline.reset()
    assert pipeline.step(frame, 0.0).faces[0].face_id == 1, "another video"


def test_a_photograph_has_an_answer_of_its_own(models, portrait):
    """Its small faces are found at once; nothing is remembered from the last one."""
    pipeline = Pipeline.load(*models)
    image = cv2.resize(scene(portrait, (20, 60), (380, 60)), (1920, 1080))
    image[:200, 900:1100] = cv2.resize(portrait, (200, 200))
    for name in ("one.jpg", "two.jpg"):
        result = pipeline.photograph(image, name, waited_ms=1e6)
        assert (result.photograph, result.time_s, result.action) == (name, None, UNSURE)
        assert len(result.faces) == 3 and {face.face_id for face in result.faces} == {None}
        assert all(face.emotion in pipeline.emotion.labels for face in result.faces)
    assert result.frame_index == 1 and result.latency_ms > 1e6  # what was handed in as waited is in it
    assert pipeline.photograph(image[:, :300].copy(), "none.jpg").faces == ()


def streamed_and_whole(folder: Path, video: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pipeline's answers frame by frame, and the joined network's for these windows; both in float32."""

    action = action_classifier.ActionClassifier.load(folder / "action_model.h5")
    pipeline = Pipeline(action, None, None, settings=LiveSettings(smoothing_s=0))
    results = [pipeline.step(frame, time_s) for frame, time_s in read_frames(video)]
    streamed = [result.action_probabilities for result in results if "lstm" in result.stage_ms]
    sampler = action.sampler()
    steps = [step for frame, time_s in read_frames(video) if (step := sampler.push(frame, time_s)) is not None]
    network, whole = keras_files.load_keras(folder / "action_model.h5"), []
    for end in range(action.shortest, len(steps) + 1):
        seen = steps[max(0, end - action.memory) : end]
        padded = [*seen, *[seen[-1]] * (action.spec.length - len(seen))]
        whole.append(network.predict(action.network_input(padded), verbose=0)[0, : len(action.labels)])
    return np.array(streamed), np.array(whole)


def test_streaming_equals_the_whole_network(models, tmp_path):
    """One encoding a frame and the LSTM over the ring: the same function as TimeDistributed."""

    moving = write_video(tmp_path / "moving.mp4", scenes.render_action("jumping_jack", 3, 1.5))
    streamed, whole = streamed_and_whole(models[0], moving)
    assert len(streamed) == len(whole) >= 4
    assert np.abs(streamed - whole).max() < 1e-4
    assert np.ptp(whole, axis=0).max() > 1e-2, "windows differ, so equality means something"


def test_streaming_equals_the_whole_network_of_the_committed_model(tmp_path):

    if not action_classifier.DEFAULT_ACTION.is_dir():
        pytest.skip("no committed action model yet: make retrain")
    clip = write_video(tmp_path / "clip.mp4", demo.render_demo(seconds=3), demo.DEMO_FPS)
    streamed, whole = streamed_and_whole(action_classifier.DEFAULT_ACTION, clip)
    assert len(streamed) == len(whole) >= 4
    assert np.abs(streamed - whole).max() < 1e-3


@pytest.mark.skipif(not pose.available(), reason="python -m helpers.action.pose --fetch")
def test_the_demo_clip_is_read_rightly():
    """Every section by its last second, when the one before is out of sight; expressions where a face is near."""
    pipeline, shown = Pipeline.load(), []
    for number, frame in enumerate(demo.render_demo()):
        result = pipeline.step(frame, number / demo.DEMO_FPS)
        shown.append((result.time_s, result.action, result.faces[0].emotion if result.faces else None))
    for (start, end, action), row in zip(demo.demo_sections(), demo.DEMO_SCRIPT, strict=True):
        late = [(label, emotion) for time_s, label, emotion in shown if max(start, end - 1) <= time_s < end]
        labels, emotions = zip(*late, strict=True)
        if action != "idle":
            assert Counter(labels).most_common(1)[0][0] == action
        if end <= 8:
            assert Counter(emotions).most_common(1)[0][0] == row[3]


@pytest.mark.skipif(not pose.available(), reason="python -m helpers.action.pose --fetch")
def test_the_skeleton_is_given_when_it_is_asked_for():
    frames = scenes.render_action("point", 3, 0.3)
    for asked in (False, True):
        pipeline = Pipeline.load(settings=LiveSettings(skeleton=asked))
        results = [pipeline.step(frame, k / 25) for k, frame in enumerate(frames)]
        assert (results[-1].pose is not None) == asked
    plain, drawn = draw_overlay(frames[-1], replace(results[-1], pose=None)), draw_overlay(frames[-1], results[-1])
    assert not np.array_equal(plain, drawn)


def test_action_is_unsure_until_the_window_is_full_and_after_a_gap(models, face_clip):
    pipeline = Pipeline.load(*models)
    frames = list(read_frames(face_clip))
    results = [pipeline.step(frame, time_s) for frame, time_s in frames]
    known = [result.time_s for result in results if result.action != UNSURE]
    assert known[0] == pytest.approx(3 * pipeline.action.spec.step_s, abs=1.5 / FPS)
    assert results[0].action_confidence == 0 and results[-1].action in pipeline.action.labels
    assert results[-1].faces[0].emotion in pipeline.emotion.labels
    assert pipeline.step(frames[0][0], 9.0).action == UNSURE, "a gap longer than the window"
    assert pipeline.step(frames[0][0], 0.0).action == UNSURE, "time that starts again"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now_s, self.read = 100.0, threading.Event()

    def __call__(self) -> float:
        self.read.set()
        return self.now_s


def test_one_thread_serves_all_time_steps_and_is_given_back(models, face_clip):
    pipeline, threads = Pipeline.load(*models), set()
    for _ in range(2):
        with open_source(face_clip) as video:
            steps = [pipeline.step(*item) for item in video]
            threads |= {thread.ident for thread in threading.enumerate() if thread.name.startswith("live-action")}
        assert sum("encode" in step.stage_ms for step in steps) > 3
    assert len(threads) == 1
    pipeline.close()
    assert live_threads() == []
    assert pipeline.step(np.zeros((360, 640, 3), np.uint8), 9.0).frame_index > 0, "and goes on when it is asked again"
    pipeline.close()


def test_latency_counts_all_waiting():
    """Before the call, and for the models that another video uses."""
    clock, results = Clock(), []
    pipeline = Pipeline(None, None, None, clock=clock)
    frame = np.zeros((48, 64, 3), np.uint8)
    with pipeline_module._MODELS_LOCK:
        caller = threading.Thread(target=lambda: results.append(pipeline.step(frame, 0.0, waited_ms=1000.0)))
        caller.start()
        assert clock.read.wait(10), "the frame has arrived and waits for the models"
        clock.now_s += 0.2
    caller.join()
    assert results[0].latency_ms == pytest.approx(1200)


def test_unlikely_action_is_not_shown(models, face_clip):
    pipeline = Pipeline.load(*models, LiveSettings(threshold=1.0, hysteresis=0))
    results = [pipeline.step(frame, time_s) for frame, time_s in read_frames(face_clip)]
    assert all(result.action == UNSURE for result in results)
    assert 0 < results[-1].action_confidence < 1


def test_two_runs_give_the_same_result(wide_finder):
    def run():
        pipeline = Pipeline(None, None, wide_finder)
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


def test_faces_of_a_large_frame_are_given_in_its_own_pixels(head, wide_finder):
    frame = room((head, 220, 100))
    large = cv2.resize(frame, (2560, 1920), interpolation=cv2.INTER_CUBIC)
    small, big = (Pipeline(None, None, wide_finder).step(f, 0.0).faces[0] for f in (frame, large))
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
