"""Every layout in which data sets come gives the same samples; what cannot be used is named."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from pathlib import Path

import cv2
import pytest

from helpers.data import files, folders, splits
from helpers.errors import DataError
from tests.data.builders import (
    ACTIONS,
    BAD_NAME,
    as_folder,
    as_zip,
    as_zip_per_class,
    write_classes,
    write_clip,
    write_groups,
    write_image,
    zip_folder,
)

FER_CLASSES = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


def as_wrapped_folder(root: Path) -> Path:
    return write_classes(root / "set/UCF50", ACTIONS).parent


def as_wrapped_zip(root: Path) -> Path:
    return zip_folder(write_classes(root / "unzipped", ACTIONS), root / "set.zip", "UCF50/")


def as_zip_in_a_folder(root: Path) -> Path:
    return zip_folder(write_classes(root / "unzipped", ACTIONS), root / "set/archive.zip").parent


def as_zip_of_zips(root: Path) -> Path:
    return zip_folder(as_zip_per_class(root), root / "zips.zip")


def as_mac_zip(root: Path) -> Path:
    folder = write_classes(root / "unzipped", ACTIONS)
    (folder / "__MACOSX/run").mkdir(parents=True)
    (folder / "__MACOSX/run/._a.avi").write_bytes(b"resource fork")
    (folder / "run/.DS_Store").write_bytes(b"x")
    (folder / "walk/Thumbs.db").write_bytes(b"x")
    return zip_folder(folder, root / "set.zip")


def as_zip_with_backslashes(root: Path) -> Path:
    folder = write_classes(root / "unzipped", ACTIONS)
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for file in folder.rglob("*.avi"):
            archive.writestr(f"{file.parent.name}\\{file.name}", file.read_bytes())
    return root / "set.zip"


@pytest.mark.parametrize(
    "make, reason",
    [
        (as_folder, "a folder of class folders, as everyone makes it"),
        (as_wrapped_folder, "UCF50.rar unpacks to a folder inside the folder"),
        (as_zip, "one zip of class folders"),
        (as_wrapped_zip, "a zip whose class folders lie in one folder"),
        (as_zip_in_a_folder, "Kaggle's archive.zip put into data/<name>/"),
        (as_zip_per_class, "KTH: a zip per class, files at its top or in a folder of that name"),
        (as_zip_of_zips, "KTH's zips put into one zip"),
        (as_mac_zip, "what macOS and Windows add is not data"),
        (as_zip_with_backslashes, "zips made by old Windows programs"),
    ],
)
def test_every_layout_gives_the_same_samples(tmp_path, make, reason):
    samples = folders.list_samples(make(tmp_path))
    found = [(s.label, s.path.name) for s in samples]
    assert found == [("run", "a.avi"), ("run", "b.avi"), ("walk", "c.avi")], reason
    assert all(cv2.VideoCapture(str(s.path)).isOpened() for s in samples), reason


def test_groups_csv_beside_zips_per_class(tmp_path):
    folder = as_zip_per_class(tmp_path)
    write_groups(folder, [("run", "a.avi", "p1"), ("run", "b.avi", "p2"), ("walk", "c.avi", "p1")])
    assert [s.group for s in folders.list_samples(folder)] == ["p1", "p2", "p1"]


def test_fer2013_parts_from_folders_and_zip(tmp_path):
    for part in ("train", "test"):
        write_classes(tmp_path / "fer" / part, {c: [f"{part}_{c}.jpg"] for c in FER_CLASSES})
    zipped = zip_folder(tmp_path / "fer", tmp_path / "fer2013.zip")
    for source in (tmp_path / "fer", zipped):
        train, test = (folders.list_split(source, part) for part in ("train", "test"))
        assert [s.label for s in train] == [s.label for s in test] == FER_CLASSES
        assert {s.path.name[:5] for s in train} == {"train"}
    with pytest.raises(DataError, match="no folder 'validation'.*test.*train"):
        folders.list_split(zipped, "validation")


def text_called_zip(root: Path) -> Path:
    (root / "set.zip").write_text("not a zip")
    return root / "set.zip"


def empty_zip(root: Path) -> Path:
    (root / "set.zip").touch()
    return root / "set.zip"


def cut_off_zip(root: Path) -> Path:
    path = as_zip(root)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def damaged_zip(root: Path) -> Path:
    path = as_zip(root)
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF  # inside the first video
    path.write_bytes(data)
    return path


def zip_with_member(root: Path, member: str) -> Path:
    path = as_zip(root)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "escaped")
    return path


def broken_zip_per_class(root: Path) -> Path:
    folder = as_zip_per_class(root)
    (folder / "jump.zip").write_text("not a zip")
    return folder


def empty_folder(root: Path) -> Path:
    (root / "set").mkdir()
    return root / "set"


def folder_with_rar(root: Path) -> Path:
    (empty_folder(root) / "UCF50.rar").write_bytes(b"Rar!")
    return root / "set"


def rar(root: Path) -> Path:
    return folder_with_rar(root) / "UCF50.rar"


def files_without_classes(root: Path) -> Path:
    return write_image(root / "set/face.jpg").parent


def empty_classes(root: Path) -> Path:
    return write_classes(root / "set", {"run": [], "walk": []})


def one_empty_class(root: Path) -> Path:
    return write_classes(root / "set", {**ACTIONS, "jump": []})


def text_in_a_class(root: Path) -> Path:
    (as_folder(root) / "run/notes.txt").write_text("good take")
    return root / "set"


def folder_in_a_class(root: Path) -> Path:
    (as_folder(root) / "run/old").mkdir()
    return root / "set"


def file_beside_classes(root: Path) -> Path:
    write_clip(as_folder(root) / "stray.avi")
    return root / "set"


def zip_beside_classes(root: Path) -> Path:
    (as_folder(root) / "jump.zip").write_bytes(b"")
    return root / "set"


def splits_instead_of_classes(root: Path) -> Path:
    write_classes(root / "set/train", ACTIONS)
    return write_classes(root / "set/test", ACTIONS).parent


def row_without_file(root: Path) -> Path:
    write_groups(as_folder(root), [("run", "gone.avi", "p1")])
    return root / "set"


def file_without_row(root: Path) -> Path:
    write_groups(as_folder(root), [("run", "a.avi", "p1"), ("walk", "c.avi", "p1")])
    return root / "set"


def row_without_group(root: Path) -> Path:
    write_groups(as_folder(root), [("run", "a.avi", ""), ("run", "b.avi", "p"), ("walk", "c.avi", "p")])
    return root / "set"


def other_columns(root: Path) -> Path:
    (as_folder(root) / "groups.csv").write_text("class;file;person\n")
    return root / "set"


def not_text(root: Path) -> Path:
    (as_folder(root) / "groups.csv").write_bytes(b"label,file,group\n\xff\xfe\x00")
    return root / "set"


def short_row(root: Path) -> Path:
    (as_folder(root) / "groups.csv").write_text("label,file,group\nrun,a.avi,p1\nrun,b.avi\n")
    return root / "set"


def two_groups(root: Path) -> Path:
    write_groups(as_folder(root), [("run", "a.avi", "p1"), ("run", "b.avi", "p2"), ("run", "a.avi", "p2")])
    return root / "set"


def table_of_pixels(root: Path) -> Path:
    (root / "fer2013.csv").write_text("emotion,pixels,Usage\n0,70 80 82,Training\n")
    return root / "fer2013.csv"


def pipe(root: Path) -> Path:
    os.mkfifo(root / "set.zip")
    return root / "set.zip"


def pipe_in_a_class(root: Path) -> Path:
    os.mkfifo(as_folder(root) / "run/pipe.avi")
    return root / "set"


def name_that_is_not_utf8(root: Path) -> Path:
    (as_folder(root) / "run/b.avi").rename(root / "set/run" / BAD_NAME)
    return root / "set"


BAD_SOURCES = [
    (lambda root: root / "nowhere", "nowhere.*no such file", "a typing error"),
    (text_called_zip, r"set\.zip.*not a usable zip", "a web page saved as .zip"),
    (empty_zip, r"set\.zip.*not a usable zip", "a download that never started"),
    (cut_off_zip, r"set\.zip.*Download it again", "a download that stopped"),
    (damaged_zip, r"set\.zip.*Download it again", "a byte changed on the way"),
    (lambda r: zip_with_member(r, "../evil.avi"), r"set\.zip.*evil\.avi.*outside", "parent folder"),
    (lambda r: zip_with_member(r, "/evil.avi"), r"set\.zip.*evil\.avi.*outside", "absolute"),
    (lambda r: zip_with_member(r, "..\\evil.avi"), r"set\.zip.*outside", "Windows parent folder"),
    (lambda r: zip_with_member(r, "C:\\evil.avi"), r"set\.zip.*outside", "Windows drive"),
    (broken_zip_per_class, r"jump\.zip.*not a usable zip", "one class of several is broken"),
    (empty_folder, "set.*no class folder", "nothing in it"),
    (folder_with_rar, r"UCF50\.rar.*unrar x", "UCF50 as fetched, not unpacked yet"),
    (rar, r"UCF50\.rar.*unrar x", "Python has no rar reader"),
    (files_without_classes, "set.*no class folder", "images without labels"),
    (empty_classes, r"set.*no usable file.*run, walk", "class folders, but no file at all"),
    (one_empty_class, "jump.*nothing in it", "a class would be missing from training"),
    (text_in_a_class, r"notes\.txt.*not one of", "not silently left out"),
    (folder_in_a_class, "old.*a folder inside a class folder", "its files would be missed"),
    (file_beside_classes, r"stray\.avi.*belongs to no class", "not silently left out"),
    (zip_beside_classes, r"jump\.zip.*belongs to no class", "a class that is not unpacked"),
    (splits_instead_of_classes, r"no usable file.*\(test, train\)", "a level too high"),
    (row_without_file, r"groups\.csv.*run/gone\.avi", "a clip was deleted or renamed"),
    (file_without_row, r"b\.avi.*Add `run,b\.avi,", "a clip was added: its group is unknown"),
    (row_without_group, r"a\.avi.*not empty", "an empty cell is no group"),
    (other_columns, r"groups\.csv.*label,file,group", "another table"),
    (not_text, r"groups\.csv.*cannot be read", "an Excel file renamed to .csv"),
    (short_row, r"groups\.csv: line 3 has 2 cells", "a row that stops early"),
    (two_groups, r"groups\.csv: line 4 puts run/a\.avi into 'p2'", "one file on both sides of a split"),
    (table_of_pixels, r"fer2013\.csv.*single file.*fer2013\.zip", "FER-2013 as its authors published it"),
    (pipe, r"set\.zip: not a regular file", "reading it would wait for ever"),
    (pipe_in_a_class, r"pipe\.avi: not a regular file", "reading it would wait for ever"),
    (name_that_is_not_utf8, r"caf.xe9\.avi: its name is not UTF-8", "OpenCV would end the process"),
]


@pytest.mark.parametrize("make, message, reason", BAD_SOURCES, ids=[r[2] for r in BAD_SOURCES])
def test_bad_source_is_named(tmp_path, make, message, reason):
    with pytest.raises(DataError, match=f"(?s){message}"):
        folders.list_samples(make(tmp_path))
    left = list(tmp_path.rglob("evil.avi")) + list(tmp_path.rglob("unpacking-*"))
    assert not left, "nothing escapes, nothing half done stays"


@pytest.mark.parametrize(
    "make, names",
    [
        (one_empty_class, ["jump"]),
        (text_in_a_class, ["notes.txt"]),
        (folder_in_a_class, ["old"]),
        (file_beside_classes, ["stray.avi"]),
        (zip_beside_classes, ["jump.zip"]),
        (pipe_in_a_class, ["pipe.avi"]),
    ],
)
def test_a_batch_goes_on_and_reports_what_it_skipped(tmp_path, make, names):
    skipped: list[folders.Skipped] = []
    assert len(folders.list_samples(make(tmp_path), skipped=skipped)) == 3
    assert [s.path.name for s in skipped] == names and all(s.reason for s in skipped)


@pytest.mark.parametrize("make", [row_without_file, file_without_row, other_columns])
def test_scoring_needs_no_groups(tmp_path, make):
    assert len(folders.list_samples(make(tmp_path), grouped=False)) == 3


def test_names_as_macos_writes_them_fit_names_as_people_write_them(tmp_path):
    """An ä of macOS is an a and two dots: two names to Linux, one to everybody else."""
    composed, apart = "hände.avi", unicodedata.normalize("NFD", "hände.avi")
    root = write_classes(tmp_path / "set", {unicodedata.normalize("NFD", "drücken"): [apart], "walk": ["c.avi"]})
    write_groups(root, [("drücken", composed, "anna"), ("walk", "c.avi", "ben")])
    assert [(s.label, s.group) for s in folders.list_samples(root)] == [("drücken", "anna"), ("walk", "ben")]


def test_suffixes_choose_the_kind(tmp_path):
    root = write_classes(tmp_path / "set", {"run": ["a.avi", "b.jpg"], "walk": ["c.avi"]})
    skipped: list[folders.Skipped] = []
    videos = folders.list_samples(root, files.VIDEO_SUFFIXES, skipped)
    assert [s.path.name for s in videos] == ["a.avi", "c.avi"]
    assert [s.path.name for s in skipped] == ["b.jpg"]


@pytest.mark.parametrize(
    "name, label, group",
    [
        ("v_HorseRiding_g07_c03.avi", "HorseRiding", "g07"),
        ("person07_boxing_d2_uncomp.avi", "boxing", "person07"),
        ("S010_006_00000013.png", "happy", "S010"),
        ("p3_take2.mp4", "walk", "p3"),
        ("Subject12-wave.mp4", "wave", "Subject12"),
        ("0111b01.jpg", "happy", "01"),
        ("lena_walk1.avi", "walk", "lena"),
        ("daria_jack.avi", "jack", "daria"),
        ("Jump_11_3.mp4", "jump", "Jump_11"),
        ("arid_jump_11_3.mp4", "jump", "arid_jump_11"),
        ("PublicTest_10116449.jpg", "angry", "angry/PublicTest_10116449.jpg"),
        ("001.mp4", "walk", "walk/001.mp4"),
        ("speed_run_home.mp4", "walk", "walk/speed_run_home.mp4"),
        ("video.mp4", "a(b", "a(b/video.mp4"),
    ],
)
def test_group_of_name(name, label, group):
    assert folders.group_of_name(name, label) == group


@pytest.mark.parametrize(
    "name, files, labels, groups",
    [
        ("everyday", 178, 10, 15),
        ("ut_interaction", 60, 6, 10),
        ("ckplus48", 927, 6, 106),
        ("posed_photos", 396, 7, 9),
    ],
)
def test_real_set_is_read_and_split(real_data, name, files, labels, groups):
    samples = folders.list_samples(real_data(name))
    assert len(samples) == files
    assert len({s.label for s in samples}) == labels
    assert len({s.group for s in samples}) == groups
    for fraction in (0.15, 0.25, 0.5):
        train, held_out = splits.split_groups(samples, fraction, seed=0)
        assert len({s.label for s in held_out}) == labels
