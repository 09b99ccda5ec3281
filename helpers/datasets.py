"""Data in: where data sets lie, how class folders and zips become a list of samples, and how to split it honestly.

A result counts only on people and places that training never saw. So every sample carries a *group* (a person, a
place, a film sequence), and every split here keeps a group whole, on one side only.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pooch
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold, train_test_split

REPOSITORY = Path(__file__).resolve().parent.parent
VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
GROUPS_FILE = "groups.csv"
SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


class DataError(ValueError):
    """Input that cannot be used. The message names the file and says what to do about it."""


@dataclass(frozen=True)
class Sample:
    """One labelled file. `group` is shared by the files that must stay on one side of a split."""

    path: Path
    label: str
    group: str

    def __post_init__(self) -> None:
        if not self.label or not self.group:
            raise DataError(f"{self.path}: a sample needs a label and a group, both not empty.")


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why."""

    path: Path
    reason: str


# --- where data sets lie -----------------------------------------------------------------------------------------


def data_root() -> Path:
    """The folder that holds the data sets: `$HAR_DATA`, or `data/` of this repository."""
    return Path(os.environ.get("HAR_DATA") or REPOSITORY / "data").expanduser()


def find_dataset(name: str) -> Path | None:
    """The folder or zip of the data set `name` ("fer2013", "everyday", "kth", ...), or None when it is not there.

    Looked for directly below `data_root()`, then in its `actions/` and `faces/`; a folder is preferred to a zip.
    Case and punctuation do not matter: "ucf101" also finds the `UCF-101` that UCF101.rar unpacks to, and "ckplus48"
    finds `CK+48`.
    """
    for place in (data_root(), data_root() / "actions", data_root() / "faces"):
        entries = _visible(place) if place.is_dir() else []
        for kind in (_is_filled_folder, _is_zip_name):
            for entry in entries:
                if kind(entry) and _plain(entry.stem if kind is _is_zip_name else entry.name) == _plain(name):
                    return entry
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))


def _is_filled_folder(path: Path) -> bool:
    return path.is_dir() and bool(_visible(path))


def _is_zip_name(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _visible(folder: Path) -> list[Path]:
    """What a person put into `folder`, sorted: no hidden files, nothing that an operating system adds."""
    return sorted(p for p in folder.iterdir() if not _is_system_name(p.name))


def _is_system_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


# --- zips and folders --------------------------------------------------------------------------------------------


def class_folders(source: Path | str) -> Path:
    """A folder with one sub-folder per class, made from any of the layouts in which data sets come.

    `source` is a folder of class folders, a folder of zips (one per class, named after it), or one zip of class
    folders. A single folder wrapped around the classes is stepped into. Zips are extracted once, see `_extracted`.

    Raises DataError when `source` does not exist, holds no class, or holds a file that is not a zip but is called so.
    """
    folder = _unwrapped(_opened(Path(source)))
    zips = [p for p in _visible(folder) if _is_zip_name(p)]
    if not any(p.is_dir() for p in _visible(folder)) and zips:
        return _extracted(zips, folder / GROUPS_FILE)
    if not any(p.is_dir() for p in _visible(folder)):
        raise DataError(f"{source}: no class folder in it. Expected one folder (or one zip) per class, "
                        "named after the class, with the files of that class inside.")
    return folder


def _opened(source: Path) -> Path:
    """`source` itself when it is a folder, its extracted content when it is a zip."""
    if source.is_dir():
        return source
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. data/README.md says how to get each data set.")
    if source.suffix.lower() == ".rar":
        raise DataError(f"{source}: unpack the rar first (`unrar x`, 7-Zip, or `bsdtar -xf`), then give the folder.")
    return _extracted([source])


def _unwrapped(folder: Path) -> Path:
    """Step through folders that hold nothing but one folder of folders (`UCF50/UCF50/<class>/...`)."""
    entries = _visible(folder)
    while len(entries) == 1 and entries[0].is_dir() and _holds_classes(entries[0]):
        folder = entries[0]
        entries = _visible(folder)
    return folder


def _holds_classes(folder: Path) -> bool:
    entries = _visible(folder)
    return any(p.is_dir() or _is_zip_name(p) for p in entries) and not any(_is_media(p) for p in entries)


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _extracted(zips: list[Path], groups_file: Path | None = None) -> Path:
    """The content of one zip, or of several with a folder for each, extracted once into the cache.

    The cache folder's name is a hash of each zip's path, size and time of change, so a replaced zip is extracted
    anew. Work goes on in a temporary folder that is renamed at the end: an interrupted run leaves nothing half done.
    """
    folder = _cache_folder() / f"{zips[0].parent.name if groups_file else zips[0].stem}-{_fingerprint(zips)}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpacking-") as temporary:
        content = Path(temporary) / "content"
        for path in zips:
            target = content / path.stem if groups_file else content
            _extract(path, target)
            if groups_file:
                _drop_wrapper(target)
        if groups_file and groups_file.is_file():
            shutil.copy(groups_file, content)
        _rename_into_place(content, folder)
    return folder


