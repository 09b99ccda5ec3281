"""python -m helpers.train emotion: a folder of faces becomes a model that the other commands use."""

from __future__ import annotations

import shlex
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from helpers.data.paths import ARTIFACTS
from helpers.emotion.classifier import EmotionClassifier
from helpers.errors import DataError
from helpers.evaluate.__main__ import main as evaluate
from helpers.synthetic.faces import render_expression
from helpers.train import emotion as train_emotion
from helpers.train import job
from helpers.train.__main__ import main

SHOWN = {"calm": "neutral", "joy": "happy", "yawn": "surprise"}


def write_faces(folder: Path, counts: dict[str, int], first: int = 0) -> Path:
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for person in range(first, first + count):
            cv2.imwrite(str(folder / label / f"person{person:02d}_1.png"), render_expression(SHOWN[label], person))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """train/ and test/ of three classes with names of their own, one of two faces; a file that is no image."""
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder / "train", {"calm": 8, "joy": 6, "yawn": 2})
    write_faces(folder / "test", {"calm": 2, "joy": 2, "yawn": 1}, first=50)
    (folder / "train" / "joy" / "broken.png").write_text("not an image")
    return folder


@pytest.mark.training
def test_three_classes_of_other_names_become_a_model(source, tmp_path, capsys, monkeypatch):
    output = tmp_path / "my model"
    words = ["emotion", str(source), "--output", str(output), "--epochs", "1", "--optimizers", "adamw,sgd"]
    with monkeypatch.context() as stopped:
        stopped.setattr(train_emotion, "save_trained", Mock(side_effect=KeyboardInterrupt))
        assert main(words) == 130
    logs = {path: path.read_text() for path in output.rglob("log.csv")}
    assert len(logs) == 2 and not (output / "report.md").exists()

    assert main(words) == 0, "the same line goes on"
    out, err = capsys.readouterr()
    assert "broken.png" in out and "WARNING" not in out, "the names tell the groups"
    classifier = EmotionClassifier.load(output, strict=True)
    assert classifier.labels == tuple(SHOWN)
    np.testing.assert_allclose(classifier.class_prior, 1 / len(SHOWN), atol=1e-5), "class weights made all equal"
    report = (output / "report.md").read_text()
    for name in ("adamw", "sgd", "Files that the network was not trained on", "95 % interval", "helpers.live"):
        assert name in report
    assert {path.name for path in output.iterdir() if not path.name.startswith(".")} == {
        *("emotion_model.h5", "emotion_model.keras", "emotion_model.tflite", "labels.json", "config.json"),
        *("curves.png", "confusion.png", "report.md"),
    }
    line = next(line for line in out.splitlines() if "helpers.evaluate" in line)
    assert evaluate(shlex.split(line)[3:]) == 0, "the last line can be run as it stands"
    assert "n=5 skipped=0" in capsys.readouterr().out


def test_one_level_of_folders_is_split_three_ways_by_group(tmp_path):
    folder = write_faces(tmp_path / "faces", {"calm": 20, "joy": 20})
    for path in list(folder.glob("*/*.png")):  # a second picture of each person, and a copy under another name
        cv2.imwrite(str(path.with_name(path.name.replace("_1", "_2"))), 255 - cv2.imread(str(path)))
        path.with_name(f"copy_of_{path.name}").write_bytes(path.read_bytes())
    samples = train_emotion._list_parts(folder, [])["all"]
    crops = train_emotion.Crops(np.zeros((len(samples), 4, 4), np.uint8), samples)
    parts = train_emotion._split({"all": crops})
    assert sum(len(part.samples) for part in parts) == 120 and all(part.samples for part in parts)
    people = [{sample.path.name.removeprefix("copy_of_")[:8] for sample in part.samples} for part in parts]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])


def crops_of(folder: Path) -> dict[str, train_emotion.Crops]:
    samples = train_emotion._list_parts(folder, [])
    return {name: train_emotion.Crops(np.zeros((len(part), 4, 4), np.uint8), part) for name, part in samples.items()}


def people_of(part: train_emotion.Crops) -> set[str]:
    return {sample.path.name[:8] for sample in part.samples}


def add_takes(folder: Path, last: int) -> None:
    """Of every image, which is a person's first, darker ones up to number `last`."""
    for path in list(folder.glob("*/*.png")):
        for take in range(2, last + 1):
            cv2.imwrite(str(path.with_name(path.name.replace("_1", f"_{take}"))), cv2.imread(str(path)) // take)


def test_two_people_are_enough_one_to_train_on_and_one_to_score(tmp_path, capsys):
    folder = write_faces(tmp_path / "faces", {"calm": 2, "joy": 2})
    add_takes(folder, 5)
    train, validation, test = train_emotion._split(crops_of(folder))
    assert people_of(train) == people_of(validation) and not people_of(train) & people_of(test)
    assert not {sample.path for sample in train.samples} & {sample.path for sample in validation.samples}
    assert "too few groups" in capsys.readouterr().out


def test_faces_of_one_person_are_split_by_file_and_the_report_says_so(tmp_path, capsys):
    folder = write_faces(tmp_path / "faces", {"calm": 1, "joy": 1})
    add_takes(folder, 7)
    train, _, test = train_emotion._split(crops_of(folder))
    assert "all files are of one group" in capsys.readouterr().out
    assert job.doubts(train.samples) and len({sample.group for sample in test.samples}) == len(test.samples)


def test_people_and_images_of_test_that_are_in_train_are_counted(tmp_path):
    faces = {"calm": 3, "joy": 3}
    write_faces(tmp_path / "train", faces)
    write_faces(tmp_path / "test", faces, first=2)  # person02 is in both, with the same images
    parts = crops_of(tmp_path)
    (sentence,) = train_emotion._known_in_test(parts["train"].samples, parts["test"].samples)
    assert "1 of the 3 people" in sentence and "2 of the 6 images" in sentence
    assert not train_emotion._known_in_test(parts["train"].samples[:2], parts["test"].samples)


@pytest.mark.parametrize(
    "words, named",
    [
        (["nowhere", "--output", "{out}"], "nowhere: no such file or folder"),
        (["{source}", "--output", str(ARTIFACTS / "emotion")], "below artifacts/"),
        (["{source}/train/joy/broken.png", "--output", "{out}"], "broken.png"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(source, tmp_path, capsys, words, named):
    words = [word.format(source=source, out=tmp_path / "out") for word in words]
    assert main(["emotion", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and named in err and err.count("\n") == 1


def test_a_class_with_a_single_face_is_refused_by_name(tmp_path, capsys):
    write_faces(tmp_path / "faces", {"calm": 6, "joy": 1})
    assert main(["emotion", str(tmp_path / "faces"), "--output", str(tmp_path / "out")]) == 2
    assert "'joy'" in capsys.readouterr().err


def test_a_class_of_two_faces_is_refused_by_name(tmp_path, capsys):
    write_faces(tmp_path / "faces", {"calm": 6, "joy": 2})
    with pytest.raises(DataError, match="'joy': only one face is left"):
        train_emotion._split(crops_of(tmp_path / "faces"))
