"""The panel's section for actions of one's own, on the demo clip as the camera."""

from __future__ import annotations

import os
import threading

import pytest
from live_tools import count_frames, idle_pipeline, wait_for

from helpers.data.folders import list_samples
from helpers.live.panel import LivePanel


@pytest.fixture
def panel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = LivePanel(idle_pipeline(), folder=tmp_path / "out")
    yield panel
    panel.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("live-")]


def fill(panel, label="wave", person="anna", count=2, seconds=0.5):
    own = panel.own_actions
    own.label.value, own.person.value, own.count.value, own.seconds.value = label, person, count, seconds
    return own


def test_clips_are_counted_down_recorded_and_counted(panel, tmp_path):
    own = fill(panel)
    assert "none" in own.progress.value
    own.record.value = True
    wait_for(lambda: "clip 1 of 2: in 2" in own.progress.value)
    assert panel.session.running and panel.session.latest is not None
    wait_for(lambda: not own.record.value, 60)
    assert "Clips so far: wave 2" in own.progress.value and panel.session.capture is None
    assert panel.session.running, "the source goes on"
    samples = list_samples(tmp_path / "own_actions")
    assert [(s.label, s.path.name, s.group) for s in samples] == [
        ("wave", "anna-001.mp4", "anna"),
        ("wave", "anna-002.mp4", "anna"),
    ]
    assert all(count_frames(sample.path) == pytest.approx(13, abs=1) for sample in samples)


@pytest.mark.parametrize("how", ["button", "stop"])
def test_a_recording_that_is_ended_leaves_no_half_clip(how, panel, tmp_path):
    own = fill(panel, seconds=20)
    own.record.value = True
    wait_for(lambda: "recording" in own.progress.value, 30)
    if how == "button":
        own.record.value = False
    else:
        panel.stop.click()
    wait_for(lambda: os.listdir(tmp_path / "own_actions" / "wave") == [])
    wait_for(lambda: "wave 0" in own.progress.value and not own.record.value)
    assert not (tmp_path / "own_actions" / "groups.csv").exists()


def test_what_cannot_be_recorded_is_said(panel, tmp_path):
    own = fill(panel, label="../wave")
    own.record.value = True
    assert not own.record.value and "letters" in own.progress.value and not panel.session.running
    own = fill(panel)
    (tmp_path / "own_actions").touch()
    own.record.value = True
    wait_for(lambda: "cannot be written" in panel.session.status, 30)
    wait_for(lambda: not own.record.value)
    assert panel.session.running


def test_a_training_that_fails_says_why(panel):
    own = fill(panel)
    own.train.value = True
    wait_for(lambda: not own.train.value, 60)
    assert "own_actions" in own.training.value and "no such file or folder" in own.training.value


def test_a_finished_model_is_chosen_at_once(panel, models):
    fill(panel)
    panel.start.click()
    wait_for(lambda: panel.session.latest is not None)
    panel.own_actions.use(models[0])
    wait_for(lambda: panel.session.pipeline.action is not None, 60)
    assert panel.session.pipeline.action.labels == ("run", "sit", "walk")
    wait_for(lambda: panel.session.state == "running")
    assert panel.action_model.value == str(models[0])
    wait_for(lambda: "walk" in panel.action_bars.value)
