"""The live system on real files, a real (local) network stream and real faces; its faults; its
background session.
"""

from __future__ import annotations

import csv
import http.server
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
import pytest

from helpers import live, sources
from helpers.clips import ClipSpec, read_frames, video_steps
from helpers.datasets import REPOSITORY, DataError
from helpers.faces import FaceFinder, FaceSpec
from helpers.overlay import SMALLEST_PICTURE
from helpers.pipeline import SteadyAnswer

FPS = 25


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


def write_video(path: Path, frames, fps=FPS) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


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


def count_frames(path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def idle_pipeline() -> live.Pipeline:
    """Without models: what is tested round it is the same."""
    return live.Pipeline(None, None, None)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """(action folder, emotion folder): small random networks, saved as the real ones are.

    The action model's backbone is three convolutions: what is tested does not depend on its depth.
    """
    import keras
    from keras import layers

    from helpers import artifacts
    from helpers.models import build_action_head, build_mini_xception, join_action_model

    keras.utils.set_random_seed(0)
    backbone = [layers.Conv2D(filters, 3, 2, activation="relu") for filters in (8, 16, 32)]
    backbone = keras.Sequential([keras.Input((64, 64, 3)), *backbone, layers.GlobalMaxPooling2D()])
    network = join_action_model(backbone, build_action_head(3, 4, features=32, units=16))
    action, emotion = tmp_path_factory.mktemp("action"), tmp_path_factory.mktemp("emotion")
    spec = ClipSpec(length=4, window_s=0.5, size=64)
    artifacts.save_action(action, network, ("run", "sit", "walk"), spec, threshold=0.0)
    network = build_mini_xception(7, widths=(8,))
    artifacts.save_emotion(emotion, network, artifacts.FER_ORDER, FaceSpec())
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
    picture = live.to_bgr(frame)
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
    with pytest.raises(live.SourceError, match="not a gray or colour picture"):
        live.to_bgr(frame)


def test_file_keeps_its_own_time(gray_clip):
    with live.open_source(gray_clip) as source:
        times = [time_s for _, time_s in source]
        assert (source.fps, source.count, source.is_live) == (FPS, 50, False)
    assert times == pytest.approx(np.arange(50) / FPS, abs=1e-3)
    assert source.closed


def test_folder_of_images_in_order_of_names_and_a_broken_one_is_counted(tmp_path):
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((30, 40, 3), 50 * number, np.uint8))
    cv2.imwrite(str(tmp_path / "3.png"), np.full((30, 40), 150 * 257, np.uint16))
    (tmp_path / "4.jpg").write_text("no image")
    summary = live.run(tmp_path, idle_pipeline())
    assert (summary.frames, summary.skipped) == (4, 1)
    with live.open_source(tmp_path) as source:
        assert [int(frame[0, 0, 0]) for frame, _ in source] == [0, 50, 100, 150]


def bad_source(kind: str, folder: Path) -> str:
    if kind == "empty file":
        (folder / "empty.mp4").touch()
        return str(folder / "empty.mp4")
    if kind == "text":
        (folder / "text.avi").write_text("This is no video. " * 100)
        return str(folder / "text.avi")
    return {
        "missing": str(folder / "missing.mp4"),
        "empty folder": str(folder),
        "camera": "97",
        "nothing": " ",
        "address": "http://127.0.0.1:1/none.mjpg",
    }[kind]


@pytest.mark.parametrize(
    "kind, words",
    [
        ("missing", "missing.mp4.*[Cc]heck"),
        ("empty file", "empty.mp4"),
        ("text", "text.avi"),
        ("empty folder", "no images"),
        ("camera", "camera 97.*(try another number|use a video)"),
        ("address", "127.0.0.1.*Check the address"),
        ("nothing", "No source given"),
    ],
)
def test_bad_source_is_said_in_words(kind, words, tmp_path):
    with pytest.raises(DataError, match=f"(?is){words}"):
        live.open_source(bad_source(kind, tmp_path))


