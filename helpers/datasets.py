"""Data in: where data sets lie, how folders and zips become labelled samples, and honest splits.

A result counts only on people and places that training never saw. So every sample carries a
*group* (a person, a place, a film sequence), and every split keeps a group whole, on one side.
data/README.md has a card for each data set that is named here.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
import pooch
from sklearn.model_selection import GroupShuffleSplit, LeaveOneGroupOut, StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors

REPOSITORY = Path(__file__).resolve().parent.parent
VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
GROUPS_FILE = "groups.csv"
SYSTEM_FILES = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


class DataError(ValueError):
    """Input that cannot be used. The message names the file and says what to do about it."""


@dataclass(frozen=True)
class Sample:
    """One labelled file. Files with the same `group` must stay on one side of a split."""

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


# --- Where data sets lie ---------------------------------------------------------------------


def data_root() -> Path:
    """The folder that holds the data sets: `$HAR_DATA`, or `data/` of this repository."""
    return Path(os.environ.get("HAR_DATA") or REPOSITORY / "data").expanduser()


def find_dataset(name: str) -> Path | None:
    """The folder or zip of the data set `name` ("fer2013", "everyday", "kth"), None if not there.

    Looked for below `data_root()` and its `actions/`, `faces/`, `downloads/`, in that order; a
    folder goes before a zip. Case and punctuation do not matter: "ucf101" finds `UCF-101`,
    "ckplus48" finds `CK+48.zip`.
    """
    for place in ("", "actions", "faces", "downloads"):
        folder = data_root() / place
        entries = _visible(folder) if folder.is_dir() else []
        found = [p for p in entries if _plain(p.name.removesuffix(".zip")) == _plain(name)]
        usable = [p for p in found if _is_zip(p) or (p.is_dir() and _visible(p))]
        if usable:
            return min(usable, key=_is_zip)
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "plus"))


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and not path.is_dir()


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES


def _visible(folder: Path) -> list[Path]:
    """What a person put into `folder`, sorted: nothing hidden, nothing the system adds."""
    return sorted(p for p in folder.iterdir() if not _is_system_name(p.name))


def _is_system_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def _folders(folder: Path) -> list[Path]:
    return [p for p in _visible(folder) if p.is_dir()]


# --- Folders and zips ------------------------------------------------------------------------


def class_folders(source: Path | str) -> Path:
    """A folder with one sub-folder per class, from any layout in which data sets come.

    `source` is a folder of class folders, a folder of zips (one per class, named after it), or
    one zip of class folders. A single folder (or zip) wrapped around the classes is stepped into.
    Zips are extracted once, see `_extracted`. Raises DataError when `source` does not exist,
    holds no class, or holds a zip that cannot be used.
    """
    folder = _unwrapped(_opened(Path(source)))
    zips = [p for p in _visible(folder) if _is_zip(p)]
    if not _folders(folder) and zips:
        return _extracted(zips, folder / GROUPS_FILE)
    if not _folders(folder):
        raise DataError(f"{source}: no class folder in it. Expected one folder (or one zip) per "
                        "class, named after the class, with the files of that class inside.")
    return folder


def _opened(source: Path) -> Path:
    """`source` itself when it is a folder, its extracted content when it is a zip."""
    if source.is_dir():
        return source
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. "
                        "data/README.md says how to get each data set.")
    if source.suffix.lower() == ".rar":
        raise DataError(f"{source}: Python cannot read rar. Unpack it (`unrar x`, 7-Zip or "
                        "`bsdtar -xf`) and give the folder.")
    return _extracted([source])


def _unwrapped(folder: Path) -> Path:
    """Step into a lone folder or zip that holds the classes (`UCF50/UCF50/<class>/...`)."""
    while True:
        inner = _folders(folder) or [p for p in _visible(folder) if _is_zip(p)]
        rar = [p for p in _visible(folder) if p.suffix.lower() == ".rar"]
        if rar and not _folders(folder):
            return _opened(rar[0])  # raises: says how to unpack
        if len(inner) != 1 or not _holds_classes(content := _opened(inner[0])):
            return folder
        folder = content


def _holds_classes(folder: Path) -> bool:
    entries = _visible(folder)
    return any(p.is_dir() or _is_zip(p) for p in entries) and not any(map(_is_media, entries))


def _extracted(zips: list[Path], groups_file: Path | None = None) -> Path:
    """The content of one zip, or a folder for each of several zips, extracted once into a cache.

    The cache folder is keyed by each zip's path, size and time of change, so a replaced zip is
    extracted anew. Work is done in a temporary folder that is renamed at the end: an interrupted
    run leaves nothing half done.
    """
    stem = zips[0].parent.name if groups_file else zips[0].stem
    folder = _cache_folder() / f"{stem}-{_fingerprint(zips)}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpacking-") as temporary:
        content = Path(temporary) / "content"
        for path in zips:
            _extract(path, content / path.stem if groups_file else content)
        if groups_file:
            _finish_classes(content, groups_file)
        _rename_into_place(content, folder)
    return folder


def _cache_folder() -> Path:
    """`.cache/extracted` of this repository, or the user's cache where that is read-only.

    Not below `data_root()`: data sets often lie on a disk that is shared with others.
    """
    for folder in (REPOSITORY / ".cache/extracted", Path(pooch.os_cache("human-action-emotion"))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise DataError(f"{folder}: cannot write there. Unpack the zip yourself, give the folder.")


def _fingerprint(zips: list[Path]) -> str:
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in zips]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _extract(path: Path, target: Path) -> None:
    """Write the members of the zip `path` below `target`; DataError if impossible or unsafe."""
    try:
        with zipfile.ZipFile(path) as archive:
            # PureWindowsPath reads both kinds of slash, and knows drives: `..\\x`, `C:\\x`, `/x`
            members = [(m, PureWindowsPath(m.filename)) for m in archive.infolist()]
            for member, name in members:
                if name.anchor or ".." in name.parts:
                    raise DataError(f"{path}: its member {member.filename!r} would be written "
                                    "outside the target folder. Do not trust this zip; get it "
                                    "from the data set's own source.")
            target.mkdir(parents=True, exist_ok=True)
            for member, name in members:
                if not any(_is_system_name(part) for part in name.parts):
                    _write_member(archive, member, target.joinpath(*name.parts))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a usable zip ({error}). Download it again.") from error
    except RuntimeError as error:  # encrypted, or packed by a method that Python does not know
        raise DataError(f"{path}: Python cannot unpack it ({error}). "
                        "Unpack it yourself and give the folder.") from error


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if member.filename.endswith(("/", "\\")):
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def _finish_classes(content: Path, groups_file: Path) -> None:
    """`walking.zip` may hold its files, or a folder `walking/` with them: make both alike."""
    for folder in _folders(content):
        inner = _visible(folder)
        if len(inner) == 1 and inner[0].is_dir():
            inner[0].rename(content / ".wrapped")
            shutil.rmtree(folder)
            (content / ".wrapped").rename(folder)
    if groups_file.is_file():
        shutil.copy(groups_file, content)


def _rename_into_place(content: Path, folder: Path) -> None:
    try:
        content.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first: its result is the same
            raise


# --- Samples ---------------------------------------------------------------------------------


def list_samples(source: Path | str, suffixes: Iterable[str] = VIDEO_SUFFIXES | IMAGE_SUFFIXES,
                 skipped: list[Skipped] | None = None, grouped: bool = True) -> list[Sample]:
    """The labelled files of `source` (any layout of `class_folders`), sorted by label and name.

    The label is the class folder's name. The group comes from `groups.csv` beside the class
    folders (columns label,file,group), else from the file name, see `group_of_name`.
    `grouped=False` ignores `groups.csv`: for scoring, where nothing is split.

    Nothing is left out silently: empty class folders and files of other kinds are appended to
    `skipped`; without that list the first of them raises DataError. So does a source without any
    usable file, and a `groups.csv` that does not name exactly the files that are there.
    """
    root = class_folders(source)
    left_out = [Skipped(p, "lies beside the class folders, so it belongs to no class")
                for p in _visible(root) if _is_media(p) or _is_zip(p)]
    files = [path for folder in _folders(root)
             for path in _class_files(folder, frozenset(suffixes), left_out)]
    if not files:
        raise DataError(f"{source}: no usable file in its folders "
                        f"({', '.join(p.name for p in _folders(root)[:5])}). Expected "
                        f"{' '.join(sorted(suffixes))} directly in one folder per class.")
    if skipped is None and left_out:
        raise DataError(f"{left_out[0].path}: {left_out[0].reason}. Mend it or move it away.")
    if skipped is not None:
        skipped.extend(left_out)
    groups = read_groups(root) if grouped else None
    return [_sample(path, groups) for path in files]


def _class_files(folder: Path, suffixes: frozenset[str], left_out: list[Skipped]) -> list[Path]:
    entries, files = _visible(folder), []
    for path in entries:
        if path.is_dir():
            left_out.append(Skipped(path, "a folder inside a class folder"))
        elif path.suffix.lower() not in suffixes:
            left_out.append(Skipped(path, f"not one of {' '.join(sorted(suffixes))}"))
        else:
            files.append(path)
    if not entries:
        left_out.append(Skipped(folder, "a class folder with nothing in it"))
    return files


def _sample(path: Path, groups: Mapping[tuple[str, str], str] | None) -> Sample:
    label = path.parent.name
    if groups is None:
        return Sample(path, label, group_of_name(path.name, label))
    if (label, path.name) not in groups:
        raise DataError(f"{path}: {GROUPS_FILE} has no row for it. "
                        f"Add `{label},{path.name},<its group>`.")
    return Sample(path, label, groups[label, path.name])


def read_groups(root: Path) -> dict[tuple[str, str], str] | None:
    """`root/groups.csv` as {(label, file name): group}, None when there is no such file.

    Raises DataError when a column is missing or a row names a file that is not there.
    """
    path = root / GROUPS_FILE
    if not path.is_file():
        return None
    rows = _read_csv(path, ("label", "file", "group"))
    for row in rows:
        if not (root / row["label"] / row["file"]).is_file():
            raise DataError(f"{path}: it names {row['label']}/{row['file']}, which is not there. "
                            "Restore the file or delete the row.")
    return {(row["label"], row["file"]): row["group"] for row in rows}


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # -sig: Excel writes a mark
            reader = csv.DictReader(file)
            found, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error
    if not set(columns) <= set(found):
        raise DataError(f"{path}: its first line must have {','.join(columns)}, "
                        f"but is {','.join(found)!r}.")
    return rows


# File names that say who or what was filmed; the first pattern that fits gives the group.
GROUP_PATTERNS = (
    re.compile(r"_(g\d+)_"),  # UCF50, UCF101: v_Biking_g07_c03.avi
    re.compile(r"^((?:person|subject|actor|p|s)\d+)[_-]", re.I),  # person07_, CK+ S010_, own p3_
    re.compile(r"^(\d\d)\d\d[a-z]\d\d\."),  # TFEID: 0111b01.jpg is performer 01
)


def group_of_name(name: str, label: str) -> str:
    """The group that a file name tells, else `label/name`: the file as a group of its own.

    Known: UCF's `_gNN_`, a person prefix (`person07_`, `S010_`, `p3_`), TFEID's first two digits,
    ARID's `<class>_<scene>_<clip>`, Weizmann's `<person>_<class>`. A file as its own group means
    that nobody knows better: clips cut from one film, or photos of one person, may then fall on
    both sides of a split and make a result look better than it is. A `groups.csv` prevents that.
    """
    word = re.escape(label)
    with_class = (rf"((?:.+_)?{word}_\d+)_\d+\.", rf"(.+)_{word}\d*\.")
    for pattern in (*GROUP_PATTERNS, *(re.compile("^" + p, re.I) for p in with_class)):
        if match := pattern.search(name):
            return match[1]
    return f"{label}/{name}"


def list_split(source: Path | str, split: str,
               skipped: list[Skipped] | None = None) -> list[Sample]:
    """One part ("train", "test") of a set that comes as such folders or a zip of them: FER-2013.

    Raises DataError when there is no such part, and as `list_samples` does.
    """
    root = _unwrapped(_opened(Path(source)))
    for folder in _folders(root):
        if folder.name.lower() == split.lower():
            return list_samples(folder, skipped=skipped)
    raise DataError(f"{source}: no folder {split!r} in it, only "
                    f"{[p.name for p in _visible(root)][:10]}.")


def count_table(splits: Mapping[str, Iterable[Sample]]) -> dict[str, dict[str, int]]:
    """Numbers of samples as {label: {split: count}}, labels sorted, for a notebook to print."""
    counts = {split: Counter(s.label for s in samples) for split, samples in splits.items()}
    return {label: {split: counts[split][label] for split in splits}
            for label in sorted(set().union(*counts.values()))}


# --- Images ----------------------------------------------------------------------------------


def read_image(path: Path | str) -> np.ndarray:
    """An image file as uint8 BGR (H, W, 3), upright by its EXIF tag, gray repeated, alpha dropped.

    Raises DataError naming the file when it is missing, empty, cut off or not an image.
    """
    path = Path(path)
    try:
        data = path.read_bytes()  # cv2.imread fails on non-ASCII paths on Windows
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not data:
        raise DataError(f"{path}: an empty file (0 bytes). Copy or download it again.")
    if _is_cut_off(data):
        raise DataError(f"{path}: the image is cut off. Copy or download it again.")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: not an image that OpenCV can read. "
                        "Is it damaged, or another kind of file under an image's name?")
    return image


def _is_cut_off(data: bytes) -> bool:
    """Whether the end marker is missing: decoders fill in gray there and do not complain."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False  # other formats: the decoder itself notices
    position = 2
    while data[position:position + 2] not in (b"\xff\xda", b""):  # step over the JPEG headers,
        position += 2 + int.from_bytes(data[position + 2:position + 4], "big")  # thumbnail too
    return b"\xff\xd9" not in data[position:]


