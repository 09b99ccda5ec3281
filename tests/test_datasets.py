"""helpers.datasets: layouts, groups, splits, images, downloads, on real files made here."""

from __future__ import annotations

import csv
import hashlib
import http.server
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.data import downloads, fer2013, images, paths, splits, zips
from helpers.data import files as files_module
from helpers.data import folders as folders_module
from helpers.data.folders import Sample
from helpers.errors import DataError

FER_CLASSES = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch, request):
    """Each test has its own cache and data root, unless it asks for the real data."""
    if "real_data" not in request.fixturenames:
        monkeypatch.setattr(zips, "REPOSITORY", tmp_path / "repository")
        monkeypatch.setenv("HAR_DATA", str(tmp_path / "data"))


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def write_video(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for frame in np.random.default_rng(seed).integers(0, 256, (3, 24, 32, 3), np.uint8):
        writer.write(frame)
    writer.release()
    return path


def write_classes(root: Path, classes: dict[str, list[str]]) -> Path:
    for label, names in classes.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for seed, name in enumerate(names):
            write = write_video if name.endswith(".avi") else write_image
            write(root / label / name, seed)
    return root


def zip_folder(folder: Path, path: Path, prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def write_groups(root: Path, rows: list[tuple[str, str, str]]) -> None:
    with (root / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("label", "file", "group"), *rows])


ACTIONS = {"run": ["a.avi", "b.avi"], "walk": ["c.avi"]}


# --- Layouts ---------------------------------------------------------------------------------


def as_folder(root: Path) -> Path:
    return write_classes(root / "set", ACTIONS)


def as_wrapped_folder(root: Path) -> Path:
    return write_classes(root / "set/UCF50", ACTIONS).parent


def as_zip(root: Path) -> Path:
    return zip_folder(write_classes(root / "unzipped", ACTIONS), root / "set.zip")


def as_wrapped_zip(root: Path) -> Path:
    return zip_folder(write_classes(root / "unzipped", ACTIONS), root / "set.zip", "UCF50/")


def as_zip_in_a_folder(root: Path) -> Path:
    return zip_folder(write_classes(root / "unzipped", ACTIONS), root / "set/archive.zip").parent


def as_zip_per_class(root: Path) -> Path:
    folder = write_classes(root / "unzipped", ACTIONS)
    zip_folder(folder / "run", root / "set/run.zip")
    return zip_folder(folder / "walk", root / "set/walk.zip", "walk/").parent


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
    samples = folders_module.list_samples(make(tmp_path))
    found = [(s.label, s.path.name) for s in samples]
    assert found == [("run", "a.avi"), ("run", "b.avi"), ("walk", "c.avi")], reason
    assert all(cv2.VideoCapture(str(s.path)).isOpened() for s in samples), reason


def test_a_zip_is_extracted_once_and_again_when_it_changed(tmp_path):
    path = as_zip(tmp_path)
    first = folders_module.class_folders(path)
    written = (first / "run/a.avi").stat().st_mtime_ns
    assert folders_module.class_folders(path) == first
    assert (first / "run/a.avi").stat().st_mtime_ns == written
    write_classes(tmp_path / "unzipped", {"jump": ["d.avi"]})
    zip_folder(tmp_path / "unzipped", path)
    assert {s.label for s in folders_module.list_samples(path)} == {"jump", "run", "walk"}


def test_programs_that_extract_at_the_same_time_agree(tmp_path):
    path = as_zip(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(folders_module.class_folders, [path] * 8))
    assert len(folders) == 1 and len(folders_module.list_samples(path)) == 3
    assert len(list(folders.pop().parent.iterdir())) == 1, "no leftovers"


def test_a_read_only_repository_extracts_into_the_users_cache(tmp_path, monkeypatch):
    (tmp_path / "repository").write_text("a file, so no folder can be made in it")
    monkeypatch.setattr(zips.pooch, "os_cache", lambda name: tmp_path / "user" / name)
    assert tmp_path / "user" in folders_module.class_folders(as_zip(tmp_path)).parents


def test_groups_csv_beside_zips_per_class(tmp_path):
    folder = as_zip_per_class(tmp_path)
    write_groups(folder, [("run", "a.avi", "p1"), ("run", "b.avi", "p2"), ("walk", "c.avi", "p1")])
    assert [s.group for s in folders_module.list_samples(folder)] == ["p1", "p2", "p1"]


def test_fer2013_parts_from_folders_and_zip(tmp_path):
    for part in ("train", "test"):
        write_classes(tmp_path / "fer" / part, {c: [f"{part}_{c}.jpg"] for c in FER_CLASSES})
    zipped = zip_folder(tmp_path / "fer", tmp_path / "fer2013.zip")
    for source in (tmp_path / "fer", zipped):
        train, test = (folders_module.list_split(source, part) for part in ("train", "test"))
        assert [s.label for s in train] == [s.label for s in test] == FER_CLASSES
        assert {s.path.name[:5] for s in train} == {"train"}
    with pytest.raises(DataError, match="no folder 'validation'.*test.*train"):
        folders_module.list_split(zipped, "validation")


@pytest.mark.parametrize(
    "place, name, reason",
    [
        ("fer2013.zip", "fer2013", "the zip as it comes"),
        ("fer2013", "fer2013", "its folder"),
        ("actions/everyday", "everyday", "sorted by task"),
        ("faces/ckplus48", "ckplus48", "sorted by task"),
        ("CK+48.zip", "ckplus48", "the name that the source uses"),
        ("UCF-101", "ucf101", "what UCF101.rar unpacks to"),
        ("downloads/kth", "kth", "where fetch puts it"),
    ],
)
def test_find_dataset(tmp_path, place, name, reason):
    assert paths.find_dataset(name) is None, "no data root at all"
    path = tmp_path / "data" / place
    if path.suffix == ".zip":
        write_classes(tmp_path / "unzipped", ACTIONS)
        zip_folder(tmp_path / "unzipped", path)
    else:
        path.mkdir(parents=True)
        assert paths.find_dataset(name) is None, "an empty folder is not a data set"
        write_classes(path, ACTIONS)
    assert paths.find_dataset(name) == path, reason
    assert paths.find_dataset("weizmann") is None


# --- Bad input -------------------------------------------------------------------------------


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
    write_video(as_folder(root) / "stray.avi")
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
]


