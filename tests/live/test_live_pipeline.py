"""One frame in, action and emotions out."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from live_tools import count_frames, idle_pipeline, scene, write_video

from helpers import runtime
from helpers.action import classifier as action_classifier
from helpers.action.clips import video_steps
from helpers.data.videos import read_frames
from helpers.live import overlay, recording
from helpers.live import pipeline as pipeline_module
from helpers.live import results as results_module
from helpers.synthetic import demo, scenes

FPS = 25  # of the films in conftest.py


@pytest.mark.parametrize("shape, why", [((1, 1), "one pixel"), ((2160, 3840), "4K"), ((7, 500), "a strip")])
def test_any_size_goes_through(shape, why, finder, tmp_path):
    frame = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    result = pipeline_module.Pipeline(None, None, finder).step(frame, 0.0)
    picture = overlay.draw_overlay(frame, result, fps=30)
    assert max(picture.shape[:2]) >= overlay.SMALLEST_PICTURE, why
    with recording.VideoWriter(tmp_path / "any.mp4") as writer:
        writer.write(picture)
    assert count_frames(tmp_path / "any.mp4") == 1, why


def test_a_change_of_size_starts_afresh(portrait, finder):
    pipeline = pipeline_module.Pipeline(None, None, finder)
    first = pipeline.step(scene(portrait, (20, 60)), 0.0)
    other = pipeline.step(scene(portrait, (20, 60))[:, :400], 0.04)
    assert len(first.faces) == len(other.faces) == 1
    assert (first.frame_index, other.frame_index) == (0, 1)


def streamed_and_whole(folder: Path, video: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pipeline's answers frame by frame, and the joined Keras network's for these windows."""

    action = action_classifier.ActionClassifier.load(folder)
    pipeline = pipeline_module.Pipeline(action, None, None, results_module.LiveSettings(smoothing_s=0))
    results = [pipeline.step(frame, time_s) for frame, time_s in read_frames(video)]
    streamed = [result.action_probabilities for result in results if "lstm" in result.stage_ms]
    steps, length = video_steps(video, action.spec), action.spec.length
    windows = np.stack([steps[end - length : end] for end in range(length, len(steps) + 1)])
    whole = runtime.load_keras(folder / "action_model.keras").predict(windows, verbose=0)
    return np.array(streamed), whole


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
    clip = demo.write_demo_clip(tmp_path / "clip.mp4", seconds=3)
    streamed, whole = streamed_and_whole(action_classifier.DEFAULT_ACTION, clip)
    assert len(streamed) == len(whole) >= 4
    assert np.abs(streamed - whole).max() < 1e-3


def test_action_is_unsure_until_the_window_is_full_and_after_a_gap(models, face_clip):
    pipeline = pipeline_module.Pipeline.load(*models)
    frames = list(read_frames(face_clip))
    results = [pipeline.step(frame, time_s) for frame, time_s in frames]
    known = [result.time_s for result in results if result.action != results_module.UNSURE]
    assert known[0] == pytest.approx(3 * pipeline.action.spec.step_s, abs=1.5 / FPS)
    assert results[0].action_confidence == 0 and results[-1].action in pipeline.action.labels
    assert results[-1].faces[0].emotion in pipeline.emotion.labels
    assert pipeline.step(frames[0][0], 9.0).action == results_module.UNSURE, "a gap longer than the window"
    assert pipeline.step(frames[0][0], 0.0).action == results_module.UNSURE, "time that starts again"


def test_latency_counts_all_waiting():
    """Before the call, and for the models that another video uses."""
    with pipeline_module._MODELS_LOCK:
        release = threading.Timer(0.2, pipeline_module._MODELS_LOCK.release)
        release.start()
        result = idle_pipeline().step(np.zeros((48, 64, 3), np.uint8), 0.0, waited_ms=1000.0)
        pipeline_module._MODELS_LOCK.acquire()
    assert result.latency_ms > 1195


def test_unlikely_action_is_not_shown(models, face_clip):
    pipeline = pipeline_module.Pipeline.load(*models, results_module.LiveSettings(threshold=1.0, hysteresis=0))
    results = [pipeline.step(frame, time_s) for frame, time_s in read_frames(face_clip)]
    assert all(result.action == results_module.UNSURE for result in results)
    assert 0 < results[-1].action_confidence < 1