class MjpegServer(http.server.BaseHTTPRequestHandler):
    """An IP camera: 20 pictures, then it stalls or hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(20):
            jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 10 * number, np.uint8))[1].tobytes()
            self.wfile.write(
                b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                + jpeg
                + b"\r\n"
            )
            time.sleep(0.02)
        if "stall" in self.path:
            self.server.finished.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def camera_address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), MjpegServer)
    server.daemon_threads, server.finished = True, threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.finished.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_stream_that_hangs_up_ends_the_run_with_what_came_before(camera_address, tmp_path):
    summary = live.run(f"{camera_address}/gone.mjpg", idle_pipeline(), tmp_path / "out.mp4")
    assert summary.frames == 20 and "stopped delivering" in summary.broken
    assert count_frames(tmp_path / "out.mp4") > 0


def test_stream_that_stalls_is_given_up(camera_address, monkeypatch):
    monkeypatch.setattr(sources, "STALL_S", 0.5)
    with live.open_source(f"{camera_address}/stall.mjpg") as source:
        assert source.is_live
        with pytest.raises(live.SourceError, match="stalled"):
            for _ in source:
                pass
    assert source.closed


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
    settings, answer = live.LiveSettings(smoothing_s=0), SteadyAnswer()
    for number, first in enumerate(sequence):
        rest = 1 - first if first in (0.1, 0.49) else (1 - first) / 2
        answer.update(np.array([first, rest, 1 - first - rest]), number * 0.1, 0.5, settings)
    assert answer.index == shown, why


def test_smoothing_goes_by_time_not_by_frames():
    settings = live.LiveSettings(smoothing_s=0.5)
    ends = []
    for frames in (10, 40):
        answer = SteadyAnswer()
        answer.update(np.array([1.0, 0.0]), 0.0, 0.5, settings)
        for time_s in np.linspace(0, 1, frames + 1)[1:]:
            answer.update(np.array([0.0, 1.0]), time_s, 0.5, settings)
        ends.append(answer.probabilities)
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)
    assert ends[0][0] == pytest.approx(np.exp(-2), abs=1e-5)


@pytest.mark.parametrize("values", [{"threshold": 1.5}, {"smoothing_s": -1}, {"patience_s": 1e9}])
def test_settings_are_checked(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        live.LiveSettings(**values)


def test_each_face_keeps_its_number_while_it_moves_and_a_returning_one_gets_a_new_one(
    portrait, finder
):
    pipeline = live.Pipeline(None, None, finder)
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
    assert len(left) == 1 and left < {1, 2}, (
        "the one that left is dropped after the patience, the other stays"
    )
    assert seen[-1] == {3}, "nobody gets a number that was used before"


def test_face_is_followed_between_detections(portrait, finder):
    """The detector runs on a fraction of the frames, the box follows on every one."""
    pipeline = live.Pipeline(None, None, finder)
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


@pytest.mark.parametrize(
    "shape, why", [((1, 1), "one pixel"), ((2160, 3840), "4K"), ((7, 500), "a strip")]
)
def test_any_size_goes_through(shape, why, finder, tmp_path):
    frame = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    result = live.Pipeline(None, None, finder).step(frame, 0.0)
    picture = live.draw_overlay(frame, result, fps=30)
    assert max(picture.shape[:2]) >= SMALLEST_PICTURE, why
    with live.VideoWriter(tmp_path / "any.mp4") as writer:
        writer.write(picture)
    assert count_frames(tmp_path / "any.mp4") == 1, why


def test_a_change_of_size_starts_afresh(portrait, finder):
    pipeline = live.Pipeline(None, None, finder)
    first = pipeline.step(scene(portrait, (20, 60)), 0.0)
    other = pipeline.step(scene(portrait, (20, 60))[:, :400], 0.04)
    assert len(first.faces) == len(other.faces) == 1
    assert (first.frame_index, other.frame_index) == (0, 1)


def streamed_and_whole(folder: Path, video: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pipeline's answers frame by frame, and the joined Keras network's for these windows."""
    from helpers import artifacts

    action = artifacts.ActionClassifier.load(folder)
    pipeline = live.Pipeline(action, None, None, live.LiveSettings(smoothing_s=0))
    results = [pipeline.step(frame, time_s) for frame, time_s in read_frames(video)]
    streamed = [result.action_probabilities for result in results if "lstm" in result.stage_ms]
    steps, length = video_steps(video, action.spec), action.spec.length
    windows = np.stack([steps[end - length : end] for end in range(length, len(steps) + 1)])
    whole = artifacts.load_keras(folder / "action_model.keras").predict(windows, verbose=0)
    return np.array(streamed), whole


def test_streaming_equals_the_whole_network(models, face_clip):
    """One encoding a frame and the LSTM over the ring: the same function as TimeDistributed."""
    streamed, whole = streamed_and_whole(models[0], face_clip)
    assert len(streamed) == len(whole) >= 4
    assert np.abs(streamed - whole).max() < 1e-3
    assert np.ptp(whole, axis=0).max() > 1e-2, "windows differ, so equality means something"


