"""The live system on real files, real (local) network cameras and real faces; its background session.

How it fails is in test_live_faults.py.
"""

from __future__ import annotations

import csv
import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from ctypes.util import find_library
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
import pytest
from live_tools import (
    count_frames,
    idle_pipeline,
    ip_camera,
    live_threads,
    rtsp_camera,
    session_for,
    wait_for,
    write_video,
)

from helpers import errors, runtime
from helpers.action import classifier as action_classifier
from helpers.action.clips import ClipSpec, video_steps
from helpers.data.paths import REPOSITORY
from helpers.data.videos import read_frames
from helpers.emotion import classifier as emotion_classifier
from helpers.emotion.faces import FaceFinder, FaceSpec
from helpers.live import __main__ as live_main
from helpers.live import overlay, recording, sources
from helpers.live import pipeline as pipeline_module
from helpers.live import results as results_module
from helpers.live import run as live_run
from helpers.live.smoothing import HysteresisSmoother
from helpers.synthetic import demo, scenes

FPS = 25


@pytest.fixture
def camera():
    with ip_camera() as camera:
        yield camera


@pytest.fixture(scope="session")
def finder():
    return FaceFinder(detect_width=480)


@pytest.fixture(scope="session")
def portrait():
    """A real face (NASA, public domain, shipped by matplotlib), about 100 pixels wide, uint8
    BGR.
    """
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(image[20:320, 100:400], (240, 240), interpolation=cv2.INTER_AREA)


def scene(portrait, *places):
    """A 640x360 frame with the portrait at each (x, y)."""
    frame = np.full((360, 640, 3), 90, np.uint8)
    for x, y in places:
        frame[y : y + 240, x : x + 240] = portrait
    return frame


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory, portrait):
    """One second: a face that drifts to the right."""
    frames = [scene(portrait, (20 + 4 * i, 60)) for i in range(FPS)]
    return write_video(tmp_path_factory.mktemp("clips") / "face.mp4", frames)


@pytest.fixture(scope="session")
def gray_clip(tmp_path_factory):
    """Two seconds of changing gray, nobody in view."""
    frames = [np.full((120, 160, 3), 5 * i, np.uint8) for i in range(2 * FPS)]
    return write_video(tmp_path_factory.mktemp("clips") / "gray.mp4", frames)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """(action folder, emotion folder): small random networks, saved as the real ones are.

    The action model's backbone is three convolutions: what is tested does not depend on its depth.
    """
    import keras
    from keras import layers

    from helpers.action.model import build_action_head, join_action_model
    from helpers.emotion.model import build_mini_xception

    keras.utils.set_random_seed(0)
    backbone = [layers.Conv2D(filters, 3, 2, activation="relu") for filters in (8, 16, 32)]
    backbone = keras.Sequential([keras.Input((64, 64, 3)), *backbone, layers.GlobalMaxPooling2D()])
    network = join_action_model(backbone, build_action_head(3, 4, features=32, units=16))
    action, emotion = tmp_path_factory.mktemp("action"), tmp_path_factory.mktemp("emotion")
    spec = ClipSpec(length=4, window_s=0.5, size=64)
    action_classifier.save_action(action, network, ("run", "sit", "walk"), spec, threshold=0.0)
    network = build_mini_xception(7, widths=(8,))
    emotion_classifier.save_emotion(emotion, network, emotion_classifier.FER_ORDER, FaceSpec())
    return action, emotion


# --- sources