@pytest.mark.parametrize("make, message, reason", BAD_SOURCES, ids=[r[2] for r in BAD_SOURCES])
def test_bad_source_is_named(tmp_path, make, message, reason):
    with pytest.raises(DataError, match=f"(?s){message}"):
        folders_module.list_samples(make(tmp_path))
    left = list(tmp_path.rglob("evil.avi")) + list(tmp_path.rglob("unpacking-*"))
    assert not left, "nothing escapes, nothing half done stays"


def test_encrypted_zip_says_what_to_do(tmp_path):
    path = as_zip(tmp_path)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the "encrypted" flag
        start = data.find(mark)
        while start >= 0:
            data[start + offset] |= 1
            start = data.find(mark, start + 4)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"set\.zip.*Unpack it yourself"):
        folders_module.class_folders(path)


@pytest.mark.parametrize(
    "make, names",
    [
        (one_empty_class, ["jump"]),
        (text_in_a_class, ["notes.txt"]),
        (folder_in_a_class, ["old"]),
        (file_beside_classes, ["stray.avi"]),
        (zip_beside_classes, ["jump.zip"]),
    ],
)
def test_a_batch_goes_on_and_reports_what_it_skipped(tmp_path, make, names):
    skipped: list[folders_module.Skipped] = []
    assert len(folders_module.list_samples(make(tmp_path), skipped=skipped)) == 3
    assert [s.path.name for s in skipped] == names and all(s.reason for s in skipped)


@pytest.mark.parametrize("make", [row_without_file, file_without_row, other_columns])
def test_scoring_needs_no_groups(tmp_path, make):
    assert len(folders_module.list_samples(make(tmp_path), grouped=False)) == 3


def test_suffixes_choose_the_kind(tmp_path):
    root = write_classes(tmp_path / "set", {"run": ["a.avi", "b.jpg"], "walk": ["c.avi"]})
    skipped: list[folders_module.Skipped] = []
    videos = folders_module.list_samples(root, files_module.VIDEO_SUFFIXES, skipped)
    assert [s.path.name for s in videos] == ["a.avi", "c.avi"]
    assert [s.path.name for s in skipped] == ["b.jpg"]


