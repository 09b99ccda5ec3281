"""Folders and zips to labelled, grouped samples."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.data.files import (
    GROUPS_FILE,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    is_media,
    is_zip,
    printable,
    read_csv,
    subfolders,
    visible_entries,
    why_unreadable,
)
from helpers.data.zips import extracted
from helpers.errors import DataError

_DEEPEST = 5  # zips and folders around each other, outside the class folders


@dataclass(frozen=True)
class Sample:
    """One labelled file. Files with the same `group` must stay on one side of a split."""

    path: Path
    label: str
    group: str

    def __post_init__(self) -> None:
        if not self.label or not self.group:
            raise DataError(f"{printable(self.path)}: a sample needs a label and a group, both not empty.")


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why."""

    path: Path
    reason: str


def class_folders(source: Path | str) -> Path:
    """A folder with one sub-folder per class, from any layout in which data sets come.

    `source` is a folder of class folders, a folder of zips (one per class, named after it), or
    one zip of class folders. A single folder (or zip) wrapped around the classes is stepped into.
    Zips are extracted once, see `extracted`. Raises DataError when `source` does not exist,
    holds no class, or holds a zip that cannot be used.
    """
    folder = _unwrapped(_opened(Path(source)))
    zips = [p for p in visible_entries(folder) if is_zip(p)]
    if not subfolders(folder) and zips:
        return extracted(zips, folder / GROUPS_FILE)
    if not subfolders(folder):
        raise DataError(
            f"{printable(source)}: no class folder in it. Expected one folder (or one zip) per class, named after the "
            "class, with the files of that class inside."
        )
    return folder


def _opened(source: Path) -> Path:
    """`source` itself when it is a folder, its extracted content when it is a zip."""
    if source.is_dir():
        return source
    if not source.exists():
        raise DataError(f"{printable(source)}: no such file or folder. data/README.md says how to get each data set.")
    if source.suffix.lower() == ".rar":
        raise DataError(
            f"{source}: Python cannot read rar. Unpack it (`unrar x`, 7-Zip or `bsdtar -xf`) and give the folder."
        )
    if not is_zip(source):
        raise DataError(
            f"{printable(source)}: a single file. Expected a folder (or a zip) with one folder per class; a table of "
            "pixels such as fer2013.csv is not read: get fer2013.zip with its images, see data/README.md."
        )
    return extracted([source])


def _unwrapped(folder: Path) -> Path:
    """Step into a lone folder or zip that holds the classes (`UCF50/UCF50/<class>/...`)."""
    for _ in range(_DEEPEST):
        inner = subfolders(folder) or [p for p in visible_entries(folder) if is_zip(p)]
        rar = [p for p in visible_entries(folder) if p.suffix.lower() == ".rar"]
        if rar and not subfolders(folder):
            return _opened(rar[0])  # raises: says how to unpack
        if len(inner) != 1 or not _holds_classes(content := _opened(inner[0])):
            return folder
        folder = content
    raise DataError(
        f"{printable(folder)}: more than {_DEEPEST} zips or folders around each other, and no class folder."
    )


def _holds_classes(folder: Path) -> bool:
    entries = visible_entries(folder)
    return any(p.is_dir() or is_zip(p) for p in entries) and not any(map(is_media, entries))


def list_samples(
    source: Path | str,
    suffixes: Iterable[str] = VIDEO_SUFFIXES | IMAGE_SUFFIXES,
    skipped: list[Skipped] | None = None,
    *,
    grouped: bool = True,
) -> list[Sample]:
    """The labelled files of `source` (any layout of `class_folders`), sorted by label and name.

    The label is the class folder's name. The group comes from `groups.csv` beside the class
    folders (columns label,file,group), else from the file name, see `group_of_name`.
    `grouped=False` ignores `groups.csv`: for scoring, where nothing is split.

    Nothing is left out silently: empty class folders and files of other kinds are appended to
    `skipped`; without that list the first of them raises DataError. So does a source without any
    usable file, and a `groups.csv` that does not name exactly the files that are there.
    """
    root = class_folders(source)
    left_out = [
        Skipped(p, "lies beside the class folders, so it belongs to no class")
        for p in visible_entries(root)
        if is_media(p) or is_zip(p)
    ]
    files = [path for folder in subfolders(root) for path in _class_files(folder, frozenset(suffixes), left_out)]
    if not files:
        raise DataError(
            f"{printable(source)}: no usable file in its folders "
            f"({', '.join(printable(p.name) for p in subfolders(root)[:5])}). Expected "
            f"{' '.join(sorted(suffixes))} directly in one folder per class."
        )
    if skipped is None and left_out:
        raise DataError(f"{printable(left_out[0].path)}: {left_out[0].reason}. Mend it or move it away.")
    if skipped is not None:
        skipped.extend(left_out)
    groups = _read_groups(root) if grouped else None
    return [_sample(path, groups) for path in files]


