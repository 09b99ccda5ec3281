"""Notebook 02 on somebody else's clips: two actions, other names, no clip of none."""

from __future__ import annotations

import pytest

from helpers.action import two_stream
from helpers.action.classifier import ActionClassifier
from helpers.data.videos import write_video
from helpers.synthetic.scenes import render_action
from helpers.train import action

SHOWN = {"hop": "jump", "salute": "wave_one_hand"}


@pytest.mark.training
def test_every_cell_runs_on_clips_of_ones_own(tmp_path, monkeypatch, run_on_own_data):
    for label, motion in SHOWN.items():
        for number in (1, 2, 3):
            path = tmp_path / "clips" / label / f"p{number}_01.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, render_action(motion, number, seconds=1.2, size=(72, 96)))
    for module, name, value in (
        (action, "PEOPLE", range(1)),
        (action, "STEPS", 1),
        (two_stream, "HELD_OUT", range(2000, 2001)),
    ):
        monkeypatch.setattr(module, name, value)
    changed = {
        'DATASET = "series" ': f'DATASET = "{tmp_path / "clips"}" ',
        'OUTPUT = "../out/actions"': f'OUTPUT = "{tmp_path / "out"}"',
    }
    out = run_on_own_data("02_action_training", changed)
    assert "this study belongs to the series' own sets" in out and "all clips: n=6, 3 groups" in out
    assert "predicted label:" in out and "clips of none: 0" in out
    assert ActionClassifier.load(tmp_path / "out").labels == tuple(SHOWN)