def pixel_hash(path: Path | str) -> str:
    """The same text exactly for images of the same size and pixels, whatever the file's bytes."""
    image = read_image(path)
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def duplicate_pixels(train: Iterable[Sample], test: Iterable[Sample]) -> set[Path]:
    """Files of `test` whose picture is also in `train`; leave them out for a leak-free figure."""
    seen = {pixel_hash(s.path) for s in train}
    return {s.path for s in test if pixel_hash(s.path) in seen}


def nearest_pictures(train: list[Sample], test: list[Sample],
                     side: int = 24) -> list[tuple[Sample, float]]:
    """For each sample of `test` the picture in `train` that is most like it, and their correlation.

    Copies that were saved anew, resized, cut a little differently or mirrored have other pixels
    (`duplicate_pixels` misses them) and still correlate with the original. Pictures are compared
    in gray, reduced to side x side pixels, without the two outermost rows and columns.
    Correlation: Pearson's, of the pixels, in [-1, 1].
    """
    search = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute")
    search.fit(_small_vectors(train, side))
    pictures = _small_vectors(test, side)
    inner = side - 4
    mirrored = pictures.reshape(-1, inner, inner)[:, :, ::-1].reshape(pictures.shape)
    (straight, one), (turned, two) = (search.kneighbors(part) for part in (pictures, mirrored))
    best = np.where(turned < straight, two, one)[:, 0]
    distance = np.minimum(straight, turned)[:, 0]
    return [(train[index], 1 - float(away)) for index, away in zip(best, distance, strict=True)]


