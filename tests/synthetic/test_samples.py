"""Synthetic data sets on disk: layout, groups, nothing half written, made anew where something is damaged."""

from __future__ import annotations

import csv

import cv2
import numpy as np

from helpers.synthetic import samples
from helpers.synthetic.faces import EXPRESSIONS

PEOPLE = (3, 11)


def test_action_samples_have_class_folders_and_groups(tmp_path):
    chosen = ("bend", "run")
    made = dict(people=PEOPLE, actions=chosen, seconds=0.4, size=(96, 128))
    folder = samples.write_action_samples(tmp_path / "new", **made)
    written = sorted(folder.glob("*/*"))
    assert [path.relative_to(folder).as_posix() for path in written] == [
        f"{action}/person{seed:03d}.mp4" for action in chosen for seed in PEOPLE
    ]
    with open(folder / "groups.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["label"], row["file"], row["group"]) for row in rows] == [
        (path.parent.name, path.name, path.stem) for path in written
    ]
    for path in written:
        video = cv2.VideoCapture(str(path))
        frames = sum(video.read()[0] for _ in range(20))
        video.release()
        assert frames == 10
    before = [path.stat().st_mtime_ns for path in written]
    samples.write_action_samples(folder, **made)
    assert [path.stat().st_mtime_ns for path in written] == before


def test_people_may_be_a_generator(tmp_path):
    people = (seed for seed in PEOPLE)
    folder = samples.write_action_samples(tmp_path, people, ("bend", "run"), seconds=0.1, size=(48, 64))
    assert len(list(folder.glob("run/*.mp4"))) == len(PEOPLE)


def test_emotion_samples_have_the_layout_of_fer2013(tmp_path):
    folder = samples.write_emotion_samples(tmp_path, per_class=4)
    for split, count in (("train", 4), ("test", 1)):
        for label in EXPRESSIONS:
            paths = list((folder / split / label).glob("*.png"))
            images = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]
            assert len(images) == count
            assert all(p.shape == (48, 48) and p.dtype == np.uint8 for p in images)
    train, test = ({path.stem for path in folder.glob(f"{s}/*/*.png")} for s in ("train", "test"))
    assert not train & test


def test_a_damaged_clip_or_face_is_made_anew(tmp_path):
    def make():
        samples.write_action_samples(tmp_path / "clips", (3,), ("run",), seconds=0.2, size=(48, 64))
        samples.write_emotion_samples(tmp_path / "faces", per_class=1)
        return [tmp_path / "clips/run/person003.mp4", tmp_path / "faces/train/happy/person0000000.png"]

    whole = [path.read_bytes() for path in make()]
    for path, data in zip(make(), whole, strict=True):
        path.write_bytes(data[: len(data) // 2])  # what a full disk once left
    assert [path.read_bytes() for path in make()] == whole
    assert not list(tmp_path.rglob(".*")), "nothing half written stays"
