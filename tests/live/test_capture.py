"""Labelled clips from a camera."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from live_tools import count_frames

from helpers.data.folders import list_samples
from helpers.data.paths import REPOSITORY
from helpers.errors import DataError
from helpers.live import __main__ as live_main
from helpers.live.capture import COUNTDOWN_S, ClipCapture, write_groups

FPS = 25


def show(capture: ClipCapture, seconds: float, start_s: float = 0.0) -> list[str]:
    """What it said while a camera was seen for so long."""
    said = []
    for number in range(round(seconds * FPS) + 1):
        capture.see(np.full((48, 64, 3), number % 256, np.uint8), start_s + number / FPS, FPS)
        if said[-1:] != [capture.says]:
            said.append(capture.says)
    return said


def groups(folder) -> list[tuple[str, str, str]]:
    with (folder / "groups.csv").open(encoding="utf-8", newline="") as file:
        return [(row["label"], row["file"], row["group"]) for row in csv.DictReader(file)]


def test_clips_have_their_length_and_become_a_data_set(tmp_path):
    for label, person in (("wave", "anna"), ("clap", "anna"), ("wave", "ben b"), ("wave", "anna")):
        capture = ClipCapture(tmp_path, label, person, count=2, seconds=1.0)
        said = show(capture, 2 * (COUNTDOWN_S + 1.0) + 0.1)
        assert capture.done and len(capture.saved) == 2
        assert [words.split(": ")[1] for words in said[:5]] == ["in 3", "in 2", "in 1", "recording", "saved"]
        assert all(count_frames(path) == FPS for path in capture.saved)
    samples = list_samples(tmp_path)
    assert sorted((s.label, s.path.name, s.group) for s in samples) == sorted(groups(tmp_path))
    assert [s.path.name for s in samples if s.label == "wave" and s.group == "anna"] == [
        f"anna-00{number}.mp4" for number in (1, 2, 3, 4)
    ]
    assert {s.group for s in samples} == {"anna", "ben_b"}


def test_a_clip_with_a_gap_is_recorded_again_and_an_unfinished_one_leaves_nothing(tmp_path):
    capture = ClipCapture(tmp_path, "wave", "anna", count=1, seconds=1.0)
    show(capture, COUNTDOWN_S + 0.5)
    assert capture.recording
    show(capture, COUNTDOWN_S + 0.5, start_s=60.0)
    assert capture.recording and capture.saved == []
    capture.close()
    assert os.listdir(tmp_path / "wave") == [] and not (tmp_path / "groups.csv").exists()


def test_groups_follow_the_folder_and_keep_what_was_said(tmp_path):
    for name in ("wave/anna-001.mp4", "wave/ben-001.mp4", "clap/p7_clap.mp4", "clap/.hidden.mp4", "clap/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "groups.csv").write_text("label,file,group\nwave,anna-001.mp4,kitchen\nwave,gone-001.mp4,gone\n")
    write_groups(tmp_path)
    assert groups(tmp_path) == [
        ("clap", "p7_clap.mp4", "p7"),
        ("wave", "anna-001.mp4", "kitchen"),
        ("wave", "ben-001.mp4", "ben"),
    ]
    (tmp_path / "groups.csv").write_text("label,file\nwave,anna-001.mp4\n")
    with pytest.raises(DataError, match="groups.csv"):
        write_groups(tmp_path)
    assert (tmp_path / "groups.csv").read_text().startswith("label,file\n"), "what cannot be read is not replaced"


@pytest.mark.parametrize("name", ["", " ", "../wave", "a/b", ".hidden", "x" * 70, "a\0b", "con:"])
def test_a_name_that_is_no_file_is_refused(name, tmp_path):
    with pytest.raises(DataError, match="letters"):
        ClipCapture(tmp_path, name, "anna")
    with pytest.raises(DataError, match="letters"):
        ClipCapture(tmp_path, "wave", name)


def test_command_line(tmp_path):
    """A video as the camera: it ends after its second clip."""
    command = [sys.executable, "-m", "helpers.live", "--headless", "--source", "demo", "--record-clips", tmp_path]
    options = ["--label", "wave", "--person", "anna", "--count"]
    done = subprocess.run([*command, *options, "2"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"clips=2 folder={tmp_path / 'wave'}", done.stderr
    assert "wave, clip 1 of 2: in 3" in done.stdout and "clip 2 of 2: saved; all 2 are in" in done.stdout
    assert groups(tmp_path) == [("wave", "anna-001.mp4", "anna"), ("wave", "anna-002.mp4", "anna")]
    assert [count_frames(tmp_path / "wave" / name) for name in ("anna-001.mp4", "anna-002.mp4")] == [75, 75]
    done = subprocess.run([*command, *options, "9"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "ended before all clips" in done.stderr and "clips=2 " in done.stdout


@pytest.mark.parametrize(
    "options, words",
    [
        (["--label", "wave"], "needs --label and --person"),
        (["--label", "wave", "--person", "anna", "--seconds", "0"], "0.5 to 60"),
        (["--label", "wave", "--person", "anna", "--count", "0"], "1 or more"),
    ],
)
def test_wrong_options_are_named(options, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        live_main.main(["--record-clips", str(tmp_path), *options])
    assert end.value.code == 2 and words in capsys.readouterr().err
