"""python -m helpers.train action: from a folder of videos to a model that runs, and what it refuses to do."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.action import two_stream
from helpers.action.classifier import ActionClassifier, TwoStreamClassifier
from helpers.action.joints import ROW
from helpers.action.person import TimeStep
from helpers.action.rejection import Rejection
from helpers.action.two_stream import ActionClips, ClipFeatures, TwoStreamRecipe, train_head
from helpers.data.folders import Sample, group_of_name, list_samples
from helpers.data.outputs import OutputFile
from helpers.data.paths import ARTIFACTS, REPOSITORY
from helpers.data.videos import write_video
from helpers.keras_files import load_keras
from helpers.synthetic import scenes
from helpers.train import action, job
from helpers.train.__main__ import main

CLASSES = {"hop": "jump", "salute": "wave_one_hand"}  # words that the synthetic generator does not know


def write_clip(path: Path, motion: str, person: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, scenes.render_action(motion, person, seconds=1.2, size=(72, 96)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Three people hopping and saluting; two of them also stand there; one file is no video."""
    folder = tmp_path_factory.mktemp("my clips") / "clips"
    for person in (1, 2, 3):
        for label, motion in CLASSES.items():
            write_clip(folder / label / f"p{person}_a.mp4", motion, person)
    for person in (1, 2):
        write_clip(folder / "none" / f"p{person}_b.mp4", scenes.IDLE, person)
    (folder / "hop" / "p3_broken.mp4").write_bytes(b"no video")
    (folder / "hop" / "notes.txt").write_text("Monday")
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Two synthetic people instead of dozens."""
    monkeypatch.setattr(action, "PEOPLE", range(1))
    monkeypatch.setattr(two_stream, "HELD_OUT", range(2000, 2001))


def git_status() -> str:
    return subprocess.run(["git", "status", "--porcelain"], cwd=REPOSITORY, capture_output=True, text=True).stdout


@pytest.mark.training
def test_a_folder_of_clips_becomes_a_model_that_runs(clips, tmp_path, quick, capsys, monkeypatch):
    monkeypatch.setenv("HAR_DATA", str(tmp_path / "nothing here"))
    output, before = tmp_path / "my model", git_status()
    arguments = ["action", str(clips), "--output", str(output), "--epochs", "2", "--optimizers", "sgd,adam"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert git_status() == before, "nothing but the output is written"
    assert {path.name for path in output.iterdir()} == {
        *("action_model.h5", "action_model.keras", "action_encoder.tflite", "action_head.tflite"),
        *("labels.json", "config.json", "report.md", "curves.png", "confusion.png", "crossval.npz"),
    }
    model = ActionClassifier.load(output)
    assert isinstance(model, TwoStreamClassifier) and model.labels == ("hop", "salute") and model.threshold >= 0.2
    steps = [TimeStep(np.zeros((96, 96, 3), np.float32), np.zeros(ROW, np.float32), None)] * 16
    whole = [
        load_keras(output / f"action_model{end}")(model.network_input(steps), training=False).numpy()
        for end in (".h5", ".keras")
    ]
    np.testing.assert_allclose(model.classify(model.encode(steps)[None]), whole[0][:, :2], atol=0.02)
    np.testing.assert_allclose(*whole, atol=1e-6)
    sizes = [(output / f"action_model{suffix}").stat().st_size for suffix in (".h5", ".keras")]
    assert sizes[1] < 1.1 * sizes[0], "no optimizer's state in it"
    report = (output / "report.md").read_text()
    for text in (printed, report):
        assert "n=6 skipped=2" in text and "3 groups" in text
        assert re.search(r"by held-out accuracy: sgd [01]\.\d{3}, adam [01]\.\d{3}; used: (sgd|adam)", text)
        assert "p3_broken.mp4" in text and "notes.txt" in text, "what is left out is named, with its reason"
        assert "held-out clips of an action" in text and "of the 2 clips in none/ get one" in text
    assert "no groups" not in printed and "hop" in printed

    live, evaluate = (shlex.split(line) for line in printed.strip().splitlines()[-2:])
    assert live[1:4] == ["-m", "helpers.live", "--action-model"] and evaluate[1:4] == [
        "-m",
        "helpers.evaluate",
        "action",
    ]
    video = str(clips / "hop" / "p1_a.mp4")
    for line in (live + ["--source", video, "--headless", "--max-frames", "5"], evaluate):
        done = subprocess.run([sys.executable, *line[1:]], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "n=6 skipped=2" in done.stdout
    assert main(arguments) == 2 and "holds a finished model" in capsys.readouterr().err


@pytest.mark.training
def test_a_stopped_training_goes_on_where_it_was(clips, tmp_path, quick, capsys, monkeypatch):
    output, begun = tmp_path / "model", []

    def stop_in_the_third(*arguments, **options):
        begun.append(options["work"])
        if len(begun) == 3:
            raise KeyboardInterrupt
        return train_head(*arguments, **options)

    monkeypatch.setattr(two_stream, "train_head", stop_in_the_third)
    arguments = ["action", str(clips), "--output", str(output), "--epochs", "1"]
    assert main(arguments) == 130 and "goes on where it was" in capsys.readouterr().err
    assert not (output / "report.md").exists() and not (output / "action_model.h5").exists()
    logs = {path: path.read_text() for path in output.rglob("log.csv")}
    assert len(logs) == 2, "two folds were finished"
    monkeypatch.setattr(two_stream, "train_head", train_head)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # the checkpoints stay, to be looked at
    assert main(arguments) == 0 and (output / "report.md").is_file()
    for path, text in logs.items():
        assert path.read_text() == text, "a finished fold is not trained again"


def test_a_second_start_on_the_same_output_is_refused(clips, tmp_path, capsys):
    with OutputFile(tmp_path / "model" / "report.md"):
        (tmp_path / "model" / ".work").mkdir()
        assert main(["action", str(clips), "--output", str(tmp_path / "model")]) == 2
    assert "another run is writing" in capsys.readouterr().err


@pytest.mark.training
def test_fine_tuning_changes_the_later_layers_of_the_encoder(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(action, "open_estimator", lambda: None)
    samples = [sample for sample in list_samples(clips, skipped=[]) if "_a" in sample.path.name]
    joints = np.zeros((10, ROW), np.float32)
    data = ActionClips(tuple(CLASSES), samples, [], [[ClipFeatures(joints, joints)] * 2] * 6)
    tuned = action.fine_tuned(data, TwoStreamRecipe(epochs=3), tmp_path, 0, np.arange(4))
    shipped = two_stream.shipped_encoder()
    same = {w.path for w, v in zip(tuned.encoder.weights, shipped.weights, strict=True) if np.array_equal(w, v)}
    assert "Conv1/kernel" in same and "block_16_project/kernel" not in same
    assert [len(copies) for copies in tuned.features] == [1] * 6, "the held-out clips look through it, too"
    assert tuned.features[5][0].motion.shape == (10, 1280) and tuned.features[5][0].joints is joints


@pytest.mark.parametrize(
    "output, expected",
    [
        (ARTIFACTS / "action" / "mine", "below artifacts/"),
        ("clips", "is the folder to learn from"),
        ("clips/model", "is the folder to learn from"),
        (".", "is the folder to learn from"),
        ("full", "is not empty"),
        ("file", "is not empty"),
    ],
)
def test_where_no_model_may_go(clips, tmp_path, output, expected, capsys):
    (tmp_path / "clips").symlink_to(clips)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("Dear")
    (tmp_path / "file").write_text("Dear")
    place = clips.parent if output == "." else tmp_path / output
    assert main(["action", str(clips), "--output", str(place)]) == 2
    assert expected in capsys.readouterr().err
    assert (tmp_path / "full" / "letter.txt").read_text() == "Dear" and not (clips / "model").exists()


def files(folder: Path, groups: dict[str, dict[str, str]]) -> Path:
    """Class folders of files that no run gets to read, with a groups.csv: {label: {file: group}}."""
    rows = ["label,file,group"]
    for label, members in groups.items():
        (folder / label).mkdir(parents=True)
        for name, group in members.items():
            (folder / label / name).write_bytes(b"not read")
            rows.append(f"{label},{name},{group}")
    (folder / "groups.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(
    "groups, named",
    [
        ({"hop": {"a.mp4": "anna", "b.mp4": "ben"}, "nod": {"c.mp4": "anna", "d.mp4": "anna"}}, "'nod'.*one group"),
        (
            {"hop": {"a.mp4": "anna", "b.mp4": "ben"}, "nod": {"c.mp4": "anna"}, "wink": {"d.mp4": "ben"}},
            "'nod'.*one group",
        ),
    ],
)
def test_a_class_with_one_group_is_refused_by_name(tmp_path, groups, named, capsys):
    output = tmp_path / "model"
    assert main(["action", str(files(tmp_path / "clips", groups)), "--output", str(output)]) == 2
    assert re.search(named, capsys.readouterr().err)
    assert not output.exists() or not any(output.iterdir()), "nothing was begun"


@pytest.mark.parametrize(
    "names, expected",
    [
        (("first.mp4", "second.mp4"), "WARNING: no groups recognised"),
        (("p1_001.mp4", "p1_002.mp4"), "WARNING: all files are of one group"),
        (("p1_001.mp4", "p2_001.mp4", "third.mp4"), "2 of 6 files have no recognisable group"),
    ],
)
def test_files_without_groups_are_warned_of(tmp_path, names, expected, capsys):
    samples = [Sample(tmp_path / label / n, label, group_of_name(n, label)) for label in ("hop", "nod") for n in names]
    split = job.known_groups(samples)
    printed = capsys.readouterr().out
    assert expected in printed
    if "WARNING" in expected:
        assert "groups.csv" in printed and len({sample.group for sample in split}) == 4
        assert "split by file" in job.doubts(split)[0]
    else:
        assert split == samples and job.doubts(split) == []


@pytest.mark.parametrize(
    "answered, negatives, said, unsaid",
    [
        (0.9, 30, ["90% of the 24", "0% of the 30 clips in none/"], ["WARNING", "add some"]),
        (0.9, 4, ["0% of the 4 clips in none/", "4 clips in none/: add some", "20 or more"], ["WARNING"]),
        (0.9, 0, ["no clips in none/: add some"], ["WARNING", "nan"]),
        (0.0, 30, ["WARNING", "0% of the 24", "config.json"], ["nan", "add some"]),
    ],
    ids=["enough of everything", "few clips of none", "no clips of none", "a network that never answers"],
)
def test_what_the_threshold_does_is_said_in_words(answered, negatives, said, unsaid):
    shares = (answered, 1.0 if answered else float("nan"), 0.0 if negatives else float("nan"))
    text = "\n".join(action.live_figures(0.6, Rejection(*shares, 1.0, 24, negatives)))
    assert all(words in text for words in said) and not any(words in text for words in unsaid)


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--epochs", "two"], ["--optimizers", "rmsprop"]])
def test_options_that_cannot_be(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["action", "clips", "--output", "model", *option])
    assert stopped.value.code == 2 and option[0] in capsys.readouterr().err
