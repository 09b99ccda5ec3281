"""Synthetic people, faces and clips, painted from seeds: the same arguments always give the same pixels."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def generator_version() -> str:
    """Eight hexadecimal digits that change with any file of this folder: what caches of its images are keyed by."""
    return version_of(Path(__file__).parent)


def version_of(folder: Path) -> str:
    """Eight hexadecimal digits over names and content of all Python files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]