def _small_vectors(samples: list[Sample], side: int) -> np.ndarray:
    """float32 (N, (side - 4) ** 2): reduced gray pictures as rows of mean 0."""
    rows = []
    for sample in samples:
        gray = cv2.cvtColor(read_image(sample.path), cv2.COLOR_BGR2GRAY)
        small = cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA)[2:-2, 2:-2]
        rows.append(small.astype(np.float32).ravel() - small.mean())
    return np.array(rows)


def group_by_pixels(samples: Iterable[Sample]) -> list[Sample]:
    """The same samples, identical pictures in one group: no split separates copies."""
    return [replace(s, group=pixel_hash(s.path)) for s in samples]


# --- Splits ----------------------------------------------------------------------------------


def split_groups(samples: list[Sample], fraction: float,
                 seed: int) -> tuple[list[Sample], list[Sample]]:
    """(train, held out): about `fraction` held out, whole groups only, every label on both sides.

    Labels that share no group are split independently. Among many seeded proposals of
    scikit-learn's GroupShuffleSplit the one is taken whose held-out share is nearest to
    `fraction` in every label; with few groups that can still be far off, so print `count_table`.
    The same samples and seed always give the same split.

    Raises DataError when a label has only one group, or when no proposal has every label on both
    sides because groups span too many labels.
    """
    if not 0 < fraction < 1:
        raise DataError(f"fraction must lie between 0 and 1, not {fraction}.")
    _check_splittable(samples)
    train: list[Sample] = []
    held_out: list[Sample] = []
    for part in _independent_parts(samples):
        proposals = _proposals(part, fraction, seed)
        kept, taken = min(proposals, key=lambda pair: _imbalance(*pair, fraction))
        train, held_out = train + kept, held_out + taken
    if {s.label for s in train} != {s.label for s in held_out}:
        raise DataError("no split found with every label on both sides and no group on both: too "
                        "few groups, or groups that span many labels. Add groups, or use "
                        "leave_groups_out.")
    assert_disjoint(train, held_out)
    return _in_order(train), _in_order(held_out)


