"""Sources: files, folders, network cameras, the demo clip. How they fail is in test_faults.py."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from live_tools import count_frames, idle_pipeline, live_threads, rtsp_camera, wait_for

from helpers import errors
from helpers.live import run as live_run
from helpers.live import sources

FPS = 25  # of the films in conftest.py


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
    summary = live_run.run(camera.address + "/gone", idle_pipeline(), output=tmp_path / "out.mp4")
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


def test_demo_clip_is_made_once_and_can_be_played(tmp_path):
    path = sources.demo_clip()
    changed = path.stat().st_mtime_ns
    assert sources.demo_clip() == path and path.stat().st_mtime_ns == changed
    with sources.open_source("demo") as source:
        frame, time_s = next(iter(source))
    assert frame.shape == (480, 640, 3) and time_s == 0.0
