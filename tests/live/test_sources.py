"""Sources: files, folders, network cameras, the demo clip. How they fail is in test_faults.py."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_tools import count_frames, idle_pipeline, live_threads, noise, rtsp_camera, wait_for, write_video

from helpers import errors
from helpers.live import cameras, sources
from helpers.live import run as live_run
from tests.data.builders import BAD_NAME, damage_frame, png_header

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
def test_any_image_becomes_bgr(frame, why):
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
def test_what_is_no_image_is_refused(frame):
    with pytest.raises(errors.SourceError, match="not a gray or colour image"):
        sources.to_bgr(frame)


def test_file_keeps_its_own_time(gray_clip):
    with sources.open_source(gray_clip) as source:
        times = [time_s for _, time_s in source]
        assert (source.fps, source.count, source.is_live) == (FPS, 50, False)
    assert times == pytest.approx(np.arange(50) / FPS, abs=1e-3)
    assert source.closed


# --- times of videos, damage


@pytest.mark.parametrize("fps", [1.0, 23.976, 119.973, 240.12, 1000.0])
def test_a_video_lasts_as_long_as_its_frame_rate_says(fps, tmp_path):
    write_video(tmp_path / "any.avi", [np.full((48, 64, 3), k, np.uint8) for k in range(48)], fps, codec="MJPG")
    with sources.open_source(tmp_path / "any.avi") as source:
        times = [time_s for _, time_s in source]
    assert times == pytest.approx(np.arange(48) / fps, rel=1e-3, abs=1e-3) and source.shortfall == ""


def test_a_damaged_frame_is_counted_and_named_and_the_video_goes_on(tmp_path):
    film = write_video(tmp_path / "hole.avi", noise(40), codec="MJPG")
    with sources.open_source(damage_frame(film, 18)) as source:
        times = [time_s for _, time_s in source]
    assert len(times) == 39 and times[-1] == pytest.approx(39 / FPS)
    assert source.skipped == [("frame 18", "cannot be decoded")] and source.shortfall == ""


# --- folders


def images(folder: Path, names, shape=(30, 40)) -> Path:
    """Images whose first pixel is their place in `names`."""
    for number, name in enumerate(names):
        image = np.full((*shape, 3), 90, np.uint8)
        image[0, 0] = number
        cv2.imwrite(str(folder / name), image)
    return folder


def test_folder_of_numbered_frames_is_a_video_and_what_cannot_be_read_is_named(tmp_path):
    images(tmp_path, [f"{number}.png" for number in range(1, 13)])
    cv2.imwrite(str(tmp_path / "3.png"), np.full((30, 40), 150 * 257, np.uint16))
    (tmp_path / "7.png").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    with sources.open_source(tmp_path) as source:
        shown = [(int(frame[0, 0, 0]), time_s) for frame, time_s in source]
        assert not source.is_photographs and source.fps == FPS
    assert [place for place, _ in shown] == [0, 1, 150, 3, 4, 5, 7, 8, 9, 10, 11], "1, 2, 10, not 1, 10, 2"
    assert [time_s for _, time_s in shown][-1] == pytest.approx(11 / FPS)
    assert [what for what, _ in source.skipped] == ["7.png"]


@pytest.mark.parametrize(
    "names, is_video, why",
    [
        (["f1.png", "f2.png", "f10.png", "f3.png", "f4.png"], False, "half of the numbers are missing"),
        (["f0.png", "f5.png", "f10.png", "f15.png"], True, "every fifth frame"),
        (["f08.jpg", "f09.png", "f10.jpg"], True, "padded, two formats"),
        (["v2_f1.png", "v2_f2.png"], True, "another number that stays"),
        (["anna.png", "ben.png"], False, "no numbers"),
        (["a1.png", "b2.png"], False, "two series"),
        (["IMG_2031.png", "IMG_2040.png", "IMG_2044.png"], False, "a phone's own numbers"),
        (["1.png"], False, "a single image"),
    ],
)
def test_a_folder_is_a_video_or_photographs(names, is_video, why, tmp_path):
    with sources.open_source(images(tmp_path, names)) as source:
        assert source.is_photographs != is_video, why


def test_numbered_images_of_different_sizes_are_photographs(tmp_path):
    images(images(tmp_path, ["1.png", "2.png"]), ["3.png"], shape=(40, 30))
    with sources.open_source(tmp_path) as source:
        assert source.is_photographs
        assert [source.photograph for _ in source] == ["1.png", "2.png", "3.png"]


# --- what must not be opened


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def strip(folder: Path, shape) -> Path:
    writer = cv2.VideoWriter(str(folder / "strip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), FPS, shape[::-1])
    for _ in range(3):
        writer.write(np.zeros((*shape, 3), np.uint8))
    writer.release()
    return folder / "strip.avi"


def named_in_latin_1(folder: Path) -> Path:
    return write_video(folder / "plain.avi", noise(3), codec="MJPG").rename(folder / BAD_NAME)


@pytest.mark.parametrize(
    "make, words, why",
    [
        (fifo, "not a regular file", "a pipe that nobody writes to"),
        (lambda folder: "/dev/zero", "not a regular file", "a device"),
        (named_in_latin_1, "not UTF-8", "OpenCV would end the process"),
        (lambda folder: folder / "a\0b.mp4", "file", "a NUL in the name"),
        (lambda folder: strip(folder, (16, 1600)), "too narrow", "nothing to see"),
        (lambda folder: f"file://{folder}/none.mp4", "no such file", "an address of a file"),
    ],
)
def test_what_cannot_be_a_source_is_refused_at_once(make, words, why, tmp_path):
    with pytest.raises(errors.DataError, match=words) as refused:
        sources.open_source(make(tmp_path))
    str(refused.value).encode()  # any terminal can show it


def test_strange_files_in_a_folder_of_images_are_passed_over(tmp_path):
    images(tmp_path, ["1.png", "2.png"])
    os.mkfifo(tmp_path / "3.png")
    (tmp_path / "4.png").write_bytes(png_header(50_000, 50_000))
    cv2.imwrite(str(tmp_path / "5.png"), np.zeros((2, 8000, 3), np.uint8))
    (tmp_path / BAD_NAME.replace(".avi", ".png")).write_bytes((tmp_path / "1.png").read_bytes())
    with sources.open_source(tmp_path) as source:
        assert len(list(source)) == 2
    assert [what for what, _ in source.skipped] == ["3.png", "4.png", "5.png", "caf\\xe9.png"]


# --- passwords


@pytest.mark.parametrize(
    "address, shown",
    [
        ("rtsp://user:secret@host:554/live", "rtsp://host:554/live"),
        ("rtsp://user:sec@ret@host/live", "rtsp://host/live"),
        ("rtsp://user:sec/ret@host/live", "rtsp://host/live"),
        ("rtsp://user:se?c#ret@host/live", "rtsp://…"),
        ("http://host/video.cgi?user=me&pwd=secret", "http://host/video.cgi"),
        ("user:secret@host/live", "host/live"),
        ("host/video.cgi?user=me&pwd=secret", "host/video.cgi"),
        ("user:s://ecret@host/live", "host/live"),
        ("http://host/x?pwd=sec@ret", "http://…"),
        ("me@home.mp4", "me@home.mp4"),
        (0, "0"),
    ],
)
def test_a_password_is_never_shown(address, shown):
    assert sources.without_password(address) == shown


@pytest.mark.parametrize("secret", ["user:secret@", "user:sec/secret@", "user:secret@ret@"])
@pytest.mark.parametrize("address", ["rtsp://{}127.0.0.1:1/x", "{}127.0.0.1:1/x"])
def test_a_password_is_in_no_message(address, secret):
    with pytest.raises(errors.DataError) as refused:
        sources.open_source(address.format(secret))
    assert "secret" not in str(refused.value) and "127.0.0.1" in str(refused.value)


def test_a_password_in_a_query_is_in_no_message():
    for query in ("user=me&pwd=secret", "pwd=se@secret"):
        with pytest.raises(errors.DataError) as refused:
            sources.open_source(f"http://127.0.0.1:1/x?{query}")
        assert "secret" not in str(refused.value)


# --- cameras


def test_a_network_camera_that_hangs_up_is_opened_again(camera, monkeypatch):
    monkeypatch.setattr(cameras, "RECONNECT_S", 10.0)
    with sources.open_source(camera.address + "/drops") as source:
        times = [time_s for _, (_, time_s) in zip(range(50), source, strict=False)]
    assert len(times) == 50 and times == sorted(times), "three connections of 20 frames"
    assert len(source.skipped) == 2 and all("no frame for" in reason for _, reason in source.skipped)


def test_a_stop_ends_the_waiting_for_a_camera_that_is_gone(camera, monkeypatch):
    monkeypatch.setattr(cameras, "RECONNECT_S", 600.0)
    with sources.open_source(camera.address + "/gone") as source:
        shown = sources.LatestFrames(source, threading.Event())
        with shown:
            next(iter(shown))
            wait_for(lambda: camera.viewers == 0)
        assert live_threads() == []


def test_one_failed_read_of_a_webcam_is_not_its_end(monkeypatch):
    """No driver of a real one fails on demand, so an object that behaves so takes the place of OpenCV's."""

    class Flaky:
        reads = 0

        def isOpened(self):
            return True

        def read(self):
            self.reads += 1
            return (False, None) if self.reads in (1, 5, 6) else (True, np.zeros((48, 64, 3), np.uint8))

        def get(self, _):
            return 30.0

        def set(self, *_):
            return False

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Flaky())
    with sources.open_source(0) as source:
        assert len([frame for _, (frame, _) in zip(range(10), source, strict=False)]) == 10
    assert len(source.skipped) == 1 and source.skipped[0][0].startswith("camera 0 at ")


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
