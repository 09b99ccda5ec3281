"""Notebook 02 on somebody else's clips: two actions, other names, no clip of none."""

from __future__ import annotations

import json

import matplotlib
import pytest

from helpers.action import two_stream
from helpers.action.classifier import ActionClassifier
from helpers.data.paths import REPOSITORY
from helpers.data.videos import write_video
from helpers.synthetic.scenes import render_action
from helpers.train import action

SHOWN = {"hop": "jump", "salute": "wave_one_hand"}


@pytest.mark.training
def test_every_cell_runs_on_clips_of_ones_own(tmp_path, monkeypatch, capsys):
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
    monkeypatch.setenv("HAR_PROFILE", "full")
    monkeypatch.setenv("HAR_DATA", str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    changed = {
        'DATASET = "series" ': f'DATASET = "{tmp_path / "clips"}" ',
        'OUTPUT = "../out/actions"': f'OUTPUT = "{tmp_path / "out"}"',
        "display(": "(lambda figure: figure)(",
    }
    notebook = json.loads((REPOSITORY / "notebooks" / "02_action_training.ipynb").read_text(encoding="utf-8"))
    names: dict = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        for old, new in changed.items():
            source = source.replace(old, new)
        if cell["cell_type"] == "code":
            exec(compile(source, cell["id"], "exec"), names)
    out = capsys.readouterr().out
    assert "this study belongs to the series' own sets" in out and "all clips: n=6, 3 groups" in out
    assert "predicted label:" in out and "clips of none: 0" in out
    assert ActionClassifier.load(tmp_path / "out").labels == tuple(SHOWN)