def _class_files(folder: Path, suffixes: frozenset[str], left_out: list[Skipped]) -> list[Path]:
    entries, files = visible_entries(folder), []
    for path in entries:
        if path.is_dir():
            left_out.append(Skipped(path, "a folder inside a class folder"))
        elif path.suffix.lower() not in suffixes:
            left_out.append(Skipped(path, f"not one of {' '.join(sorted(suffixes))}"))
        elif why := why_unreadable(path):
            left_out.append(Skipped(path, why))
        else:
            files.append(path)
    if not entries:
        left_out.append(Skipped(folder, "a class folder with nothing in it"))
    return files


def _sample(path: Path, groups: Mapping[tuple[str, str], str] | None) -> Sample:
    label = _composed(path.parent.name)
    if groups is None:
        return Sample(path, label, group_of_name(path.name, label))
    name = _composed(path.name)
    if (label, name) not in groups:
        raise DataError(f"{path}: {GROUPS_FILE} has no row for it. Add `{label},{name},<its group>`.")
    return Sample(path, label, groups[label, name])


def _composed(name: str) -> str:
    """macOS writes an ä as a and two dots, people write ä: the same name for labels and tables."""
    return unicodedata.normalize("NFC", name)


def _read_groups(root: Path) -> dict[tuple[str, str], str] | None:
    """`root/groups.csv` as {(label, file name): group}, None when there is no such file.

    Raises DataError naming the line when a column or cell is missing, when a row names a file that is not there, and
    when two rows put one file into two groups.
    """
    path = root / GROUPS_FILE
    if not path.is_file():
        return None
    there = {(_composed(folder.name), _composed(p.name)) for folder in subfolders(root) for p in folder.iterdir()}
    groups: dict[tuple[str, str], str] = {}
    for line, row in read_csv(path, ("label", "file", "group")):
        label, file, group = (_composed(row[column]) for column in ("label", "file", "group"))
        if not group:
            raise DataError(f"{path}: line {line} gives {label}/{file} no group; a group is not empty.")
        if groups.setdefault((label, file), group) != group:
            raise DataError(
                f"{path}: line {line} puts {label}/{file} into {group!r}, an earlier line into another group."
            )
        if (label, file) not in there:
            raise DataError(
                f"{path}: line {line} names {label}/{file}, which is not there. Restore the file or delete the row."
            )
    return groups


# File names that say who or what is shown; the first pattern that fits gives the group.
_GROUP_PATTERNS = (
    re.compile(r"_(g\d+)_"),  # UCF50, UCF101: v_Biking_g07_c03.avi
    re.compile(r"^((?:person|subject|actor|p|s)\d+)[_-]", re.I),  # person07_, CK+ S010_, own p3_
    re.compile(r"^(\d\d)\d\d[a-z]\d\d\."),  # TFEID: 0111b01.jpg is performer 01
)


def group_of_name(name: str, label: str) -> str:
    """The group that a file name tells, else `label/name`: the file as a group of its own.

    Known: UCF's `_gNN_`, a person prefix (`person07_`, `S010_`, `p3_`), TFEID's first two digits,
    ARID's `<class>_<scene>_<clip>`, Weizmann's `<person>_<class>`. A file as its own group means
    that nobody knows better: clips cut from one video, or photos of one person, may then fall on
    both sides of a split and make a result look better than it is. A `groups.csv` prevents that.
    """
    word = re.escape(label)
    with_class = (rf"((?:.+_)?{word}_\d+)_\d+\.", rf"(.+)_{word}\d*\.")
    for pattern in (*_GROUP_PATTERNS, *(re.compile("^" + p, re.I) for p in with_class)):
        if match := pattern.search(name):
            return match[1]
    return f"{label}/{name}"


def list_split(source: Path | str, split: str, skipped: list[Skipped] | None = None) -> list[Sample]:
    """One part ("train", "test") of a set that comes as such folders or a zip of them: FER-2013.

    Raises DataError when there is no such part, and as `list_samples` does.
    """
    root = _unwrapped(_opened(Path(source)))
    for folder in subfolders(root):
        if folder.name.lower() == split.lower():
            return list_samples(folder, skipped=skipped)
    raise DataError(f"{source}: no folder {split!r} in it, only {[p.name for p in visible_entries(root)][:10]}.")


def count_table(splits: Mapping[str, Iterable[Sample]]) -> dict[str, dict[str, int]]:
    """Numbers of samples as {label: {split: count}}, labels sorted, for a notebook to print."""
    counts = {split: Counter(s.label for s in samples) for split, samples in splits.items()}
    return {label: {split: counts[split][label] for split in splits} for label in sorted(set().union(*counts.values()))}