@pytest.mark.parametrize(
    "frame, why",
    [
        (np.full((4, 6), 128, np.uint8), "gray camera"),
        (np.full((4, 6, 1), 128, np.uint8), "gray with a channel axis"),
        (np.full((4, 6, 4), 128, np.uint8), "BGRA"),
        (np.full((4, 6), 128 * 257, np.uint16), "16-bit gray, depth cameras"),
        (np.full((4, 6, 3), 128 * 257, np.uint16), "16-bit colour"),
        (np.full((1, 1, 3), 128, np.uint8), "one pixel"),
    ],
)
def test_any_picture_becomes_bgr(frame, why):
    picture = sources.to_bgr(frame)
    assert picture.dtype == np.uint8 and picture.shape == (*frame.shape[:2], 3), why
    assert (picture == 128).all(), why


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 6, 2), np.uint8),
        np.zeros((4, 6, 3), np.float32),
        np.zeros(5, np.uint8),
        np.zeros((0, 6, 3), np.uint8),
    ],
)
def test_no_picture_is_refused(frame):
    with pytest.raises(errors.SourceError, match="not a gray or colour picture"):
        sources.to_bgr(frame)


def test_file_keeps_its_own_time(gray_clip):
    with sources.open_source(gray_clip) as source:
        times = [time_s for _, time_s in source]
        assert (source.fps, source.count, source.is_live) == (FPS, 50, False)
    assert times == pytest.approx(np.arange(50) / FPS, abs=1e-3)
    assert source.closed


def test_folder_of_images_in_order_of_names_and_a_broken_one_is_counted(tmp_path):
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((30, 40, 3), 50 * number, np.uint8))
    cv2.imwrite(str(tmp_path / "3.png"), np.full((30, 40), 150 * 257, np.uint16))
    (tmp_path / "4.jpg").write_text("no image")
    summary = live_run.run(tmp_path, idle_pipeline())
    assert (summary.frames, summary.skipped) == (4, 1)
    with sources.open_source(tmp_path) as source:
        assert [int(frame[0, 0, 0]) for frame, _ in source] == [0, 50, 100, 150]


def test_network_camera_is_worked_off_as_it_comes_and_its_end_is_told(camera, tmp_path):
    summary = live_run.run(camera.address + "/gone", idle_pipeline(), tmp_path / "out.mp4")
    assert 0 < summary.frames <= 20 and "stopped delivering" in summary.broken
    assert count_frames(tmp_path / "out.mp4") > 0


def test_rtsp_camera():
    with rtsp_camera() as address, sources.open_source(address) as source:
        assert source.is_live and source.fps == FPS and "secret" not in source.name
        brightness = []
        with pytest.raises(errors.SourceError, match="stopped delivering"):
            brightness.extend(frame.mean() for frame, _ in source)
    assert brightness == pytest.approx(8 * np.arange(30), abs=3), "every picture once, in order"


def test_only_the_newest_frame_of_a_camera_waits():
    """What came while nobody asked is dropped, but not the last picture before the end."""
    go_on, stop = threading.Event(), threading.Event()

    def frames():
        yield np.zeros((4, 4, 3), np.uint8), 0.0
        yield np.zeros((4, 4, 3), np.uint8), 1.0
        go_on.wait(10)
        for time_s in range(2, 50):
            yield np.zeros((4, 4, 3), np.uint8), float(time_s)
        raise errors.SourceError("unplugged")

    source, seen = sources.Source("camera", frames(), lambda: None, is_live=True), []
    with pytest.raises(errors.SourceError, match="unplugged"), sources.LatestFrames(source, stop) as newest:
        for _, time_s, _ in newest:
            seen.append(time_s)
            go_on.set()
            wait_for(lambda: live_threads() == [])  # the reader is at the end by now
    assert len(seen) <= 2 and seen[-1] == 49.0
    assert stop.is_set()


# --- the answer


@pytest.mark.parametrize(
    "sequence, shown, why",
    [
        ([0.9, 0.45, 0.45], 0, "just below the threshold: stays, no flicker"),
        ([0.9, 0.3], None, "far below the threshold: gone"),
        ([0.45], None, "never reached the threshold"),
        ([0.6, 0.49], 0, "another leads by less than the margin"),
        ([0.9, 0.1], 1, "another is clearly likelier and above the threshold"),
    ],
)
def test_label_has_hysteresis(sequence, shown, why):
    settings, answer = results_module.LiveSettings(smoothing_s=0), HysteresisSmoother()
    for number, first in enumerate(sequence):
        rest = 1 - first if first in (0.1, 0.49) else (1 - first) / 2
        answer.update(np.array([first, rest, 1 - first - rest]), number * 0.1, 0.5, settings)
    assert answer.index == shown, why