def test_streaming_equals_the_whole_network_of_the_committed_model(tmp_path):
    from helpers import artifacts, samples

    if not artifacts.DEFAULT_ACTION.is_dir():
        pytest.skip("no committed action model yet: make retrain")
    clip = samples.write_demo_clip(tmp_path / "clip.mp4", seconds=3)
    streamed, whole = streamed_and_whole(artifacts.DEFAULT_ACTION, clip)
    assert len(streamed) == len(whole) >= 4
    assert np.abs(streamed - whole).max() < 1e-3


def test_action_is_unsure_until_the_window_is_full_and_after_a_gap(models, face_clip):
    pipeline = live.Pipeline.load(*models)
    frames = list(read_frames(face_clip))
    results = [pipeline.step(frame, time_s) for frame, time_s in frames]
    known = [result.time_s for result in results if result.action != live.UNSURE]
    assert known[0] == pytest.approx(3 * pipeline.action.spec.step_s, abs=1.5 / FPS)
    assert results[0].action_confidence == 0 and results[-1].action in pipeline.action.labels
    assert results[-1].faces[0].emotion in pipeline.emotion.labels
    assert pipeline.step(frames[0][0], 9.0).action == live.UNSURE, "a gap longer than the window"
    assert pipeline.step(frames[0][0], 0.0).action == live.UNSURE, "time that starts again"


def test_unlikely_action_is_not_shown(models, face_clip):
    pipeline = live.Pipeline.load(*models, live.LiveSettings(threshold=1.0, hysteresis=0))
    results = [pipeline.step(frame, time_s) for frame, time_s in read_frames(face_clip)]
    assert all(result.action == live.UNSURE for result in results)
    assert 0 < results[-1].action_confidence < 1


# --- drawing


def result_of(action="walk", faces=()):
    return live.FrameResult(0, 0.0, action, 0.9, np.array([0.9, 0.1]), tuple(faces), 12.0, {})


def test_overlay_leaves_the_frame_alone_and_mirrors_the_picture_only():
    frame = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    before = frame.copy()
    plain, mirrored = (
        live.draw_overlay(frame, result_of(), 30, mirror) for mirror in (False, True)
    )
    assert (frame == before).all()
    assert (mirrored[100:] == plain[100:, ::-1]).all(), "below the bar the picture is turned"
    blank = np.zeros((480, 640, 3), np.uint8)
    assert (
        live.draw_overlay(blank, result_of(), 30, True) == live.draw_overlay(blank, result_of(), 30)
    ).all(), "not text"


def test_mirrored_face_is_drawn_where_the_face_is(portrait, finder):
    frame = scene(portrait, (20, 60))
    result = live.Pipeline(None, None, finder).step(frame, 0.0)
    drawn = (
        np.abs(live.draw_overlay(frame, result, mirror=True).astype(int) - cv2.flip(frame, 1)).sum(
            axis=2
        )[60:]
        > 60
    )
    assert drawn[:, 380:].any() and not drawn[:, :320].any()


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_text_stands_out_on_any_background(shade):
    picture = live.draw_overlay(np.full((480, 640, 3), shade, np.uint8), result_of(), 30)
    bar = cv2.cvtColor(picture[:36], cv2.COLOR_BGR2GRAY).astype(float)
    assert bar.max() - np.median(bar) > 80


# --- recording


def test_video_plays_after_an_exception(tmp_path):
    with pytest.raises(RuntimeError), live.VideoWriter(tmp_path / "out.mp4", FPS) as writer:
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
    with live.VideoWriter(tmp_path / "out.mp4", 25) as writer:
        for time_s in times:
            writer.write(np.zeros((48, 64, 3), np.uint8), float(time_s))
    assert count_frames(tmp_path / "out.mp4") == pytest.approx(frames, abs=1), why


def test_pictures_of_another_size_are_fitted(tmp_path):
    with live.VideoWriter(tmp_path / "out.mp4") as writer:
        for shape in ((121, 161), (40, 300), (500, 60), (121, 161)):
            writer.write(np.full((*shape, 3), 200, np.uint8))
    assert count_frames(tmp_path / "out.mp4") == 4


