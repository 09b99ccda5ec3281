"""artifacts/manifest.json: a checksum per committed artifact."""

from __future__ import annotations

import json

import pooch

from helpers.data.paths import ARTIFACTS
from helpers.model_files import read_json

MANIFEST = ARTIFACTS / "manifest.json"


def _hashes() -> dict[str, str]:
    files = sorted(p for p in ARTIFACTS.rglob("*") if p.is_file() and p != MANIFEST and not p.name.startswith("."))
    return {p.relative_to(ARTIFACTS).as_posix(): pooch.file_hash(str(p)) for p in files}


def write_manifest() -> None:
    """Write artifacts/manifest.json: the SHA-256 of every file below artifacts/."""
    MANIFEST.write_text(json.dumps(_hashes(), indent=1) + "\n")


def check_manifest() -> list[str]:
    """What differs between artifacts/ and its manifest, a sentence each; empty when all is as it was written."""
    recorded, present = read_json(MANIFEST, "not found; restore it from git"), _hashes()
    return [
        f"{name}: {'missing' if name not in present else 'not in the manifest' if name not in recorded else 'changed'}"
        for name in sorted({*recorded, *present})
        if recorded.get(name) != present.get(name)
    ]