def _cache_folder() -> Path:
    """`.cache/extracted` of this repository, or the user's cache folder where the repository is read-only.

    Not below `data_root()`: data sets may lie on a disk that is shared with others.
    """
    for folder in (REPOSITORY / ".cache" / "extracted", Path(pooch.os_cache("human-action-emotion"))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise DataError(f"{folder}: cannot write there. Unpack the zip by hand and give the folder instead.")


def _fingerprint(zips: list[Path]) -> str:
    parts = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in zips]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _extract(path: Path, target: Path) -> None:
    """Write the members of the zip `path` below `target`. Raises DataError when that is impossible or unsafe."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(m, PurePosixPath(m.filename.replace("\\", "/"))) for m in archive.infolist()]
            for member, name in members:
                if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
                    raise DataError(f"{path}: its member {member.filename!r} would be written outside the target "
                                    "folder. Do not trust this zip; get it from the data set's own source.")
            target.mkdir(parents=True, exist_ok=True)
            for member, name in members:
                if not any(_is_system_name(part) for part in name.parts):
                    _write_member(archive, member, target / name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a usable zip ({error}). Download it again.") from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in a way Python does not know
        raise DataError(f"{path}: Python cannot unpack it ({error}). Unpack it by hand and give the folder.") from error


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if member.filename.endswith(("/", "\\")):
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def _drop_wrapper(folder: Path) -> None:
    """`walking.zip` may hold the files or a folder `walking/` with the files: make the second like the first."""
    entries = _visible(folder)
    if len(entries) == 1 and entries[0].is_dir():
        wrapper = entries[0].rename(folder.with_name(folder.name + ".wrapped"))
        folder.rmdir()
        wrapper.rename(folder)


def _rename_into_place(content: Path, folder: Path) -> None:
    try:
        content.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process finished the same zip first: use its result
            raise


# --- samples -----------------------------------------------------------------------------------------------------


def list_samples(source: Path | str, suffixes: Iterable[str] = VIDEO_SUFFIXES | IMAGE_SUFFIXES,
                 skipped: list[Skipped] | None = None, grouped: bool = True) -> list[Sample]:
    """The labelled files of `source` (any layout of `class_folders`), sorted by label and file name.

    The label is the class folder's name. The group comes from `groups.csv` beside the class folders (columns
    label,file,group), else from the file name (see `group_of_name`). `grouped=False` does not look at `groups.csv`:
    for scoring, where nothing is split.

    Nothing is left out silently: empty class folders and files of other kinds are appended to `skipped`; without
    that list, the first of them raises DataError. So does a source with no usable file at all, and a `groups.csv`
    that does not name exactly the files that are there.
    """
    root = class_folders(source)
    left_out: list[Skipped] = []
    files = [p for folder in _visible(root) if folder.is_dir()
             for p in _class_files(folder, frozenset(suffixes), left_out)]
    left_out += [Skipped(p, "a file beside the class folders belongs to no class")
                 for p in _visible(root) if p.is_file() and (_is_media(p) or _is_unpacked_nowhere(p))]
    if not files:
        raise DataError(f"{source}: no class folder in it holds a file that ends in {' '.join(sorted(suffixes))}.")
    if skipped is None and left_out:
        raise DataError(f"{left_out[0].path}: {left_out[0].reason}. Add files or take it out of the data set.")
    if skipped is not None:
        skipped.extend(left_out)
    groups = read_groups(root) if grouped else None
    return [_sample(path, groups) for path in files]


def _is_unpacked_nowhere(path: Path) -> bool:
    return _is_zip_name(path) and not path.with_suffix("").is_dir()


def _class_files(folder: Path, suffixes: frozenset[str], left_out: list[Skipped]) -> list[Path]:
    files = []
    for path in _visible(folder):
        if path.is_dir():
            left_out.append(Skipped(path, "a folder inside a class folder; files must lie directly in their class"))
        elif path.suffix.lower() not in suffixes:
            left_out.append(Skipped(path, f"not one of the expected kinds ({' '.join(sorted(suffixes))})"))
        else:
            files.append(path)
    if not _visible(folder):
        left_out.append(Skipped(folder, "a class folder with nothing in it"))
    return files


def _sample(path: Path, groups: Mapping[tuple[str, str], str] | None) -> Sample:
    label = path.parent.name
    if groups is None:
        return Sample(path, label, group_of_name(path.name, label))
    if (label, path.name) not in groups:
        raise DataError(f"{path}: no row for it in {GROUPS_FILE}. Add `{label},{path.name},<its group>`.")
    return Sample(path, label, groups[label, path.name])


def read_groups(root: Path) -> dict[tuple[str, str], str] | None:
    """`groups.csv` of a folder of class folders as {(label, file name): group}; None when there is none."""
    path = root / GROUPS_FILE
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"label", "file", "group"} <= set(reader.fieldnames or ()):
            raise DataError(f"{path}: its first line must be `label,file,group`, found {reader.fieldnames}.")
        groups = {(row["label"], row["file"]): row["group"] for row in reader}
    for label, name in groups:
        if not (root / label / name).is_file():
            raise DataError(f"{path}: it names {label}/{name}, which is not there. Restore the file or drop the row.")
    return groups


# File names that tell who or what was filmed; the first match names the group.
GROUP_PATTERNS = (
    re.compile(r"_(g\d+)_"),                                             # UCF50, UCF101: v_Biking_g07_c03.avi
    re.compile(r"^((?:person|subject|actor|p|s)\d+)[_-]", re.IGNORECASE),  # KTH person07_..., CK+ S010_..., your own p3_...
    re.compile(r"^(\d\d)\d\d[a-z]\d\d\."),                               # TFEID: 0111b01.jpg is performer 01
)


def group_of_name(name: str, label: str) -> str:
    """The group that a file name tells: UCF's `_gNN_`, a person prefix (`person07_`, `S010_`, `p3_`), TFEID's first
    two digits, Weizmann's `<person>_<class>`; else the file is a group of its own.

    A file as its own group means an unknown group: clips cut from one film, or photos of one person, may then
    lie on both sides of a split and make the result look better than it is. Write a `groups.csv` to say better.
    """
    for pattern in GROUP_PATTERNS:
        if match := pattern.search(name):
            return match[1]
    if match := re.match(rf"(.+)_{re.escape(label)}\d*\.", name):
        return match[1]
    return f"{label}/{name}"


def list_split(source: Path | str, split: str, skipped: list[Skipped] | None = None) -> list[Sample]:
    """The samples of one part ("train", "test") of a set that is split into folders, as FER-2013 is: folder or zip.

    Raises DataError when `source` has no such folder, and as `list_samples` does.
    """
    root = _unwrapped(_opened(Path(source)))
    for folder in _visible(root):
        if folder.is_dir() and folder.name.lower() == split.lower():
            return list_samples(folder, skipped=skipped)
    raise DataError(f"{source}: no folder {split!r} in it, only {[p.name for p in _visible(root)][:10]}.")


def count_table(splits: Mapping[str, Iterable[Sample]]) -> dict[str, dict[str, int]]:
    """Number of samples as {label: {split: count}}, labels sorted: the table that a notebook prints."""
    counts = {split: Counter(s.label for s in samples) for split, samples in splits.items()}
    labels = sorted(set().union(*counts.values()))
    return {label: {split: counts[split][label] for split in splits} for label in labels}


# --- images ------------------------------------------------------------------------------------------------------


def read_image(path: Path | str) -> np.ndarray:
    """An image file as uint8 BGR (H, W, 3), turned upright by its EXIF tag; gray and transparent ones are converted.

    Raises DataError naming the file when it is missing, empty, cut off or not an image.
    """
    path = Path(path)
    try:
        data = path.read_bytes()  # cv2.imread itself fails on non-ASCII paths on Windows
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not data:
        raise DataError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    if _is_cut_off(data):
        raise DataError(f"{path}: the image is cut off before its end. Copy or download it again.")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: not an image that OpenCV can read. Is it another kind of file with an image's name?")
    return image


def _is_cut_off(data: bytes) -> bool:
    """Decoders fill the missing part of a JPEG or PNG with gray and do not complain, so look for the end marker."""
    if data.startswith(b"\xff\xd8"):  # the last end-of-image comes after the last start-of-scan (a thumbnail has both)
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") or b"\xff\xd9" not in data
    return data.startswith(b"\x89PNG") and b"IEND" not in data[-64:]


def pixel_hash(path: Path | str) -> str:
    """The same text for two images exactly when size and every decoded pixel agree, whatever the file's bytes."""
    image = read_image(path)
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def duplicate_pixels(train: Iterable[Sample], test: Iterable[Sample]) -> set[Path]:
    """The files of `test` whose picture also occurs in `train`: leave them out for a leak-free figure."""
    seen = {pixel_hash(s.path) for s in train}
    return {s.path for s in test if pixel_hash(s.path) in seen}