@pytest.mark.parametrize("writer", [live.VideoWriter, live.TimelineWriter])
def test_path_that_cannot_be_written_is_named(writer, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "out", tmp_path):
        with pytest.raises(live.OutputError, match=str(path)):
            writer(path)


def test_video_name_that_opencv_does_not_know(tmp_path):
    with (
        pytest.raises(live.OutputError, match="out.txt.*mp4"),
        live.VideoWriter(tmp_path / "out.txt") as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert not (tmp_path / "out.txt").exists()


def test_full_disk_ends_the_recording_and_what_there_is_plays(tmp_path):
    with (
        pytest.raises(live.OutputError, match="nearly full"),
        live.VideoWriter(tmp_path / "out.mp4") as writer,
    ):
        for _ in range(20):
            writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.keep_free = 1 << 60
        for _ in range(20):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    assert count_frames(tmp_path / "out.mp4") == 25


# --- run and command line


def test_run_writes_video_and_timeline(face_clip, finder, tmp_path):
    summary = live.run(
        face_clip,
        live.Pipeline(None, None, finder),
        tmp_path / "new" / "out.mp4",
        tmp_path / "out.csv",
    )
    assert summary.frames == 25 and summary.face_share == 1.0
    assert count_frames(tmp_path / "new" / "out.mp4") == 25
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == live.CSV_COLUMNS
    assert [row["frame"] for row in rows] == [str(i) for i in range(25)]
    assert {row["face_id"] for row in rows} == {"1"} and int(rows[0]["w"]) > 50
    assert float(rows[5]["time_s"]) == pytest.approx(5 / FPS, abs=1e-3)
    assert {"decode", "detect", "landmarks", "draw", "write"} <= set(summary.stage_ms)


def test_frame_without_a_face_has_one_row_with_empty_face_columns(gray_clip, finder, tmp_path):
    live.run(
        gray_clip, live.Pipeline(None, None, finder), csv_path=tmp_path / "out.csv", max_frames=3
    )
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(row["action"] == live.UNSURE for row in rows)
    assert all(
        row[name] == "" for row in rows for name in ("face_id", "x", "y", "w", "h", "emotion")
    )


def test_two_faces_have_two_rows(portrait, finder, tmp_path):
    cv2.imwrite(str(tmp_path / "two.png"), scene(portrait, (20, 60), (380, 60)))
    live.run(tmp_path, live.Pipeline(None, None, finder), csv_path=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["face_id"] for row in csv.DictReader(file)] == ["1", "2"]


def test_source_is_not_overwritten(face_clip):
    size = face_clip.stat().st_size
    with pytest.raises(live.OutputError, match="overwritten"):
        live.run(face_clip, idle_pipeline(), output=face_clip)
    assert face_clip.stat().st_size == size


def test_interrupt_finishes_the_files(gray_clip, tmp_path):
    class Interrupting(live.Pipeline):
        def step(self, frame, time_s):
            if time_s > 0.5:
                raise KeyboardInterrupt
            return super().step(frame, time_s)

    summary = live.run(gray_clip, Interrupting(None, None, None), tmp_path / "out.mp4")
    assert summary.interrupted and 0 < summary.frames == count_frames(tmp_path / "out.mp4")


def test_summary_line_can_be_read_by_a_machine(gray_clip):
    line = live.run(gray_clip, idle_pipeline()).line()
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
    code = live.main(["--headless", *(part for option in options.items() for part in option)])
    output = capsys.readouterr()
    assert code == 2 and output.out == "", why
    assert "error:" in output.err and words in output.err and "Traceback" not in output.err, why


def test_command_line_tells_a_stream_that_breaks_off(models, camera_address, capsys):
    code = live.main(
        [
            "--headless",
            "--source",
            f"{camera_address}/gone.mjpg",
            "--action-model",
            str(models[0]),
            "--emotion-model",
            str(models[1]),
        ]
    )
    output = capsys.readouterr()
    assert code == 1 and output.out.startswith("frames=20 ") and "stopped delivering" in output.err


# --- the background session


class Probe:
    """Opens real sources and keeps them, so that a test can see that each was closed."""

    def __init__(self, delay_s=0.0):
        self.sources, self.delay_s = [], delay_s

    def __call__(self, address):
        time.sleep(self.delay_s)
        source = live.open_source(address)
        self.sources.append(source)
        return source


@contextmanager
def session_for(pipeline=None, **probe):
    """A session; afterwards every source must be closed and no thread left."""
    opener = Probe(**probe)
    session = live.LiveSession(pipeline or idle_pipeline(), opener, stall_s=1.0)
    yield session
    assert session.stop()
    assert all(source.closed for source in opener.sources)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")]


def wait_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_session_plays_a_file_at_its_own_rate_and_says_when_it_ends(gray_clip):
    with session_for() as session:
        started = time.monotonic()
        assert session.start(gray_clip)
        wait_for(lambda: session.latest is not None, 1.0)
        wait_for(lambda: not session.running)
        assert 1.8 < time.monotonic() - started < 3.5
        assert session.latest.number == 49, "every frame of a file"
        assert session.state == "stopped" and "gray.mp4 is closed" in session.status


def test_session_as_fast_as_it_goes(gray_clip):
    with session_for() as session:
        session.start(gray_clip, paced=False)
        wait_for(lambda: not session.running, 1.5)
        assert session.latest.number == 49


def test_slow_model_drops_frames_of_a_camera_instead_of_falling_behind(camera_address):
    class Slow(live.Pipeline):
        def step(self, *arguments):
            time.sleep(0.1)
            return super().step(*arguments)

    with session_for(Slow(None, None, None)) as session:
        session.start(f"{camera_address}/gone.mjpg")
        wait_for(lambda: session.state == "failed")
        assert session.latest.number < 10
        assert session.latest.result.latency_ms < 100
        assert "stopped delivering" in session.status


def test_second_start_changes_nothing(gray_clip):
    with session_for() as session:
        assert session.start(gray_clip)
        assert not session.start(gray_clip)


def test_stop_twice_and_start_again(gray_clip):
    with session_for() as session:
        for _ in range(3):
            assert session.start(gray_clip)
            assert session.stop() and session.stop()
            assert session.state == "stopped"


def test_stop_while_the_camera_is_opened_and_start_right_after(gray_clip):
    with session_for(delay_s=0.3) as session:
        session.start(gray_clip)
        assert not session.stop(wait=False), "does not wait"
        assert session.start(gray_clip), (
            "a new start waits in its own thread until the old source is closed"
        )
        wait_for(lambda: session.state == "running")
        assert len(session._opener.sources) == 2 and session._opener.sources[0].closed


def test_stop_before_start_is_harmless():
    with session_for() as session:
        assert session.stop()
        session.pause()
        assert not session.record("out.mp4")
        assert session.state == "ready"


@pytest.mark.parametrize("source, words", [("97", "camera 97"), ("missing.avi", "missing.avi")])
def test_source_that_fails_is_said_in_the_status_and_start_works_again(source, words, gray_clip):
    with session_for() as session:
        session.start(source)
        wait_for(lambda: session.state == "failed")
        assert words in session.status.lower()
        assert session.start(gray_clip)
        wait_for(lambda: session.latest is not None)


@pytest.mark.parametrize("kind", ["file", "camera"])
def test_exception_inside_a_model_is_said_and_gives_the_source_back(
    kind, gray_clip, camera_address
):
    class Broken(live.Pipeline):
        def step(self, frame, time_s, waited_ms=0.0):
            if self._frame_index == 5:
                raise RuntimeError("tensor of the wrong shape")
            return super().step(frame, time_s, waited_ms)

    with session_for(Broken(None, None, None)) as session:
        session.start(gray_clip if kind == "file" else f"{camera_address}/gone.mjpg")
        wait_for(lambda: session.state == "failed")
        assert "RuntimeError" in session.status and "wrong shape" in session.status


def test_stalled_stream_is_said(camera_address, monkeypatch):
    monkeypatch.setattr(sources, "STALL_S", 0.8)
    with session_for() as session:
        session.start(f"{camera_address}/stall.mjpg")
        wait_for(lambda: session.state == "failed" or not session.running, 8.0)
        assert "stalled" in session.status


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


def test_recording_that_fails_does_not_end_the_stream(gray_clip, tmp_path):
    (tmp_path / "file").touch()
    with session_for() as session:
        session.start(gray_clip)
        wait_for(lambda: session.state == "running")
        assert not session.record(tmp_path / "file" / "out.mp4")
        assert "cannot be written" in session.status and session.running
        session.record(tmp_path / "out.mp4")
        session._job.recorder.video.keep_free = 1 << 60
        wait_for(lambda: "nearly full" in session.status)
        assert session.running and not session.recording


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
    with live.open_source("demo") as source:
        frame, time_s = next(iter(source))
    assert frame.shape == (480, 640, 3) and time_s == 0.0
