"""The cache of arrays: keyed by everything, private, and made anew where it is damaged."""

from __future__ import annotations

import io
import os
import resource
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from helpers.data import cache

calls: list[object] = []


@dataclass(frozen=True)
class Spec:
    size: int


@cache.cached_array(ignore=("path",))
def _made(content: str, spec: Spec, options: dict, path: Path | None = None) -> np.ndarray:
    calls.append(content)
    return np.full((spec.size, 2), len(content), np.float16)


def entry(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "repository/.cache/arrays").rglob("*.npz")
    return path


@pytest.fixture(autouse=True)
def no_calls():
    calls.clear()


def test_the_same_arguments_are_made_once_and_any_other_anew():
    first = _made("abc", Spec(3), {"b": 1, "a": (2, 0.5)}, Path("here"))
    again = _made(content="abc", spec=Spec(3), options={"a": (2, 0.5), "b": 1}, path=Path("there"))
    assert len(calls) == 1 and np.array_equal(first, again) and again.dtype == np.float16
    _made("abd", Spec(3), {"b": 1, "a": (2, 0.5)})
    _made("abc", Spec(4), {"b": 1, "a": (2, 0.5)})
    _made("abc", Spec(3), {"b": 1, "a": (2, 0.25)})
    assert len(calls) == 4


def test_what_no_key_can_be_made_of_is_refused():
    with pytest.raises(TypeError, match="ndarray.*ignore"):
        _made("abc", Spec(3), {"crops": np.zeros(3)})


def huge_shape() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9999), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("array.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, array=np.array([{"code": "could run"}], dtype=object))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda data: data[: len(data) // 2], "a full disk, as an older version left it"),
        (lambda data: b"", "nothing"),
        (lambda data: data.replace(b"\x00\x42", b"\x00\x43"), "a flipped bit: the checksum shows it"),
        (lambda data: pickled(), "an array that would run code"),
        (lambda data: huge_shape(), "more than any memory"),
        (lambda data: data.replace(b"array", b"arraz"), "another content"),
    ],
)
def test_a_damaged_entry_is_made_anew(tmp_path, damage, reason):
    whole = _made("abc", Spec(3), {})
    data = entry(tmp_path).read_bytes()
    assert damage(data) != data, "the test damages something"
    entry(tmp_path).write_bytes(damage(data))
    assert np.array_equal(_made("abc", Spec(3), {}), whole) and len(calls) == 2, reason
    _made("abc", Spec(3), {})
    assert len(calls) == 2 and entry(tmp_path).read_bytes() == data, "and kept again"


def test_on_a_full_disk_the_array_is_made_and_not_kept(tmp_path):
    """A file that may not grow beyond 1 kB stands for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert _made("abc", Spec(5000), {}).shape == (5000, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in (tmp_path / "repository").rglob("*") if path.is_file()]
    _made("abc", Spec(5000), {})
    assert len(calls) == 2 and entry(tmp_path).stat().st_size > 20_000


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps a user's folders private by itself")
def test_the_cache_is_private_and_a_strangers_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    folder = tmp_path / "repository/.cache/arrays"
    folder.mkdir(parents=True, mode=0o777)
    folder.chmod(0o777)
    assert cache.cache_folder("arrays") == folder
    assert {stat.S_IMODE(place.stat().st_mode) for place in (folder, folder.parent)} == {0o700}
    if os.getuid() == 0:
        os.chown(folder, 12345, -1)
        assert tmp_path / "user" in cache.cache_folder("arrays").parents, "somebody else could have put anything there"
