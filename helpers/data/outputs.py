"""Files that a command writes for its user: never the source, never half there, never two runs on one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote, urlsplit

from helpers.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: two runs on one output are not noticed there
    fcntl = None

NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def local_path(source: str | int | Path) -> Path | None:
    """The file or folder that a source names, also as `~/…` or `file://…`; None for a camera or another address."""
    text = str(source).strip()
    if text.lower().startswith("file:"):
        return Path(unquote(urlsplit(text).path))
    return None if "://" in text or text.isdecimal() else Path(text).expanduser()


def check_output(path: str | Path, *sources: str | int | Path) -> Path:
    """The file that `path` names, symbolic links followed, when it may be written.

    A regular file or nothing may be there: no folder, device or pipe. It must not be one of `sources`, nor lie in one
    that is a folder, whatever the names (hard links, `~`, `file://`). Raises OutputError.
    """
    shown, path = path, Path(os.path.realpath(Path(path).expanduser()))
    try:
        status = path.stat()
    except FileNotFoundError:
        return path
    except OSError as error:
        raise OutputError(f"{shown}: cannot be written ({error.strerror}). Choose another place.") from None
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"{shown}: is a folder, a device or a pipe, no file. Choose another name.")
    if not os.access(path, os.W_OK):
        raise OutputError(f"{shown}: is write-protected. Choose another name.")
    identity = (status.st_dev, status.st_ino)
    if any(identity in _identities(local_path(source)) for source in sources):
        raise OutputError(f"{shown}: is the source or a part of it and would be overwritten. Choose another name.")
    return path


def _identities(source: Path | None) -> Iterator[tuple[int, int]]:
    """(device, inode) of a file, or of every file below a folder."""
    if source is None:
        return
    for folder, _, names in os.walk(source):
        for name in names:
            with suppress(OSError):
                status = os.stat(os.path.join(folder, name))
                yield status.st_dev, status.st_ino
    with suppress(OSError, ValueError):
        status = source.stat()
        yield status.st_dev, status.st_ino


class OutputFile:
    """A file written beside its target; a context manager.

    What is at the target stays until `publish` puts the new file there; when that never comes, `close` removes the new
    file and nothing else. On Windows, where an open file cannot be renamed, publishing waits for `close`.

    path: the target, see `check_output`; missing folders are made. file: binary, unbuffered.
    Raises OutputError also when another run is writing to the target.
    """

    def __init__(self, path: str | Path, *sources: str | int | Path):
        self.path = check_output(path, *sources)
        self.beside = self.path.with_name(f".{self.path.name}.part")
        self._wanted = self.published = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self._claim()
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from None

    def _claim(self) -> FileIO:
        """The file beside the target, empty and locked."""
        file = os.fdopen(os.open(self.beside, os.O_RDWR | os.O_CREAT | NOFOLLOW, 0o666), "r+b", buffering=0)
        mine = False
        try:
            _lock(file.fileno(), self.path)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(self.beside)):
                raise FileNotFoundError(errno.ENOENT, "another run has just finished it")
            mine = True
            if self.path.exists():  # a run that has published holds the lock of the target
                with self.path.open("rb") as target:
                    _lock(target.fileno(), self.path)
            file.truncate(0)  # what a killed run left
        except BaseException:
            file.close()
            if mine:
                self.beside.unlink()
            raise
        return file

    def write(self, data: bytes) -> None:
        """Append all of `data` or nothing. Raises OutputError when the disk is full or the file is gone."""
        size, left = self.file.tell(), memoryview(data)
        try:
            os.stat(self.path if self.published else self.beside)  # the file or its folder may have been removed
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self.file.truncate(size)
                self.file.seek(size)
            raise _no_longer(self.path, error) from None

    def publish(self) -> None:
        """Take the target's place; once."""
        self._wanted = True
        if not self.published and (fcntl or self.file.closed):
            try:
                os.replace(self.beside, self.path)
            except OSError as error:
                raise _no_longer(self.path, error) from None
            self.published = True

    def close(self) -> None:
        """Finish; safe to call again."""
        self.file.close()
        if self.published:
            return
        with suppress(OSError, OutputError):
            if self._wanted:
                self.publish()
            else:
                self.beside.unlink(missing_ok=True)

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _no_longer(path: str | Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written any more ({error.strerror}).")


def _lock(descriptor: int, path: Path) -> None:
    """Until the descriptor is closed, also by the death of the process."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path}: another run is writing to it. Wait for its end or choose another name.") from None
    except OSError:  # a file system without locks
        pass


@contextmanager
def written(path: str | Path, *sources: str | int | Path) -> Iterator[TextIO]:
    """A text file (UTF-8, line ends as written) that takes the place of `path` when the block ends without an error.

    Raises OutputError naming the path, also when the disk is full.
    """
    with OutputFile(path, *sources) as output:
        try:
            with open(output.file.fileno(), "w", newline="", encoding="utf-8", closefd=False) as text:
                yield text
        except OSError as error:
            raise _no_longer(path, error) from None
        output.publish()


def free_name(folder: Path, stem: str, *suffixes: str) -> str:
    """`stem`, or `stem-2`, `stem-3`, …: the first for which no file with any of the suffixes is in `folder`."""
    number, name = 1, stem
    while any((folder / f"{name}{suffix}").exists() for suffix in suffixes):
        number += 1
        name = f"{stem}-{number}"
    return name
