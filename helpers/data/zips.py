"""Zip archives unpacked once, safely, into a cache."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from helpers.data.cache import cache_folder
from helpers.data.files import is_system_name, printable, subfolders, visible_entries, why_unreadable
from helpers.errors import DataError

_INVENTORY = ".inventory"  # hidden from readers, written last
_FREE_SHARE = 0.9  # of the disk's free space may be filled
_MOST_EXPANSION, _SMALL_BYTES = 100, 100_000_000  # images and videos hardly shrink: a zip that grows more is a bomb


def extracted(zips: list[Path], groups_file: Path | None = None) -> Path:
    """The content of one zip, or a folder for each of several zips, extracted once into a cache.

    The cache folder is keyed by each zip's path, size and time of change, so a replaced zip is extracted anew. Work is
    done in a temporary folder that is renamed at the end: an interrupted run leaves nothing that is taken for whole.
    Raises DataError naming a zip that is damaged, would write outside its folder, or does not fit on the disk.
    """
    for path in zips:
        if why := why_unreadable(path):
            raise DataError(f"{printable(path)}: {why}.")
    stem = zips[0].parent.name if groups_file else zips[0].stem
    cache = cache_folder("extracted")
    folder = cache / f"{stem[:40]}-{_fingerprint(zips)}"
    if folder.is_dir() and _is_whole(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    _sweep(cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f"unpacking-{os.getpid()}-") as temporary:
        content = Path(temporary) / "content"
        for path in zips:
            _extract(path, content / path.stem if groups_file else content)
        if groups_file:
            _finish_classes(content, groups_file)
        (content / _INVENTORY).write_text(_inventory(content))
        rename_into_place(content, folder)
    return folder


def _inventory(folder: Path) -> str:
    """Number of files and their bytes, the inventory itself left out: what is missing or cut off shows."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names if name != _INVENTORY]
    return f"{len(paths)} files, {sum(os.stat(path).st_size for path in paths)} bytes"


def _is_whole(folder: Path) -> bool:
    try:
        return (folder / _INVENTORY).read_text() == _inventory(folder)
    except OSError:
        return False


def _fingerprint(zips: list[Path]) -> str:
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in zips]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def _sweep(cache: Path) -> None:
    """Remove what killed processes left half unpacked."""
    import psutil  # here: only an unpacking needs it

    for folder in cache.glob("unpacking-*"):
        maker = folder.name.split("-")[1]
        if not (maker.isdecimal() and psutil.pid_exists(int(maker))):
            shutil.rmtree(folder, ignore_errors=True)


def _extract(path: Path, target: Path) -> None:
    """Write the members of the zip `path` below `target`; DataError if impossible or unsafe."""
    try:
        with zipfile.ZipFile(path) as archive:
            # PureWindowsPath reads both kinds of slash, and knows drives: `..\\x`, `C:\\x`, `/x`
            members = [(m, PureWindowsPath(m.filename)) for m in archive.infolist()]
            for member, name in members:
                if name.anchor or ".." in name.parts:
                    raise DataError(
                        f"{path}: its member {member.filename!r} would be written outside the target folder. Do not "
                        "trust this zip; get it from the data set's own source."
                    )
            target.mkdir(parents=True, exist_ok=True)
            _check_size(path, sum(member.file_size for member, _ in members), shutil.disk_usage(target).free)
            for member, name in members:
                if not any(is_system_name(part) for part in name.parts):
                    _write_member(archive, member, target.joinpath(*name.parts))
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, UnicodeError) as error:
        raise DataError(f"{path}: not a usable zip ({error}). Download it again.") from error
    except RuntimeError as error:  # encrypted, or packed by a method that Python does not know
        raise DataError(
            f"{path}: Python cannot unpack it ({error}). Unpack it yourself and give the folder."
        ) from error
    except OSError as error:
        if error.errno is None:  # bz2's word for damage
            raise DataError(f"{path}: not a usable zip ({error}). Download it again.") from error
        raise DataError(f"{path}: cannot be unpacked ({error.strerror}).") from error


def _check_size(path: Path, size: int, free: int) -> None:
    """size: bytes of all members together; a member never gives more than its header says."""
    if size > max(_SMALL_BYTES, _MOST_EXPANSION * path.stat().st_size):
        raise DataError(
            f"{path}: its {path.stat().st_size:,} bytes would become {size:,}, which no data set does. Do not trust it."
        )
    if size > _FREE_SHARE * free:
        raise DataError(f"{path}: unpacked it takes {size:,} bytes, the disk has {free:,} left. Make room, try again.")


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if member.filename.endswith(("/", "\\")):
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def _finish_classes(content: Path, groups_file: Path) -> None:
    """`walking.zip` may hold its files, or a folder `walking/` with them: make both alike."""
    for folder in subfolders(content):
        inner = visible_entries(folder)
        if len(inner) == 1 and inner[0].is_dir():
            inner[0].rename(content / ".wrapped")
            shutil.rmtree(folder)
            (content / ".wrapped").rename(folder)
    if groups_file.is_file():
        shutil.copy(groups_file, content)


def rename_into_place(content: Path, folder: Path) -> None:
    try:
        content.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first: its result is the same
            raise