# --- Groups and splits -----------------------------------------------------------------------


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
    assert folders_module.group_of_name(name, label) == group


def make_samples(*rows: tuple[str, str, int]) -> list[Sample]:
    """`(label, group, count)` rows as samples."""
    return [
        Sample(Path(f"{label}/{group}_{i}.avi"), label, group) for label, group, count in rows for i in range(count)
    ]


PLACES = [(label, f"{label}{i}", 4) for label in ("jump", "walk") for i in range(2)]
PEOPLE = [(label, f"p{i}", 1) for label in ("bend", "wave") for i in range(7)]


@pytest.mark.parametrize(
    "rows, fraction, reason",
    [
        (PEOPLE, 0.3, "each person shows each action"),
        (PLACES, 0.25, "two places per label: one must be held out, more than asked for"),
        (PLACES + PEOPLE, 0.25, "both at once, as the everyday actions are"),
        (
            [("a", f"a{i}", 1) for i in range(50)] + [("b", f"b{i}", 1) for i in range(5)],
            0.2,
            "no groups known: an ordinary stratified split, the rare label on both sides",
        ),
        (
            [("a", "x", 3), ("a", "y", 9), ("b", "y", 2), ("b", "z", 5), ("c", "z", 1), ("c", "w", 4)],
            0.4,
            "labels chained by shared groups",
        ),
        (PEOPLE, 0.95, "something is left for training"),
    ],
)
def test_split_keeps_groups_whole_and_labels_on_both_sides(rows, fraction, reason):
    samples = make_samples(*rows)
    train, held_out = splits.split_groups(samples, fraction, seed=1)
    assert sorted(train + held_out, key=str) == sorted(samples, key=str), reason
    assert not {s.group for s in train} & {s.group for s in held_out}, reason
    assert {s.label for s in train} == {s.label for s in held_out}, reason
    shuffled = list(reversed(samples))
    assert splits.split_groups(samples, fraction, seed=1) == (train, held_out), "seeded"
    assert len(splits.split_groups(shuffled, fraction, seed=2)[1]) > 0, "any order"


def test_singles_split_is_stratified_exactly():
    samples = make_samples(*[("a", f"a{i}", 1) for i in range(100)], *[("b", f"b{i}", 1) for i in range(20)])
    train, held_out = splits.split_groups(samples, 0.1, seed=0)
    table = folders_module.count_table({"train": train, "val": held_out})
    assert table == {"a": {"train": 90, "val": 10}, "b": {"train": 18, "val": 2}}


def test_another_seed_gives_another_split():
    samples = make_samples(*[("a", f"a{i}", 1) for i in range(30)])
    assert splits.split_groups(samples, 0.3, 0) != splits.split_groups(samples, 0.3, 1)


@pytest.mark.parametrize(
    "rows, fraction, message",
    [
        ([("jump", "place", 9), *PEOPLE], 0.2, "label 'jump' has files of one group only .place."),
        (
            [("a", "x", 1), ("a", "y", 1), ("b", "x", 1), ("b", "z", 1), ("c", "y", 1), ("c", "z", 1)],
            0.5,
            "no split found",
        ),
        (PEOPLE, 0, "fraction"),
        (PEOPLE, 1.5, "fraction"),
        ([], 0.5, "no samples"),
    ],
)
def test_impossible_splits_are_refused(rows, fraction, message):
    with pytest.raises(DataError, match=message):
        splits.split_groups(make_samples(*rows), fraction, 0)


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_leave_groups_out_tests_each_sample_once(folds, recwarn):
    samples = make_samples(*PEOPLE)
    tested = []
    for train, test in splits.leave_groups_out(samples, folds, seed=0):
        splits.assert_disjoint(train, test)
        assert test and len(train) + len(test) == len(samples)
        tested += test
    assert sorted(tested, key=str) == sorted(samples, key=str)
    assert not recwarn.list, "a warning would end up in a notebook"


@pytest.mark.parametrize("folds", [1, 8])
def test_impossible_folds_are_refused(folds):
    with pytest.raises(DataError, match=f"{folds} folds of 7 groups"):
        list(splits.leave_groups_out(make_samples(*PEOPLE), folds, 0))