def group_by_pixels(samples: Iterable[Sample]) -> list[Sample]:
    """The same samples with identical pictures in one group, so that no split puts copies on both sides."""
    return [replace(s, group=pixel_hash(s.path)) for s in samples]


# --- splits ------------------------------------------------------------------------------------------------------


def split_groups(samples: list[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out): about `fraction` of the samples held out, whole groups only, every label on both sides.

    The best of many seeded proposals of scikit-learn's StratifiedGroupKFold: the one whose held-out share is nearest
    to `fraction` in every label. Where each file is its own group, an ordinary stratified split. The same samples
    and seed give the same split.

    Raises DataError when a label has only one group (it cannot be on both sides), or when groups are so shared
    between labels that no proposal has every label on both sides.
    """
    if not 0 < fraction < 1:
        raise DataError(f"fraction must lie between 0 and 1, not {fraction}.")
    _check_splittable(samples)
    if len({s.group for s in samples}) == len(samples):
        train, held_out = train_test_split(samples, test_size=fraction, random_state=seed,
                                           stratify=[s.label for s in samples])
        return _in_order(train), _in_order(held_out)
    train, held_out = [], []
    for part in _independent_parts(samples):
        kept, taken = min(_proposals(part, fraction, seed), key=lambda pair: _imbalance(*pair, fraction))
        train, held_out = train + kept, held_out + taken
    if {s.label for s in train} != {s.label for s in held_out}:
        raise DataError("no split has every label on both sides without sharing a group: the groups are too few, or "
                        "each spans too many labels. Add groups, or use leave_groups_out.")
    assert_disjoint(train, held_out)
    return _in_order(train), _in_order(held_out)


def _independent_parts(samples: list[Sample]) -> list[list[Sample]]:
    """Samples sorted into parts such that no group and no label is in two parts: each can be split by itself."""
    parts: list[tuple[set[str], set[str]]] = []
    for label in sorted({s.label for s in samples}):
        labels, groups = {label}, {s.group for s in samples if s.label == label}
        for part in [p for p in parts if p[1] & groups]:
            parts.remove(part)
            labels, groups = labels | part[0], groups | part[1]
        parts.append((labels, groups))
    return [[s for s in samples if s.label in labels] for labels, _ in parts]


def _check_splittable(samples: list[Sample]) -> None:
    for label in sorted({s.label for s in samples}):
        groups = {s.group for s in samples if s.label == label}
        if len(groups) < 2:
            raise DataError(f"label {label!r} has files of one group only ({groups.pop()}): held-out files would show "
                            "the people or places of training. Add files of another group, or drop the label.")


def _proposals(samples: list[Sample], fraction: float, seed: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
    folds = min(max(2, round(1 / fraction)), len({s.group for s in samples}))
    rounds = 20 if len(samples) < 2000 else 1  # a large set balances by itself
    for offset in range(rounds):
        for train, held_out in leave_groups_out(samples, folds, seed + offset):
            yield train, held_out


def _imbalance(train: list[Sample], held_out: list[Sample], fraction: float) -> float:
    """Sum over labels of the distance to the wanted share; a label missing on one side outweighs all distances."""
    inside, outside = Counter(s.label for s in held_out), Counter(s.label for s in train)
    shares = {label: inside[label] / (inside[label] + outside[label]) for label in inside | outside}
    return sum(abs(share - fraction) + len(shares) * (share in (0, 1)) for share in shares.values())


def _in_order(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda s: (s.label, s.path.name, str(s.path)))


def leave_groups_out(samples: list[Sample], folds: int, seed: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
    """`folds` pairs (train, test); each group is in exactly one test part, labels are balanced as groups allow.

    With as many folds as groups this is leave-one-group-out. A test part may lack a label, where that label has
    fewer groups than there are folds. Raises DataError when `folds` is below 2 or above the number of groups.
    """
    groups = [s.group for s in samples]
    count = len(set(groups))
    if not 2 <= folds <= count:
        raise DataError(f"{folds} folds of {count} groups: need at least 2 folds and at most one per group.")
    splitter = (LeaveOneGroupOut() if folds == count
                else StratifiedGroupKFold(folds, shuffle=True, random_state=seed))
    with warnings.catch_warnings():  # "least populated class has fewer members than folds": documented above
        warnings.simplefilter("ignore", UserWarning)
        pairs = list(splitter.split(samples, [s.label for s in samples], groups))
    for train, test in pairs:
        yield [samples[i] for i in train], [samples[i] for i in test]


def assert_disjoint(train: Iterable[Sample], test: Iterable[Sample]) -> None:
    """Raises DataError naming the groups and files that lie on both sides of a split."""
    train, test = list(train), list(test)
    shared = {s.group for s in train} & {s.group for s in test} | {s.path.name for s in train if s in set(test)}
    if shared:
        raise DataError(f"on both sides of the split: {', '.join(sorted(shared)[:5])} ({len(shared)} in all). "
                        "Such a result would measure memory, not recognition.")
