"""Annotated video and timeline as files."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from live_tools import count_frames

from helpers import errors
from helpers.data.paths import REPOSITORY
from helpers.live import recording

FPS = 25  # of the videos in conftest.py


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
        (np.arange(10) / 5, 46, "a slow camera: images are repeated"),
        (np.arange(50) / 50, 25, "a fast one: every second is left out"),
        ([0, 0.04, 600, 600.04], 4, "a pause is not filmed"),
        ([5, 5.04, 0, 0.04], 4, "time that starts again goes on"),
    ],
)
def test_video_runs_at_true_speed(times, frames, why, tmp_path):
    with recording.VideoWriter(tmp_path / "out.mp4", 25) as writer:
        for time_s in times:
            writer.write(np.zeros((48, 64, 3), np.uint8), float(time_s))
    assert count_frames(tmp_path / "out.mp4") == pytest.approx(frames, abs=1), why


def test_images_of_another_size_are_fitted(tmp_path):
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


@pytest.mark.parametrize(
    "rate, written",
    [
        (25, 25),
        (29.97, 29.97),
        (23.976, 23.976),
        (66.667, 66.67),
        (119.973, 119.97),  # a telephone
        (240.12, 240.12),  # its slow motion
        (1000, 1000),
        (0.5, 0.5),
        (float("nan"), 25),
        (0, 25),
    ],
)
def test_a_rate_that_the_container_cannot_hold_is_rounded(rate, written, tmp_path):
    with recording.VideoWriter(tmp_path / "out.mp4", rate) as writer:
        for _ in range(30):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(written, rel=1e-4)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 30
    assert count_frames(tmp_path / "out.mp4") == 30


def test_a_recording_is_an_mp4_to_every_player(tmp_path):
    with recording.VideoWriter(tmp_path / "out.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    data = (tmp_path / "out.mp4").read_bytes()
    assert data[4:12] == b"ftypiso5" and b"piff" not in data[:100] and data.index(b"moov") < data.index(b"moof")


def test_without_named_pipes(tmp_path, monkeypatch):
    """As on Windows."""
    monkeypatch.delattr(os, "mkfifo")
    with recording.VideoWriter(tmp_path / "out.mp4") as writer:
        for number in range(40):
            writer.write(np.full((48, 64, 3), number, np.uint8))
    assert count_frames(tmp_path / "out.mp4") == 40 and os.listdir(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("name, writer", [("out.mp4", recording.VideoWriter), ("out.csv", recording.TimelineWriter)])
def test_what_was_there_stays_when_nothing_is_recorded(name, writer, tmp_path):
    (tmp_path / name).write_text("yesterday")
    with pytest.raises(RuntimeError), writer(tmp_path / name):
        raise RuntimeError("the camera gives nothing")
    assert (tmp_path / name).read_text() == "yesterday" and os.listdir(tmp_path) == [name]


def test_a_second_recording_into_the_same_file_is_refused(tmp_path):
    with recording.VideoWriter(tmp_path / "out.mp4") as writer:
        for number in range(20):
            writer.write(np.full((48, 64, 3), number, np.uint8))
        with pytest.raises(errors.OutputError, match="another run"):
            recording.VideoWriter(tmp_path / "out.mp4")
    assert count_frames(tmp_path / "out.mp4") == 20


KILLED = """
import os, sys, time
import numpy as np
from helpers.live.recording import VideoWriter
writer = VideoWriter(sys.argv[1], 25)
for number in range(int(sys.argv[2])):  # nothing moves: 256 KB would be minutes
    writer.write(np.full((480, 640, 3), 90, np.uint8))
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("frames", [40, 1000])
def test_a_killed_recording_plays_up_to_its_last_second(frames, tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path / "out.mp4", str(frames)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        process.kill()
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert frames - 25 <= count_frames(tmp_path / "out.mp4") <= frames
    with recording.VideoWriter(tmp_path / "out.mp4") as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert count_frames(tmp_path / "out.mp4") == 1, "and bars nobody from writing it again"