def _check_splittable(samples: list[Sample]) -> None:
    if not samples:
        raise DataError("no samples to split.")
    for label in sorted({s.label for s in samples}):
        groups = {s.group for s in samples if s.label == label}
        if len(groups) < 2:
            raise DataError(f"label {label!r} has files of one group only ({groups.pop()}): "
                            "held-out files would show the people or places of training. Add "
                            "files of another group, or leave the label out.")


def _independent_parts(samples: list[Sample]) -> list[list[Sample]]:
    """The samples in parts such that no label and no group is in two parts."""
    parts: list[tuple[set[str], set[str]]] = []
    for label in sorted({s.label for s in samples}):
        labels, groups = {label}, {s.group for s in samples if s.label == label}
        for part in [p for p in parts if p[1] & groups]:
            parts.remove(part)
            labels, groups = labels | part[0], groups | part[1]
        parts.append((labels, groups))
    return [[s for s in samples if s.label in labels] for labels, _ in parts]


def _proposals(samples: list[Sample], fraction: float,
               seed: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
    groups = [s.group for s in samples]
    count = len(set(groups))
    taken = min(max(1, round(fraction * count)), count - 1)
    rounds = max(5, min(1000, 50_000 // len(samples)))  # large sets balance by themselves
    splitter = GroupShuffleSplit(rounds, test_size=taken, random_state=seed)
    yield from _pairs(samples, splitter.split(samples, groups=groups))


def _pairs(samples: list[Sample], indices: Iterable[tuple[np.ndarray, np.ndarray]]
           ) -> Iterator[tuple[list[Sample], list[Sample]]]:
    for train, test in indices:
        yield [samples[i] for i in train], [samples[i] for i in test]


def _imbalance(train: list[Sample], held_out: list[Sample], fraction: float) -> float:
    """Sum over labels of the distance to the wanted share; a label on one side only costs more."""
    inside, outside = Counter(s.label for s in held_out), Counter(s.label for s in train)
    shares = [inside[label] / (inside[label] + outside[label]) for label in inside | outside]
    return sum(abs(share - fraction) + len(shares) * (share in (0, 1)) for share in shares)


def _in_order(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda s: (s.label, s.path))


def leave_groups_out(samples: list[Sample], folds: int,
                     seed: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
    """`folds` pairs (train, test); each group is in one test part, labels spread evenly over them.

    With as many folds as groups this is leave-one-group-out. A label with fewer groups than folds
    is missing from some test parts: pool the predictions of all folds before scoring.
    Raises DataError when `folds` is below 2 or above the number of groups.
    """
    groups = [s.group for s in samples]
    if not 2 <= folds <= len(set(groups)):
        raise DataError(f"{folds} folds of {len(set(groups))} groups: need at least 2 folds, and "
                        "at least as many groups as folds.")
    splitter = (LeaveOneGroupOut() if folds == len(set(groups))
                else StratifiedGroupKFold(folds, shuffle=True, random_state=seed))
    with warnings.catch_warnings():  # a label with fewer files than folds: see the docstring
        warnings.simplefilter("ignore", UserWarning)
        indices = list(splitter.split(samples, [s.label for s in samples], groups))
    yield from _pairs(samples, indices)


def assert_disjoint(train: Iterable[Sample], test: Iterable[Sample]) -> None:
    """Raises DataError naming the groups and files that are on both sides of a split."""
    train, test = list(train), list(test)
    shared = {s.group for s in train} & {s.group for s in test}
    shared |= {str(s.path) for s in train} & {str(s.path) for s in test}
    if shared:
        raise DataError(f"on both sides of the split: {', '.join(sorted(shared)[:5])} "
                        f"({len(shared)} in all). Such a result measures memory.")


# The official split of http://www.csc.kth.se/cvap/actions/00sequences.txt, by person
KTH_PEOPLE = {
    "train": (11, 12, 13, 14, 15, 16, 17, 18),
    "validation": (19, 20, 21, 23, 24, 25, 1, 4),
    "test": (22, 2, 3, 5, 6, 7, 8, 9, 10),
}


def kth_split(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """KTH's own {"train", "validation", "test"}: 8, 8 and 9 people."""
    samples = list(samples)
    return {split: [s for s in samples if s.group in {f"person{n:02d}" for n in people}]
            for split, people in KTH_PEOPLE.items()}


def ucf101_split(samples: Iterable[Sample], lists: Path | str,
                 number: int = 1) -> tuple[list[Sample], list[Sample]]:
    """(train, test) of UCF101's official split `number` (1, 2, 3).

    `lists` is UCF101TrainTestSplits-RecognitionTask.zip or the folder in it. Raises DataError
    when a list is missing or names none of the samples.
    """
    parts = []
    for part in ("train", "test"):
        found = list(_opened(Path(lists)).rglob(f"{part}list{number:02d}.txt"))
        if not found:
            raise DataError(f"{lists}: no {part}list{number:02d}.txt in it.")
        # a line is `Archery/v_Archery_g08_c01.avi 3`, in the test lists without the number
        names = {line.split()[0] for line in found[0].read_text().splitlines() if line.strip()}
        parts.append([s for s in samples if f"{s.label}/{s.path.name}" in names])
        if not parts[-1]:
            raise DataError(f"{found[0]}: names none of the files given. Are they UCF101's?")
    return parts[0], parts[1]


@dataclass(frozen=True)
class ManifestRow:
    """One FER-2013 file: its label, its part, its copies in Training, its ten FER+ votes."""

    file: str  # "test/angry/PublicTest_10116449.jpg"
    label: str
    usage: str  # "Training" or "PublicTest"
    copies_in_training: int  # of the same pixels, itself not counted
    votes: Mapping[str, int]  # FER+ name -> raters ("NF": no face); empty where FER+ has none


FER_PLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear",
            "contempt", "unknown", "NF")


def read_manifest(path: Path | str) -> list[ManifestRow]:
    """The rows of a `fer2013_manifest.csv`. Raises DataError for missing columns or non-numbers.

    A PublicTest row with `copies_in_training == 0` is leak-free. Without such a file,
    `duplicate_pixels` finds the same from the images.
    """
    rows = _read_csv(Path(path), ("file", "label", "usage", "copies_in_Training", *FER_PLUS))
    try:
        return [ManifestRow(row["file"], row["label"], row["usage"],
                            int(row["copies_in_Training"]),
                            {name: int(row[name]) for name in FER_PLUS if row[name]})
                for row in rows]
    except ValueError as error:
        raise DataError(f"{path}: a count is not a whole number ({error}).") from error


# --- Downloads -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remote:
    """A file with a stable address. Without a published hash, its size or None is all we know."""

    url: str
    known_hash: str | None = None
    size: int | None = None  # bytes

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


KTH = "https://www.csc.kth.se/cvap/actions/"
UCF = "https://www.crcv.ucf.edu/data/"
UT = "https://cvrc.ece.utexas.edu/SDHA2010/videos/competition_1/"
REMOTES = {
    "kth": (  # hashes as in visym/vipy, vipy/dataset/kthactions.py
        Remote(KTH + "walking.zip", "sha1:a3e81537271a0ab4576591774baa38c2d97b7e3a"),
        Remote(KTH + "jogging.zip", "sha1:21943bdbcef9dad106db0d74661e49eaeaa15a25"),
        Remote(KTH + "running.zip", "sha1:da83bb313edfd4455fffdda6263696fa10d43c6f"),
        Remote(KTH + "boxing.zip", "sha1:adb36ed9c29c846d44d2ba15f348bd115c951bbd"),
        Remote(KTH + "handwaving.zip", "sha1:0792f7cd69f7f895a205c08ac212ddaa7177e370"),
        Remote(KTH + "handclapping.zip", "sha1:d3b81261aa822ef63d0d1523f945bfaff27814d2"),
    ),
    "ucf50": (Remote(UCF + "UCF50.rar", size=3_233_554_570),),
    "ucf101": (
        Remote(UCF + "UCF101/UCF101.rar", "md5:6463accf4bbc20fa6418ab7f159e6149", 6_932_971_618),
        Remote(  # hash as in tensorflow/datasets, url_checksums/ucf101.txt
            UCF + "UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            "sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27", 113_943),
    ),
    "ut_interaction": (Remote(UT + "ut-interaction_segmented_set1.zip", size=13_265_124),),
}
HASHES_FILE = "downloads.sha256"


def fetch(name: str, progress: bool | None = None) -> Path:
    """Download the data set `name` to `data_root()/downloads/name` and return its folder.

    Every file is checked on every call, and downloaded again only where it does not fit: against
    its published hash; where none is published, against its size and the hash that the first
    download wrote to `downloads.sha256` (as `sha256sum -c` reads it). The progress bar is for a
    person at a terminal, silent elsewhere, unless `progress` says otherwise. UT-Interaction is
    sorted into class folders with a `groups.csv`; a rar is left for you to unpack beside itself.

    Raises DataError for a set without a stable address, a failed download, a wrong hash or size.
    """
    if name not in REMOTES:
        raise DataError(f"{name}: no stable address, it has to be downloaded by hand; its card in "
                        f"data/README.md says how. `fetch` knows {', '.join(REMOTES)}.")
    folder = data_root() / "downloads" / name
    paths = [_download(remote, folder, progress) for remote in REMOTES[name]]
    if name == "ut_interaction":
        return _sort_ut_interaction(paths[0], data_root() / name)
    return folder


def _download(remote: Remote, folder: Path, progress: bool | None) -> Path:
    path = folder / remote.name
    bar = sys.stderr.isatty() if progress is None else progress
    pooch.get_logger().setLevel("WARNING")  # it would write each address to stderr
    try:
        pooch.retrieve(remote.url, remote.known_hash or _first_hashes(folder).get(path.name),
                       path.name, folder, downloader=pooch.HTTPDownloader(progressbar=bar))
    except ValueError as error:  # pooch's word for a wrong hash; the file was not kept
        raise DataError(f"{path}: what {remote.url} sends is not the expected file ({error}). Try "
                        "again later; if it stays so, see the card in data/README.md.") from error
    except OSError as error:  # no network, a refused certificate, 404, disk full
        raise DataError(f"{path}: download from {remote.url} failed ({error}). Download it with a "
                        "browser, put it there and call fetch again to check it.") from error
    if remote.size not in (None, path.stat().st_size):
        raise DataError(f"{path}: {path.stat().st_size} bytes instead of {remote.size}, so cut off "
                        "or another file. Delete it and call fetch again.")
    if remote.known_hash is None and path.name not in _first_hashes(folder):
        _record_hash(path)
    return path


def _first_hashes(folder: Path) -> dict[str, str]:
    path = folder / HASHES_FILE
    lines = path.read_text().splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def _record_hash(path: Path) -> None:
    digest = pooch.file_hash(str(path))
    with (path.parent / HASHES_FILE).open("a") as file:
        file.write(f"{digest}  {path.name}\n")
    print(f"{path.name}: no published hash to compare with; sha256 {digest} noted in "
          f"{path.parent / HASHES_FILE}")


UT_LABELS = ("handshake", "hug", "kick", "point", "punch", "push")


def _sort_ut_interaction(path: Path, target: Path) -> Path:
    """`<number>_<sequence>_<label>.avi` of the zip into class folders and a `groups.csv`."""
    if target.is_dir():
        return target
    clips = sorted(_extracted([path]).rglob("*.avi"))
    rows = []
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".sorting-") as temporary:
        content = Path(temporary) / "content"
        for clip in clips:
            _, sequence, label = (int(part) for part in clip.stem.split("_"))
            (content / UT_LABELS[label]).mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, content / UT_LABELS[label])
            rows.append((UT_LABELS[label], clip.name, f"sequence_{sequence:02d}"))
        with (content / GROUPS_FILE).open("w", newline="") as file:
            csv.writer(file).writerows([("label", "file", "group"), *rows])
        _rename_into_place(content, target)
    return target