def test_assert_disjoint_names_what_is_shared():
    train, test = make_samples(("a", "anna", 2)), make_samples(("b", "anna", 1), ("b", "ben", 1))
    with pytest.raises(DataError, match="anna"):
        splits.assert_disjoint(train, test)
    same_file = [Sample(train[0].path, "a", "another name")]
    with pytest.raises(DataError, match=r"anna_0\.avi"):
        splits.assert_disjoint(train, same_file)
    splits.assert_disjoint(train, test[1:])


# --- Images ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, reason",
    [
        ("gesicht_ü_顔.jpg", "not every name is ASCII"),
        ("face.png", "lossless"),
        ("face.bmp", "no compression"),
        ("face.webp", "web"),
        ("face.tiff", "JAFFE's format"),
    ],
)
def test_read_image(tmp_path, name, reason):
    image = images.read_image(write_image(tmp_path / name))
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8, reason


def test_read_image_gray_and_transparent(tmp_path):
    gray = np.full((8, 8), 77, np.uint8)
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    assert (images.read_image(tmp_path / "gray.png") == 77).all()
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([gray, gray, gray, gray]))
    assert images.read_image(tmp_path / "alpha.png").shape == (8, 8, 3)


def test_read_image_with_an_embedded_thumbnail(tmp_path):
    """A thumbnail in the header has its own end marker: it must not hide that the photo ends."""
    data = write_image(tmp_path / "photo.jpg", size=(64, 64)).read_bytes()
    thumbnail = write_image(tmp_path / "small.jpg").read_bytes()
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (tmp_path / "both.jpg").write_bytes(data[:2] + header + data[2:] + b"\xff\xda trailing video")
    assert images.read_image(tmp_path / "both.jpg").shape == (64, 64, 3)
    (tmp_path / "cut.jpg").write_bytes(data[:2] + header + data[2:-500])
    with pytest.raises(DataError, match=r"cut\.jpg.*cut off"):
        images.read_image(tmp_path / "cut.jpg")


def cut(suffix: str, share: float) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    return data[: int(len(data) * share)]


HUGE_PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x0f\xff\xff\x00\x0f\xff\xff\x08\x02\x00\x00"
    b"\x00" + b"\x00" * 4 + b"\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8", "cut off"),
        (b"\xff\xd8\xff\xd9", "cut off|not an image"),
        (cut(".jpg", 0.1), "cut off"),
        (cut(".jpg", 0.99), "cut off"),
        (cut(".png", 0.6), "cut off"),
        (cut(".bmp", 0.6), "not an image"),
        (np.random.default_rng(0).bytes(4000), "not an image"),
        (HUGE_PNG, "not an image"),
    ],
)
def test_bad_image_is_named(tmp_path, data, message):
    (tmp_path / "face.jpg").write_bytes(data)
    with pytest.raises(DataError, match=rf"face\.jpg.*({message})"):
        images.read_image(tmp_path / "face.jpg")


def test_a_missing_image_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(DataError, match=f"{path.name}.*cannot be read"):
            images.read_image(path)


def test_duplicates_are_found_by_pixels(tmp_path):
    train = [Sample(write_image(tmp_path / f"train{i}.png", seed=i), "a", f"t{i}") for i in range(3)]
    copy = write_image(tmp_path / "copy.bmp", seed=1)  # the same pixels in another format
    other = write_image(tmp_path / "other.png", seed=9)
    turned = write_image(tmp_path / "turned.png", seed=1, size=(32, 24))  # same bytes, other shape
    test = [Sample(p, "a", p.name) for p in (copy, other, turned)]
    assert images.duplicate_pixels(train, test) == {copy}
    grouped = images.group_by_pixels([*train, *test])
    assert len({s.group for s in grouped}) == 5
    assert grouped[1].group == grouped[3].group


