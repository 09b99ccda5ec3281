"""Videos: times, damage, names and sizes that end a process; a clip is written whole or not at all."""

from __future__ import annotations

import math
import os
import re
import resource
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.data import videos
from helpers.errors import DataError, VideoError
from tests.data.builders import BAD_NAME, damage_frame, with_durations

GRAY = [np.full((48, 64, 3), level, np.uint8) for level in range(40, 240, 5)]


def times_of(path: Path) -> list[float]:
    return [time_s for _, time_s in videos.read_frames(path)]


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_frames_come_in_order_with_their_times(tmp_path, suffix):
    written = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(10)]
    read = list(videos.read_frames(videos.write_video(tmp_path / f"v{suffix}", written, 20)))
    assert [round(float(frame.mean()) / 20) for frame, _ in read] == list(range(10))
    np.testing.assert_allclose([time_s for _, time_s in read], np.arange(10) / 20, atol=1e-6)
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame, _ in read)


def make_bad_video(path: Path, kind: str) -> Path:
    if kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a video\n" * 100)
    elif kind == "header only":
        path.write_bytes(videos.write_video(path, GRAY[:1]).read_bytes()[:200])
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["zero bytes", "text", "header only", "missing", "folder"])
@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_what_is_no_video_is_named(tmp_path, capfd, kind, suffix):
    path = make_bad_video(tmp_path / f"bad{suffix}", kind)
    with pytest.raises(VideoError, match=f"bad{suffix}: .+") as error:
        next(videos.read_frames(path))
    assert isinstance(error.value, DataError), "callers that skip bad files catch DataError"
    if kind != "header only":  # there the .avi decoder prints a line that no setting turns off
        assert capfd.readouterr().err == "", "the decoder's own complaints are not shown"


