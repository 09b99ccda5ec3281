"""The background session of a panel."""

from __future__ import annotations

import time

import numpy as np
from live_tools import count_frames, idle_pipeline, session_for, wait_for, write_video

from helpers.live import pipeline as pipeline_module


def test_session_plays_a_file_to_its_end_and_says_so(gray_clip):
    with session_for() as session:
        assert session.start(gray_clip)
        wait_for(lambda: not session.running)
        assert session.latest.number == 49, "every frame of a file"
        assert session.state == "stopped" and session.status == "The end of gray.mp4. It is closed."


def test_session_as_fast_as_it_goes(tmp_path):
    slow = write_video(tmp_path / "slow.mp4", [np.zeros((120, 160, 3), np.uint8)] * 50, fps=1)
    with session_for() as session:
        session.start(slow, paced=False)
        wait_for(lambda: not session.running)  # 10 s, of a video of 50
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
        assert session.latest.result.time_s > 0.25, "the last image of the camera, 0.4 s after the first"
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