# --- Downloads -------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A real web server on this machine that serves `tmp_path/served`."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            """Keep the test output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_fetch_checks_a_published_hash(tmp_path, server, monkeypatch, capfd):
    folder, url = server
    path = zip_folder(write_classes(tmp_path / "walk", {"": ["person01_walking_d1.avi"]}), folder / "walking.zip")
    remote = downloads.Remote(url + path.name, sha256(path), path.stat().st_size)
    monkeypatch.setitem(downloads.REMOTES, "kth", (remote,))
    fetched = downloads.fetch("kth")
    assert fetched == paths.find_dataset("kth")
    assert [(s.label, s.group) for s in folders_module.list_samples(fetched)] == [("walking", "person01")]
    (fetched / path.name).write_bytes(b"damaged on disk")
    downloads.fetch("kth")
    assert (fetched / path.name).read_bytes() == path.read_bytes(), "mended on the next call"
    assert capfd.readouterr() == ("", ""), "silent where nobody watches"


def test_fetch_refuses_a_wrong_file(tmp_path, server, monkeypatch):
    folder, url = server
    (folder / "walking.zip").write_bytes(b"something else")
    monkeypatch.setitem(downloads.REMOTES, "kth", (downloads.Remote(url + "walking.zip", "sha1:" + "0" * 40),))
    with pytest.raises(DataError, match=r"walking\.zip.*not the expected file"):
        downloads.fetch("kth")
    assert not (tmp_path / "data/downloads/kth/walking.zip").exists()


def test_fetch_without_published_hash_notes_the_first_one(tmp_path, server, monkeypatch, capsys):
    folder, url = server
    (folder / "UCF50.rar").write_bytes(b"Rar! content")
    monkeypatch.setitem(downloads.REMOTES, "ucf50", (downloads.Remote(url + "UCF50.rar"),))
    fetched = downloads.fetch("ucf50")
    digest = sha256(folder / "UCF50.rar").removeprefix("sha256:")
    assert (fetched / "downloads.sha256").read_text() == f"{digest}  UCF50.rar\n"
    assert digest in capsys.readouterr().out
    downloads.fetch("ucf50")
    assert capsys.readouterr().out == "", "noted once"
    (fetched / "UCF50.rar").write_bytes(b"Rar! changed")
    downloads.fetch("ucf50")
    assert (fetched / "UCF50.rar").read_bytes() == b"Rar! content", "fetched again"
    (folder / "UCF50.rar").write_bytes(b"Rar! replaced at the source")
    (fetched / "UCF50.rar").unlink()
    with pytest.raises(DataError, match=r"UCF50\.rar.*not the expected file"):
        downloads.fetch("ucf50")
    with pytest.raises(DataError, match=r"unrar x"):
        (folder / "UCF50.rar").write_bytes(b"Rar! content")
        folders_module.class_folders(downloads.fetch("ucf50"))


def test_fetch_notices_a_cut_off_file_by_its_size(server, monkeypatch):
    folder, url = server
    (folder / "UCF50.rar").write_bytes(b"Rar!")
    monkeypatch.setitem(downloads.REMOTES, "ucf50", (downloads.Remote(url + "UCF50.rar", size=99),))
    with pytest.raises(DataError, match=r"UCF50\.rar: 4 bytes instead of 99"):
        downloads.fetch("ucf50")


def test_fetch_says_what_to_do_without_the_file(server, monkeypatch):
    _, url = server
    monkeypatch.setitem(downloads.REMOTES, "ucf50", (downloads.Remote(url + "UCF50.rar"),))
    with pytest.raises(DataError, match=r"UCF50\.rar: download.*404.*with a browser"):
        downloads.fetch("ucf50")


def test_fetch_sorts_ut_interaction(tmp_path, server, monkeypatch):
    folder, url = server
    clips = write_classes(tmp_path / "ut", {"segmented_set1": ["0_1_4.avi", "17_3_0.avi"]})
    zip_folder(clips, folder / "set1.zip")
    monkeypatch.setitem(downloads.REMOTES, "ut_interaction", (downloads.Remote(url + "set1.zip"),))
    for _ in range(2):
        samples = folders_module.list_samples(downloads.fetch("ut_interaction"))
        assert [(s.label, s.group) for s in samples] == [("handshake", "sequence_03"), ("punch", "sequence_01")]
    assert paths.find_dataset("ut_interaction") == tmp_path / "data/ut_interaction"


def test_fetch_refers_to_the_card_for_the_rest():
    with pytest.raises(DataError, match=r"fer2013.*by hand.*data/README\.md"):
        downloads.fetch("fer2013")


