"""What takes minutes to make, kept on disk: private folders, and arrays keyed by everything that they are made from."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np

from helpers.data.files import whole_file
from helpers.data.paths import REPOSITORY
from helpers.errors import DataError


def cache_folder(name: str) -> Path:
    """`.cache/<name>` of this repository, made on first use; below the user's own cache where that is not possible.

    Only this user may enter it, and it is this user's: nobody else can have put anything there. Raises DataError when
    there is no such place.
    """
    for place in (REPOSITORY / ".cache", _user_cache()):
        try:
            for folder in (place, place / name):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _make_private(folder)
            return place / name
        except OSError as error:
            problem = f"{folder} ({error.strerror or error})"
    raise DataError(f"{problem}: nothing can be kept there; make it a folder of yours.")


def _user_cache() -> Path:
    import pooch  # here: the live system starts without it

    return Path(pooch.os_cache("human-action-emotion"))


def _make_private(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows keeps a user's folders private by itself
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(0, "belongs to another user")
    folder.chmod(0o700)


def cached_array(ignore: tuple[str, ...] = ()) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """A decorator: the array that a function gives is made once for the same arguments and kept below `.cache/arrays`.

    The key is the function's name and source and all arguments but those in `ignore`: numbers, text, tuples, dicts and
    dataclasses of them. Files are .npz, which can hold no code and whose checksums show any damage: a damaged one is
    made anew. The function itself stays reachable as `__wrapped__`.
    """

    def decorate(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        signature = inspect.signature(function)
        source = inspect.getsource(function)

        @functools.wraps(function)
        def wrapper(*args, **kwargs) -> np.ndarray:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            told = {name: value for name, value in bound.arguments.items() if name not in ignore}
            key = hashlib.sha256((source + json.dumps(told, sort_keys=True, default=_plain)).encode()).hexdigest()
            path = cache_folder("arrays") / function.__name__.strip("_") / f"{key[:32]}.npz"
            array = _read_array(path)
            if array is None:
                array = function(*args, **kwargs)
                path.parent.mkdir(mode=0o700, exist_ok=True)
                with (
                    suppress(OSError),
                    whole_file(path) as part,
                    part.open("wb") as file,
                ):  # a full disk: made, not kept
                    np.savez(file, array=array)
            return array

        return wrapper

    return decorate


def _plain(value: object) -> object:
    if is_dataclass(value):
        return [type(value).__name__, asdict(value)]
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be part of a cache's key; name it in `ignore`, or pass its hash")


def _read_array(path: Path) -> np.ndarray | None:
    """The kept array; None when there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["array"]
    except (OSError, EOFError, KeyError, ValueError, MemoryError, zipfile.BadZipFile):
        return None


def content_key(samples: list) -> str:
    """SHA-256 over the content of the samples' files: a changed, added or removed file never reads an old entry."""
    digest = hashlib.sha256()
    for sample in samples:
        with sample.path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def weights_key(model) -> str:
    """SHA-256 over a Keras model's weights."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
