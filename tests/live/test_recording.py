"""Annotated video and timeline as files."""

from __future__ import annotations

import numpy as np
import pytest
from live_tools import count_frames

from helpers import errors
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