def test_every_remote_has_a_hash_or_a_size():
    remotes = [remote for group in downloads.REMOTES.values() for remote in group]
    assert all(remote.known_hash or remote.size for remote in remotes)
    assert len(downloads.REMOTES["kth"]) == 6


# --- Manifest --------------------------------------------------------------------------------


def test_read_manifest(tmp_path):
    path = tmp_path / "fer2013_manifest.csv"
    header = ["file", "label", "usage", "copies_in_Training", *fer2013.FER_PLUS]
    voted = ["test/angry/1.jpg", "angry", "PublicTest", 2, *range(10)]
    unvoted = ["test/angry/2.jpg", "angry", "PublicTest", 0, *[""] * 10]
    path.write_text("\n".join(",".join(map(str, row)) for row in (header, voted, unvoted)))
    first, second = fer2013.read_manifest(path)
    assert (first.file, first.copies_in_training, first.votes["NF"]) == ("test/angry/1.jpg", 2, 9)
    assert second.votes == {}, "FER+ has no votes for a few files"
    path.write_text(",".join(header) + "\n" + ",".join(["x"] * len(header)) + "\n")
    with pytest.raises(DataError, match="manifest.*whole number"):
        fer2013.read_manifest(path)
    for broken in ("file,label\n", ""):
        path.write_text(broken)
        with pytest.raises(DataError, match="manifest.*must have"):
            fer2013.read_manifest(path)
    with pytest.raises(DataError, match="gone.*cannot be read"):
        fer2013.read_manifest(tmp_path / "gone.csv")


# --- The real sets, where they are -----------------------------------------------------------


@pytest.fixture
def real_data():
    """`find_dataset` on the machine's own data root; the test skips where a set is not there."""

    def find(name: str) -> Path:
        path = paths.find_dataset(name)
        if path is None:
            pytest.skip(f"{name} is not below {paths.data_root()}: see data/README.md")
        return path

    return find


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
    samples = folders_module.list_samples(real_data(name))
    assert len(samples) == files
    assert len({s.label for s in samples}) == labels
    assert len({s.group for s in samples}) == groups
    for fraction in (0.15, 0.25, 0.5):
        train, held_out = splits.split_groups(samples, fraction, seed=0)
        assert len({s.label for s in held_out}) == labels


def test_a_copy_is_found_that_was_saved_anew_cut_and_mirrored(tmp_path):
    """Smooth random pictures; one is mirrored, cut by 2 of 48 pixels, resized and saved as JPEG."""
    rng, train = np.random.default_rng(5), []
    for number in range(6):
        picture = cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        train.append(Sample(tmp_path / f"{number}.png", "a", str(number)))
    other = cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
    copy = cv2.resize(cv2.imread(str(train[3].path))[1:-1, ::-1][:, 1:-1], (64, 64))
    test = [Sample(tmp_path / name, "a", name) for name in ("copy.jpg", "other.png")]
    cv2.imwrite(str(test[0].path), copy, [cv2.IMWRITE_JPEG_QUALITY, 60])
    cv2.imwrite(str(test[1].path), other)
    (original, near), (_, far) = images.nearest_images(train, test)
    assert original == train[3] and 0.95 < near <= 1 and far < 0.8
    assert images.nearest_images(train, train[:1])[0] == (train[0], pytest.approx(1, abs=1e-5))
    assert not images.duplicate_pixels(train, test)


def test_real_fer2013_counts_and_leak(real_data):
    source = real_data("fer2013")
    train, test = (folders_module.list_split(source, part) for part in ("train", "test"))
    assert (len(train), len(test)) in ((28_709, 3_589), (28_709, 7_178)), "PublicTest, or both"
    public = [s for s in test if not s.path.name.startswith("PrivateTest")]
    leaked = images.duplicate_pixels(train, public)
    assert len(public) == 3_589 and len(leaked) == 280
    manifest = paths.data_root() / "fer2013_manifest.csv"
    if manifest.is_file():
        marked = {
            row.file.rsplit("/", 1)[1]
            for row in fer2013.read_manifest(manifest)
            if row.usage == "PublicTest" and row.copies_in_training
        }
        assert {path.name for path in leaked} == marked