def test_smoothing_goes_by_time_not_by_frames():
    settings = results_module.LiveSettings(smoothing_s=0.5)
    ends = []
    for frames in (10, 40):
        answer = HysteresisSmoother()
        answer.update(np.array([1.0, 0.0]), 0.0, 0.5, settings)
        for time_s in np.linspace(0, 1, frames + 1)[1:]:
            answer.update(np.array([0.0, 1.0]), time_s, 0.5, settings)
        ends.append(answer.probabilities)
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)
    assert ends[0][0] == pytest.approx(np.exp(-2), abs=1e-5)


@pytest.mark.parametrize("values", [{"threshold": 1.5}, {"smoothing_s": -1}, {"patience_s": 1e9}])
def test_settings_are_checked(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        results_module.LiveSettings(**values)


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


# --- drawing


def result_of(action="walk", faces=(), confidence=0.9, latency_ms=12.0, time_s=0.0):
    return results_module.FrameResult(0, time_s, action, confidence, np.array([0.9, 0.1]), tuple(faces), latency_ms, {})


def test_overlay_leaves_the_frame_alone_and_mirrors_the_picture_only():
    frame = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    before = frame.copy()
    plain, mirrored = (overlay.draw_overlay(frame, result_of(), 30, mirror) for mirror in (False, True))
    assert (frame == before).all()
    assert (mirrored[100:] == plain[100:, ::-1]).all(), "below the bar the picture is turned"
    blank = np.zeros((480, 640, 3), np.uint8)
    assert (overlay.draw_overlay(blank, result_of(), 30, True) == overlay.draw_overlay(blank, result_of(), 30)).all(), (
        "not text"
    )


def test_mirrored_face_is_drawn_where_the_face_is(portrait, finder):
    frame = scene(portrait, (20, 60))
    result = pipeline_module.Pipeline(None, None, finder).step(frame, 0.0)
    drawn = (
        np.abs(overlay.draw_overlay(frame, result, mirror=True).astype(int) - cv2.flip(frame, 1)).sum(axis=2)[60:] > 60
    )
    assert drawn[:, 380:].any() and not drawn[:, :320].any()


def frame_of(kind: str, height: int, width: int) -> np.ndarray:
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return np.full((height, width, 3), {"black": 0, "gray": 128, "white": 255}[kind], np.uint8)


@pytest.mark.parametrize("shape", [(120, 160), (480, 640), (2160, 3840), (854, 480)])
@pytest.mark.parametrize("kind", ["black", "gray", "white", "noise"])
def test_text_stands_out_on_any_background_at_any_size(kind, shape):
    """WCAG 2.2: large text needs a contrast of 3 to 1, other text of 4.5 to 1."""
    picture = overlay.draw_overlay(frame_of(kind, *shape), result_of(), 30)
    unit = max(0.75, min(picture.shape[:2]) / 480)
    bar = picture[: round(40 * unit)] / 255.0
    linear = np.where(bar <= 0.04045, bar / 12.92, ((bar + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.0722, 0.7152, 0.2126)
    left, right = luminance[:, : bar.shape[1] // 3], luminance[:, -bar.shape[1] // 4 :]
    background = np.quantile(luminance, 0.75 if kind == "noise" else 0.5)
    assert (left.max() + 0.05) / (background + 0.05) > 3, "the action"
    assert (right.max() + 0.05) / (background + 0.05) > 4.5, "frames a second and latency"
    letters = np.flatnonzero((luminance[:, bar.shape[1] // 2 :] > luminance.max() * 0.7).any(axis=1))
    assert 8 <= np.ptp(letters) < len(bar), "high enough to be read, not clipped"


def drawn(result, fps=30.0, shape=(480, 640)):
    return overlay.draw_overlay(np.zeros((*shape, 3), np.uint8), result, fps).any(axis=2)


def test_nothing_moves_when_a_number_changes():
    """Only the digits themselves differ, not where the words are."""
    low, high = result_of(confidence=0.11, latency_ms=8), result_of(confidence=0.88, latency_ms=388)
    changed = drawn(low, 9) ^ drawn(high, 130)
    columns = np.flatnonzero(changed.any(axis=0))
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 25) + 1)
    assert len(runs) == 3, "confidence, frames a second, latency"
    assert all(np.ptp(run) < 60 for run in runs)


# What a reader without one kind of cone sees, as matrices on linear RGB (Machado et al., 2009, severity 1.0).
EYES = {
    "full colour": np.eye(3),
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def seen_as(bgr: tuple, matrix) -> np.ndarray:
    """The colour as such an eye sees it, in CIE L*a*b*."""
    rgb = np.array(bgr[::-1]) / 255
    linear = np.clip(np.array(matrix) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(np.float32(shown)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("eye", EYES)
def test_colours_of_the_emotions_differ_for_colour_blind_readers(eye):
    """A difference of 2.3 is just seen (Mahy et al., 1994)."""
    colours = [seen_as(colour, EYES[eye]) for colour in overlay.EMOTION_COLOURS.values()]
    assert len(colours) == 7
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 6 * 2.3


def test_a_label_stays_inside_the_picture(portrait, finder):
    face = pipeline_module.Pipeline(None, None, finder).step(scene(portrait, (20, 60)), 0.0).faces[0]
    known = {"emotion": "surprise", "confidence": 1.0, "probabilities": np.array([1.0])}
    for x, y in ((-60, 100), (600, 100), (200, -60), (200, 440)):
        moved = face.landmarks - np.array(face.box[:2]) + (x, y)
        result = result_of(faces=[replace(face, box=(x, y, *face.box[2:]), landmarks=moved, **known)])
        gray = np.full((480, 640, 3), 128, np.uint8)
        plates = (overlay.draw_overlay(gray, result)[40:] == round(128 * overlay.SHADE)).all(axis=2)
        assert plates.sum() > 2000 and plates.any(axis=0).sum() > 150, (x, y)


def test_a_name_that_is_too_long_is_written_smaller():
    picture = drawn(result_of(action="wave_" * 20), shape=(240, 240))
    assert picture[:30, 100:].any() and not picture[:30, -4:].any()


def test_numbers_are_held_long_enough_to_be_read():
    """Renewed every 0.3 s of the video; a new label shows its own confidence at once."""
    readout, shown = overlay.Readout(), []
    for number in range(30):
        action = "walk" if number < 20 else "run"
        result = result_of(action, confidence=0.5 + number / 100, latency_ms=10 + number, time_s=number / 30)
        shown.append(readout.steady(result))
    assert [len({r.action_confidence for r in shown[i : i + 9]}) for i in (0, 9)] == [1, 1]
    assert shown[20].action_confidence == pytest.approx(0.7)
    assert len({r.latency_ms for r in shown}) == 4 and shown[-1].latency_ms == pytest.approx(10 + 27 / 2)
    assert readout.fps > 0 and shown[-1].action == "run"


# --- recording


def test_video_plays_after_an_exception(tmp_path):
    with pytest.raises(RuntimeError), recording.VideoWriter(tmp_path / "out.mp4", FPS) as writer:
        for number in range(10):
            writer.write(np.full((120, 160, 3), number, np.uint8), number / FPS)
        raise RuntimeError("model")
    assert count_frames(tmp_path / "out.mp4") == 10


@pytest.mark.parametrize(
    "times, frames, why",
    [
        (np.arange(10) / 25, 10, "the file's own rate: frame by frame"),
        (np.arange(10) / 5, 46, "a slow camera: pictures are repeated"),
        (np.arange(50) / 50, 25, "a fast one: every second is left out"),
        ([0, 0.04, 600, 600.04], 4, "a pause is not filmed"),
        ([5, 5.04, 0, 0.04], 4, "time that starts again goes on"),
    ],
)
def test_film_runs_at_true_speed(times, frames, why, tmp_path):
    with recording.VideoWriter(tmp_path / "out.mp4", 25) as writer:
        for time_s in times:
            writer.write(np.zeros((48, 64, 3), np.uint8), float(time_s))
    assert count_frames(tmp_path / "out.mp4") == pytest.approx(frames, abs=1), why


def test_pictures_of_another_size_are_fitted(tmp_path):
    with recording.VideoWriter(tmp_path / "out.mp4") as writer:
        for shape in ((121, 161), (40, 300), (500, 60), (121, 161)):
            writer.write(np.full((*shape, 3), 200, np.uint8))
    assert count_frames(tmp_path / "out.mp4") == 4


@pytest.mark.parametrize("writer", [recording.VideoWriter, recording.TimelineWriter])
def test_path_that_cannot_be_written_is_named(writer, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "out", tmp_path):
        with pytest.raises(errors.OutputError, match=str(path)):
            writer(path)


def test_video_name_that_opencv_does_not_know(tmp_path):
    with (
        pytest.raises(errors.OutputError, match="out.txt.*mp4"),
        recording.VideoWriter(tmp_path / "out.txt") as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert not (tmp_path / "out.txt").exists()


# --- run and command line


def test_run_writes_video_and_timeline(face_clip, finder, tmp_path):
    summary = live_run.run(
        face_clip,
        pipeline_module.Pipeline(None, None, finder),
        tmp_path / "new" / "out.mp4",
        tmp_path / "out.csv",
    )
    assert summary.frames == 25 and summary.face_share == 1.0
    assert count_frames(tmp_path / "new" / "out.mp4") == 25
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == recording.CSV_COLUMNS
    assert [row["frame"] for row in rows] == [str(i) for i in range(25)]
    assert {row["face_id"] for row in rows} == {"1"} and int(rows[0]["w"]) > 50
    assert float(rows[5]["time_s"]) == pytest.approx(5 / FPS, abs=1e-3)
    assert {"decode", "detect", "landmarks", "draw", "write"} <= set(summary.stage_ms)


def test_frame_without_a_face_has_one_row_with_empty_face_columns(gray_clip, finder, tmp_path):
    live_run.run(gray_clip, pipeline_module.Pipeline(None, None, finder), csv_path=tmp_path / "out.csv", max_frames=3)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(row["action"] == results_module.UNSURE for row in rows)
    assert all(row[name] == "" for row in rows for name in ("face_id", "x", "y", "w", "h", "emotion"))


def test_two_faces_have_two_rows(portrait, finder, tmp_path):
    cv2.imwrite(str(tmp_path / "two.png"), scene(portrait, (20, 60), (380, 60)))
    live_run.run(tmp_path, pipeline_module.Pipeline(None, None, finder), csv_path=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["face_id"] for row in csv.DictReader(file)] == ["1", "2"]


def test_source_is_not_overwritten(face_clip):
    size = face_clip.stat().st_size
    with pytest.raises(errors.OutputError, match="overwritten"):
        live_run.run(face_clip, idle_pipeline(), output=face_clip)
    assert face_clip.stat().st_size == size


def test_interrupt_finishes_the_files(gray_clip, tmp_path):
    class Interrupting(pipeline_module.Pipeline):
        def step(self, frame, time_s, waited_ms):
            if time_s > 0.5:
                raise KeyboardInterrupt
            return super().step(frame, time_s, waited_ms)

    summary = live_run.run(gray_clip, Interrupting(None, None, None), tmp_path / "out.mp4")
    assert summary.interrupted and 0 < summary.frames == count_frames(tmp_path / "out.mp4")


def test_summary_line_can_be_read_by_a_machine(gray_clip):
    line = live_run.run(gray_clip, idle_pipeline()).line()
    values = {key: float(value) for key, value in (part.split("=") for part in line.split())}
    assert values["frames"] == 50 and values["fps"] > 0 and values["frames_with_face"] == 0


def command_line(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "helpers.live", "--headless", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_command_line(models, face_clip, tmp_path):
    done = command_line(
        "--source",
        face_clip,
        "--output",
        tmp_path / "out.mp4",
        "--csv",
        tmp_path / "out.csv",
        "--max-frames",
        20,
        "--action-model",
        models[0],
        "--emotion-model",
        models[1],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("frames=20 ") and "20/20" in done.stderr, "summary; progress bar"
    assert count_frames(tmp_path / "out.mp4") == 20
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").count("\n") == 21


@pytest.mark.parametrize(
    "change, words, why",
    [
        ({"--source": "missing.mp4"}, "missing.mp4", "no such file"),
        ({"--source": "97"}, "amera 97", "no such camera"),
        ({"--action-model": "nowhere"}, "nowhere", "no such model"),
        ({"--output": __file__ + "/out.mp4"}, "out.mp4", "a folder that cannot be"),
    ],
)
def test_command_line_says_what_is_wrong(change, words, why, models, face_clip, capsys):
    options = {
        "--source": str(face_clip),
        "--action-model": str(models[0]),
        "--emotion-model": str(models[1]),
    } | change
    code = live_main.main(["--headless", *(part for option in options.items() for part in option)])
    output = capsys.readouterr()
    assert code == 2 and output.out == "", why
    assert "error:" in output.err and words in output.err and "Traceback" not in output.err, why


def test_command_line_tells_a_stream_that_breaks_off(models, camera, capsys):
    code = live_main.main(
        [
            "--headless",
            "--source",
            camera.address + "/gone",
            "--action-model",
            str(models[0]),
            "--emotion-model",
            str(models[1]),
        ]
    )
    output = capsys.readouterr()
    assert code == 1 and output.out.startswith("frames=") and "stopped delivering" in output.err


def xvfb() -> tuple[subprocess.Popen, str]:
    """A screen in memory and its address."""
    if not (shutil.which("Xvfb") and find_library("Xtst")):
        pytest.skip("a window without a screen needs Xvfb and libXtst (Debian: xvfb libxtst6)")
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write)], pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as file:
        return server, ":" + file.readline().strip()


def press(key: str, screen: str) -> None:
    """Press a key of an X screen while the pointer is over the window, which is in the upper left corner."""
    x, test = ctypes.CDLL(find_library("X11")), ctypes.CDLL(find_library("Xtst"))
    x.XOpenDisplay.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x.XOpenDisplay(screen.encode()))
    test.XTestFakeMotionEvent(display, -1, 40, 40, ctypes.c_ulong(0))
    code = x.XKeysymToKeycode(display, ctypes.c_ulong(ord(key)))
    for down in (1, 0):
        test.XTestFakeKeyEvent(display, code, down, ctypes.c_ulong(0))
    x.XCloseDisplay(display)


def test_window_shows_the_stream_and_q_ends_it(camera):
    server, screen = xvfb()
    try:
        run = f"""if True:
            from helpers.live import pipeline as pipeline_module, run as live_run
            print(live_run.has_window())
            print(live_run.run({camera.address + "/endless"!r}, pipeline_module.Pipeline(None, None, None), show=True).line())
            """
        environment = {**os.environ, "DISPLAY": screen}
        process = subprocess.Popen([sys.executable, "-c", run], env=environment, stdout=subprocess.PIPE, text=True)
        wait_for(lambda: camera.viewers == 1, 30)
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            press("q", screen)  # again, until the window is there
            time.sleep(0.2)
        assert process.poll() == 0, "q ended it"
        assert process.communicate()[0].startswith("True\nframes=")
        wait_for(lambda: camera.viewers == 0)
    finally:
        server.terminate()
        server.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="screens have names on Linux only")
def test_no_screen_is_found_out_without_harm(monkeypatch):
    """Qt ends the process that opens a window on a screen that is not there."""
    monkeypatch.setenv("DISPLAY", ":4567")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not live_run.has_window()


# --- the background session


def test_session_plays_a_file_at_its_own_rate_and_says_when_it_ends(gray_clip):
    with session_for() as session:
        started = time.monotonic()
        assert session.start(gray_clip)
        wait_for(lambda: not session.running)
        assert time.monotonic() - started > 1.8, "two seconds of film"
        assert session.latest.number == 49, "every frame of a file"
        assert session.state == "stopped" and session.status == "The end of gray.mp4. It is closed."


def test_session_as_fast_as_it_goes(tmp_path):
    slow = write_video(tmp_path / "slow.mp4", [np.zeros((120, 160, 3), np.uint8)] * 50, fps=1)
    with session_for() as session:
        session.start(slow, paced=False)
        wait_for(lambda: not session.running)  # 10 s, of a film of 50
        assert session.latest.number == 49


def test_slow_model_drops_frames_of_a_camera_instead_of_falling_behind(camera):
    class Slow(pipeline_module.Pipeline):
        def step(self, *arguments):
            time.sleep(0.1)
            return super().step(*arguments)

    with session_for(Slow(None, None, None), camera) as session:
        session.start(camera.address + "/gone")
        wait_for(lambda: session.state == "failed")
        assert session.latest.number < 10
        assert session.latest.result.time_s > 0.25, "the last picture of the camera, 0.4 s after the first"
        assert "stopped delivering" in session.status


def test_pause_holds_a_file(gray_clip):
    with session_for() as session:
        session.start(gray_clip)
        wait_for(lambda: session.latest is not None)
        session.pause()
        time.sleep(0.15)
        held = session.latest.number
        time.sleep(0.3)
        assert session.latest.number <= held + 1 and session.state == "paused"
        session.pause(False)
        wait_for(lambda: session.latest.number > held + 2)
        assert session.state == "running"


def test_recording_part_of_a_stream(gray_clip, tmp_path):
    with session_for() as session:
        session.start(gray_clip)
        wait_for(lambda: session.state == "running")
        assert session.record(tmp_path / "part.mp4", tmp_path / "part.csv") and session.recording
        wait_for(lambda: session.latest is not None and session.latest.number > 15)
        session.stop_recording()
        assert not session.recording and count_frames(tmp_path / "part.mp4") >= 10
        assert session.running


def test_recording_still_going_at_stop_is_finished(gray_clip, tmp_path):
    with session_for() as session:
        session.start(gray_clip)
        wait_for(lambda: session.state == "running")
        session.record(tmp_path / "part.mp4")
        wait_for(lambda: session.latest is not None and session.latest.number > 10)
        session.stop()
        assert count_frames(tmp_path / "part.mp4") >= 5


def test_two_sessions_may_share_models(gray_clip):
    pipelines = [idle_pipeline(), idle_pipeline()]
    with session_for(pipelines[0]) as one, session_for(pipelines[1]) as two:
        one.start(gray_clip, paced=False)
        two.start(gray_clip, paced=False)
        wait_for(lambda: not one.running and not two.running)
        assert one.latest.number == two.latest.number == 49


def test_demo_clip_is_made_once_and_can_be_played(tmp_path):
    path = sources.demo_clip()
    changed = path.stat().st_mtime_ns
    assert sources.demo_clip() == path and path.stat().st_mtime_ns == changed
    with sources.open_source("demo") as source:
        frame, time_s = next(iter(source))
    assert frame.shape == (480, 640, 3) and time_s == 0.0