def test_a_cut_off_video_gives_the_frames_that_are_there(tmp_path):
    path = videos.write_video(tmp_path / "cut.avi", GRAY * 2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 5 < len(list(videos.read_frames(path))) < 80


def patched_avi(path: Path, frames: int | None = None, rate: tuple[int, int] | None = None) -> Path:
    """An .avi of 12 frames at 25 a second whose header says something else."""
    data = bytearray(videos.write_video(path, GRAY[:12]).read_bytes())
    main, strh = data.index(b"avih") + 8, data.index(b"strh") + 8
    if rate is not None:
        struct.pack_into("<II", data, strh + 20, *rate)  # scale, rate
    if frames is not None:
        struct.pack_into("<I", data, main + 16, frames)
        struct.pack_into("<I", data, strh + 32, frames)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("frames", [0, 1, 5, 500, 2**31 - 1])
def test_the_headers_frame_count_is_not_believed(tmp_path, frames):
    path = patched_avi(tmp_path / "count.avi", frames=frames)
    assert len(list(videos.read_frames(path))) == 12


@pytest.mark.parametrize(
    "rate, reason",
    [
        ((1, 100_000), "100,000 frames a second"),
        ((1000, 1), "one frame in 1000 seconds"),
    ],
)
def test_an_impossible_frame_rate_is_replaced(tmp_path, rate, reason):
    path = patched_avi(tmp_path / "rate.avi", rate=rate)
    times = [time_s for _, time_s in videos.read_frames(path)]
    np.testing.assert_allclose(times, np.arange(12) / videos.FALLBACK_FPS, err_msg=reason)


def test_a_reader_that_is_left_early_closes_its_file(tmp_path):
    path = videos.write_video(tmp_path / "v.avi", GRAY[:12])
    reader = videos.read_frames(path)
    next(reader)
    reader.close()
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        assert str(path) not in [str(link.resolve()) for link in descriptors.iterdir()]


@pytest.mark.parametrize(
    "fps, reason",
    [(240.12, "slow motion of a phone"), (960, "super slow motion"), (119.97, "a phone's 120"), (29.97, "NTSC")],
)
def test_the_time_of_any_rate(tmp_path, fps, reason):
    times = times_of(videos.write_video(tmp_path / "v.mp4", GRAY, fps))
    assert times[-1] == pytest.approx((len(GRAY) - 1) / fps, rel=0.01), reason


def test_the_time_of_a_variable_rate(tmp_path):
    """What a browser records: some frames come late. The header's mean rate would be wrong for each of them."""
    path = videos.write_video(tmp_path / "v.mp4", GRAY[:8], fps=25)
    waits = [1, 1, 5, 1, 20, 1, 2, 1]
    times = times_of(with_durations(path, waits))
    np.testing.assert_allclose(times, 0.04 * np.cumsum([0, *waits[:-1]]), atol=0.002)


@pytest.mark.parametrize(
    "positions, times, reason",
    [
        ([0, 0, 0, 0], [0, 0.04, 0.08, 0.12], "the decoder does not know"),
        ([0, math.nan, math.nan, 0.12], [0, 0.04, 0.08, 0.12], "no number"),
        ([5, 5.04, 5.08, 5.12], [0, 0.04, 0.08, 0.12], "its clock began before the first frame"),
        ([0, 0.0401, 0.0799, 0.1203], [0, 0.04, 0.08, 0.12], "milliseconds, rounded: the header's rate is exact"),
        ([0, 0.1, 0.2, 0.3], [0, 0.1, 0.2, 0.3], "the header is wrong"),
        ([0, 0.04, 9e9, 9e9 + 0.04], [0, 0.04, 0.08, 0.12], "one jump by centuries, as two videos in one"),
        ([0, 0.1, 0.05, 0.15], [0, 0.1, 0.14, 0.24], "backwards: the time goes on"),
    ],
)
def test_times_never_run_backwards(positions, times, reason):
    clock = videos._VideoClock(25)
    found = [clock.time_of(number, position) for number, position in enumerate(positions)]
    np.testing.assert_allclose(found, times, atol=1e-3, err_msg=reason)


def test_a_damaged_frame_is_counted_and_the_rest_is_read(tmp_path):
    damaged: list[int] = []
    path = damage_frame(videos.write_video(tmp_path / "hole.avi", GRAY[:12], fps=25), 5)
    frames = list(videos.read_frames(path, damaged))
    assert len(frames) == 11 and damaged == [5]
    np.testing.assert_allclose([time_s for _, time_s in frames], [n / 25 for n in range(12) if n != 5])
    assert abs(frames[5][0].mean() - GRAY[6].mean()) < 3, "the frame after the hole"


def test_a_cut_off_video_is_told_from_a_whole_one(tmp_path):
    path = videos.write_video(tmp_path / "v.avi", GRAY)
    assert videos.shortfall(path, times_of(path)[-1]) == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert re.match(r"ends after 0\.\d of 1\.6 s: it was cut off", videos.shortfall(path, times_of(path)[-1]))


def test_a_long_damage_in_the_middle_is_not_the_end(tmp_path):
    path, damaged = videos.write_video(tmp_path / "hole.avi", GRAY * 3, fps=25), []
    for number in range(15, 105):
        damage_frame(path, number)
    times = [time_s for _, time_s in videos.read_frames(path, damaged)]
    assert damaged == list(range(15, 105)) and times[-1] == pytest.approx((len(GRAY) * 3 - 1) / 25)


@pytest.mark.parametrize("size, why", [((1600, 16), "narrow"), ((2, 8000), "narrow"), ((6, 400), "narrow")])
def test_frames_that_show_nothing_are_refused(tmp_path, size, why):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, size[::-1])
    writer.write(np.zeros((*size, 3), np.uint8))
    writer.release()
    with pytest.raises(VideoError, match=rf"v\.avi.*{size[1]} x {size[0]} pixels.*{why}"):
        next(videos.read_frames(tmp_path / "v.avi"))


def test_names_and_kinds_that_end_or_block_a_process(tmp_path):
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / BAD_NAME).write_bytes(videos.write_video(tmp_path / "v.avi", GRAY[:3]).read_bytes())
    (tmp_path / "empty.avi").touch()
    for name, why in (
        (BAD_NAME, "not UTF-8"),
        ("pipe.avi", "regular"),
        ("empty.avi", "empty"),
        ("gone.avi", "no such"),
    ):
        with pytest.raises(VideoError, match=why) as caught:
            next(videos.read_frames(tmp_path / name))
        assert str(caught.value).encode(), "can be printed"


def test_a_full_disk_leaves_no_stump(tmp_path):
    """A file that may not grow beyond 20 kB stands for the disk; OpenCV does not tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    (tmp_path / "v.mp4").write_text("yesterday's")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(VideoError, match=r"v\.mp4: cannot be written; is the disk full"):
            videos.write_video(tmp_path / "v.mp4", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "v.mp4").read_text() == "yesterday's" and len(list(tmp_path.iterdir())) == 1


def test_a_name_that_ends_the_process_is_not_written(tmp_path):
    with pytest.raises(VideoError, match="not UTF-8"):
        videos.write_video(tmp_path / BAD_NAME, GRAY[:2])


def test_no_frames_are_no_video(tmp_path):
    with pytest.raises(VideoError, match="no frames"):
        videos.write_video(tmp_path / "v.mp4", [])
    assert not list(tmp_path.iterdir())
