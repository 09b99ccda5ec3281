"""Imports run one way: errors <- data, runtime, training, synthetic <- action, emotion <- evaluate <- live, train."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter

import pytest

from helpers.data.paths import REPOSITORY

LAYERS = {  # rooms and modules of helpers/ by layer; each may import its own layer and those below
    "errors": 0,
    "console": 0,
    "data": 1,
    "runtime": 1,
    "keras2": 1,
    "keras_files": 1,
    "model_files": 1,
    "training": 1,
    "distributed": 1,
    "predictions": 1,
    "smoothing": 1,
    "synthetic": 1,
    "action": 2,
    "emotion": 2,
    "evaluate": 3,
    "live": 4,
    "train": 4,
    "benchmark": 4,
}
HEAVY = ("sklearn", "pandas", "matplotlib", "scipy", "keras", "tensorflow")  # what the live system runs without
FOLDER = REPOSITORY / "helpers"
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(FOLDER.rglob("*.py"))
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def imports(module: str, top_level: bool = False) -> frozenset[str]:
    """Modules of this repository that `module` imports; with `top_level` only those that its own import loads."""
    tree, found = ast.parse(MODULES[module].read_text(encoding="utf-8")), set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return frozenset(name for name in found if name.split(".")[0] in ("helpers", "tools", "tests", "notebooks"))


@pytest.mark.parametrize("module", [name for name in MODULES if name != "helpers"])
def test_a_module_imports_nothing_above_it(module):
    layer = LAYERS[room(module)]  # a new room needs its place above
    for name in imports(module):
        assert name.startswith("helpers."), f"{module} imports {name}, which is no part of the package"
        assert LAYERS[room(name)] <= layer, f"{module} imports {name}, which lies above it"
    if room(module) == "errors":
        assert not imports(module)


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in ("action", "emotion")])
def test_neither_task_imports_the_other(module):
    other = {"action": "emotion", "emotion": "action"}[room(module)]
    assert not [name for name in imports(module) if room(name) == other]


def test_there_is_no_import_circle():
    TopologicalSorter({name: imports(name, top_level=True) for name in MODULES}).prepare()


def test_everything_in_helpers_has_a_first_line_that_says_its_job():
    for module, path in MODULES.items():
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc and doc.splitlines()[0].endswith((".", ")")) and len(doc.splitlines()[0]) > 20, module


def test_no_module_uses_what_is_private_to_another():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("helpers"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"{module} imports {', '.join(private)} of {node.module}"


def test_the_live_system_loads_nothing_heavy():
    rooms = "helpers.live.__main__, helpers.live.pipeline, helpers.live.session"
    code = f"import sys, {rooms}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
