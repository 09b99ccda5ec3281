"""tools.manifest: what is listed, and what differs from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tools import manifest


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """An artifacts folder of its own with its manifest."""
    monkeypatch.setattr(manifest, "ARTIFACTS", tmp_path)
    monkeypatch.setattr(manifest, "MANIFEST", tmp_path / "manifest.json")
    (tmp_path / "action" / "a").mkdir(parents=True)
    (tmp_path / "action" / "a" / "labels.json").write_text("[]")
    (tmp_path / "README.md").write_text("about")
    manifest.write_manifest()
    return tmp_path


def test_the_manifest_lists_every_file_once(tree):
    assert sorted(json.loads((tree / "manifest.json").read_text())) == ["README.md", "action/a/labels.json"]
    assert manifest.check_manifest() == []


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda tree: (tree / "README.md").write_text("changed"), ["README.md: changed"]),
        (lambda tree: (tree / "README.md").unlink(), ["README.md: missing"]),
        (lambda tree: (tree / "action" / "new.npz").write_bytes(b"x"), ["action/new.npz: not in the manifest"]),
        (lambda tree: (tree / ".DS_Store").write_bytes(b"x"), []),
        (lambda tree: shutil.rmtree(tree / "action"), ["action/a/labels.json: missing"]),
    ],
    ids=["changed", "missing", "extra", "hidden", "folder gone"],
)
def test_what_differs_from_the_manifest_is_told(tree, change, expected):
    change(tree)
    assert manifest.check_manifest() == expected


@pytest.mark.skipif(not manifest.MANIFEST.is_file(), reason="artifacts/manifest.json is not written yet")
def test_the_committed_artifacts_are_those_of_the_manifest():
    assert manifest.check_manifest() == []
