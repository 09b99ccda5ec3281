"""No cache of synthetic images survives a change of what paints them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import synthetic
from helpers.data import cache
from helpers.synthetic import samples

PAINTERS = sorted(path.name for path in Path(synthetic.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", PAINTERS)
def test_one_changed_byte_of_a_painter_changes_the_version(tmp_path, name):
    folder = shutil.copytree(Path(synthetic.__file__).parent, tmp_path / "synthetic")
    assert synthetic.version_of(folder) == synthetic.generator_version()
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    assert synthetic.version_of(folder) != synthetic.generator_version()


def test_nothing_outside_the_folder_paints():
    """What the painters import of this package, apart from each other, only reads and writes files."""
    code = "import sys, helpers.synthetic.samples; print(*(m for m in sys.modules if m.startswith('helpers.')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    inside = {f"helpers.synthetic.{name.removesuffix('.py')}" for name in PAINTERS if name != "__init__.py"}
    files_only = {f"helpers.data.{name}" for name in ("cache", "files", "images", "paths", "videos")}
    assert inside <= set(loaded)
    assert set(loaded) - inside <= files_only | {"helpers.data", "helpers.errors", "helpers.synthetic"}


def test_every_cache_is_named_after_the_version():
    places = [
        samples.cached_action_samples(range(1), ("run",), size=(48, 64)),
        samples.cached_emotion_samples(per_class=1),
        samples.demo_clip(),
    ]
    assert all(synthetic.generator_version() in place.name for place in places)
    assert {place.parent for place in places} == {cache.cache_folder("synthetic")}
