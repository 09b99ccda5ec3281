"""A source through the pipeline to its end."""

from __future__ import annotations

import csv
import ctypes
import os
import shutil
import subprocess
import sys
import time
from ctypes.util import find_library

import cv2
import pytest
from live_tools import count_frames, idle_pipeline, scene, wait_for

from helpers import errors
from helpers.live import pipeline as pipeline_module
from helpers.live import recording, window
from helpers.live import results as results_module
from helpers.live import run as live_run

FPS = 25  # of the videos in conftest.py


def test_run_writes_video_and_timeline(face_clip, finder, tmp_path):
    summary = live_run.run(
        face_clip,
        pipeline_module.Pipeline(None, None, finder),
        output=tmp_path / "new" / "out.mp4",
        csv_path=tmp_path / "out.csv",
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
    for number in (1, 2):  # frames of one video
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene(portrait, (20, 60), (380, 60)))
    live_run.run(tmp_path, pipeline_module.Pipeline(None, None, finder), csv_path=tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["face_id"] for row in csv.DictReader(file)] == ["1", "2"] * 2


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

    summary = live_run.run(gray_clip, Interrupting(None, None, None), output=tmp_path / "out.mp4")
    assert summary.interrupted and 0 < summary.frames == count_frames(tmp_path / "out.mp4")


def test_summary_line_can_be_read_by_a_machine(gray_clip):
    line = live_run.run(gray_clip, idle_pipeline()).line()
    values = {key: float(value) for key, value in (part.split("=") for part in line.split())}
    assert values["frames"] == 50 and values["fps"] > 0 and values["frames_with_face"] == 0


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
            from helpers.live.pipeline import Pipeline
            from helpers.live.run import run
            from helpers.live.window import has_window
            print(has_window())
            print(run({camera.address + "/endless"!r}, Pipeline(None, None, None), show=True).line())
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
    assert not window.has_window()
