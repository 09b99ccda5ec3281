"""Each test of data has its own cache and data root."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.data import cache, paths


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch, request):
    """Each test has its own cache and data root, unless it asks for the real data."""
    if "real_data" not in request.fixturenames:
        monkeypatch.setattr(cache, "REPOSITORY", tmp_path / "repository")
        monkeypatch.setenv("HAR_DATA", str(tmp_path / "data"))


@pytest.fixture
def real_data():
    """`find_dataset` on the machine's own data root; the test skips where a set is not there."""

    def find(name: str) -> Path:
        path = paths.find_dataset(name)
        if path is None:
            pytest.skip(f"{name} is not below {paths.data_root()}: see data/README.md")
        return path

    return find
