"""The committed notebooks keep the rules, the rules catch what they are for, and training runs on the samples."""

from __future__ import annotations

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.errors import DataError
from tools import notebooks
from tools.notebooks import FOLDER, METADATA, NAVIGATION, NOTEBOOKS, navigation, problems, with_navigation

COMMITTED = notebooks.notebook_paths()
TRAINING = [path for path in COMMITTED if path.name[:2] in ("02", "04", "05")]


def printed(text, count=1, source="print()", name="stdout"):
    return new_code_cell(source, execution_count=count, outputs=[new_output("stream", name=name, text=text)])


def shown(source, **data):
    return new_code_cell(source, execution_count=1, outputs=[new_output("display_data", data)])


def figure(count):
    return new_code_cell("plot()", execution_count=count, outputs=[new_output("display_data", {"image/png": "iVBO"})])


def save(folder, cells, metadata=METADATA, navigated=True, name="01_frames_and_augmentation"):
    notebook = new_notebook(cells=cells, metadata=metadata)
    if navigated:
        notebook.cells = with_navigation(name, notebook)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


# --------------------------------------------------------------------------------------------------- the committed ones


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_notebook_keeps_every_rule(path):
    assert problems(path) == []


def test_no_notebook_lies_outside_the_series():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} <= set(NOTEBOOKS)


@pytest.mark.training
@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_the_smoke_profile_really_trains(path, monkeypatch):
    """Asserts inside the notebook check shapes, saving, loading and learning; here it must get through."""
    monkeypatch.setenv("HAR_PROFILE", "smoke")
    monkeypatch.setenv("HAR_DATA", str(path.parent / "no_data_here"))
    before = path.read_bytes()
    executed = notebooks.run(path)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert path.read_bytes() == before, "a smoke run must not replace the real results"


# --------------------------------------------------------------------------------------------------- each rule catches

GOOD = [new_markdown_cell("# Title"), printed("1\n")]
BROKEN = [  # what is wrong, the cells, a part of the report, why it matters
    ("not run", [new_code_cell("1 + 1")], "not run top to bottom", "outputs may be older than the code"),
    (
        "run out of order",
        [printed("", 2), printed("", 1)],
        "not run top to bottom",
        "it may not work from a fresh start",
    ),
    ("run twice", [printed("", 3)], "not run top to bottom", "state of an earlier run may be needed"),
    (
        "an error",
        [
            new_code_cell(
                "1 / 0",
                execution_count=1,
                outputs=[new_output("error", ename="ZeroDivisionError", evalue="", traceback=["division"])],
            )
        ],
        "an error: ZeroDivisionError",
        "a reader sees a traceback",
    ),
    ("stderr", [printed("warning: old\n", name="stderr")], "stderr: warning: old", "log lines differ from run to run"),
    ("a path in an output", [printed("read /home/ada/clip.mp4\n")], "/home/ada/clip.mp4", "tells whose machine it was"),
    (
        "a path in the code",
        [printed("", source="open('/tmp/x/clip.mp4')")],
        "/tmp/x/clip.mp4",
        "works on one machine only",
    ),
    ("a Windows path", [printed("read C:\\Users\\ada\n")], "C:\\Users", "the same on Windows"),
    ("a path in a table", [shown("table", **{"text/html": "<td>/home/ada/x</td>"})], "/home/ada/x", "HTML is read too"),
    ("a path in prose", [new_markdown_cell("see /home/ada/notes"), printed("")], "/home/ada/notes", "prose too"),
    (
        "a long cell",
        [printed("", source="\n".join(["x = 1"] * 21))],
        "21 lines in a cell, at most 20",
        "does not fit a screen",
    ),
    ("a long line", [printed("", source=f"x = '{'a' * 120}'")], "126 characters in a line", "has to be scrolled"),
    ("many words", [new_markdown_cell("word " * 1400), printed("")], "words, at most 1300", "a quarter of an hour"),
    (
        "many words in an output",
        [shown("table", **{"text/markdown": "word " * 1400})],
        "words, at most 1300",
        "a generated table is read, too",
    ),
    ("many cells", [printed("", count) for count in range(1, 20)], "19 code cells, at most 18", "a quarter of an hour"),
    (
        "many figures",
        [printed("", count=1), *(figure(count) for count in range(2, 11))],
        "9 figures, at most 8",
        "a quarter of an hour",
    ),
    ("a long output", [printed("row\n" * 26)], "26 lines of output", "hides what comes after it"),
    (
        "a long value",
        [shown("table", **{"text/plain": "row\n" * 26})],
        "26 lines of output",
        "a value counts like a print",
    ),
    ("too large", [shown("plot", **{"image/png": "A" * 1_600_000})], "1.6 MB", "slow to open and to review"),
]


def test_a_good_notebook_has_no_problems(tmp_path):
    assert problems(save(tmp_path, GOOD)) == []


@pytest.mark.parametrize("cells, report", [row[1:3] for row in BROKEN], ids=[f"{row[0]}: {row[3]}" for row in BROKEN])
def test_a_broken_rule_is_reported_once_with_the_file(cells, report, tmp_path):
    found = problems(save(tmp_path, cells))
    assert len(found) == 1, found
    assert report in found[0] and found[0].startswith("01_frames_and_augmentation.ipynb: ")


HARMLESS = [
    ("a link", "see https://home/tmp/page"),
    ("a relative path", "../data/clip.mp4 and data/tmp/x"),
    ("a device", "/dev/video0 and /usr/bin/python"),
    ("a fraction", "3/4 and/or 1/2"),
    ("user's home", "~/data/tmp"),
]


@pytest.mark.parametrize("text", [row[1] for row in HARMLESS], ids=[row[0] for row in HARMLESS])
def test_what_only_looks_like_a_path_is_not_reported(text, tmp_path):
    assert problems(save(tmp_path, [printed(text + "\n")])) == []


def test_another_kernel_is_reported(tmp_path):
    metadata = {"kernelspec": {"name": "my-venv", "display_name": "mine"}}
    assert ["my-venv" in text for text in problems(save(tmp_path, GOOD, metadata))] == [True]


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda cells: cells[1:], "first cell is gone"),
        (lambda cells: cells[:-1], "last cell is gone"),
        (lambda cells: [*cells, new_markdown_cell("more")], "it is not the last cell any more"),
        (lambda cells: [{**cells[0], "source": "[Contents](old.md)"}, *cells[1:]], "links are of an older series"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_old_navigation_is_reported_and_mended(change, why, tmp_path):
    path = save(tmp_path, GOOD)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = nbformat.from_dict(change(notebook.cells))
    nbformat.write(notebook, path)
    assert ["navigation" in text for text in problems(path)] == [True], why
    notebooks.write_navigation([path])
    assert problems(path) == []


def test_navigation_is_written_once(tmp_path):
    path = save(tmp_path, GOOD)
    once = path.read_bytes()
    notebooks.write_navigation([path])
    assert path.read_bytes() == once
    assert [
        cell.id for cell in nbformat.read(path, as_version=4).cells if NAVIGATION in cell.metadata.get("tags", [])
    ] == ["navigation-top", "navigation-bottom"]


@pytest.mark.parametrize(
    "name, links",
    [
        ("00_tour", ["../README.md", "01_frames_and_augmentation.ipynb"]),
        ("03_face_alignment", ["02_action_training.ipynb", "../README.md", "04_emotion_training.ipynb"]),
        ("07_live_webcam", ["06_evaluation.ipynb", "../README.md"]),
    ],
)
def test_navigation_leads_to_the_neighbours(name, links):
    assert [part.split(")")[0] for part in navigation(name).split("](")[1:]] == links


# --------------------------------------------------------------------------------------------------- running


def test_a_run_starts_afresh_and_leaves_out_what_changes(tmp_path):
    source = "import helpers, os\nprint(os.path.basename(os.getcwd()) == FOLDER)".replace("FOLDER", repr(tmp_path.name))
    path = save(tmp_path, [new_code_cell(source), printed("old\n", 7, "print('new')")], metadata={})
    notebooks.execute([path])
    saved = nbformat.read(path, as_version=4)
    assert problems(path) == []
    assert [cell.outputs[0].text for cell in saved.cells if cell.cell_type == "code"] == ["True\n", "new\n"]
    assert saved.metadata == METADATA and all(set(cell.metadata) <= {"tags"} for cell in saved.cells)
    once = path.read_bytes()
    notebooks.execute([path])
    assert path.read_bytes() == once


def test_a_failing_notebook_is_not_saved(tmp_path):
    path = save(tmp_path, [new_code_cell("1 / 0")])
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute([path])
    assert path.read_bytes() == before


def test_the_length_of_a_notebook_is_counted(tmp_path, capsys):
    picture = shown("plot()\nplot()", **{"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})
    table = shown("table()", **{"text/markdown": "three more words"})
    path = save(tmp_path, [new_markdown_cell("# A title of\nsix words"), picture, table], navigated=False)
    assert notebooks.sizes(nbformat.read(path, as_version=4)) == {
        "words": 8,
        "code cells": 2,
        "lines in a cell": 2,
        "characters in a line": 7,
        "figures": 1,
    }
    notebooks.main(["--check", "00"])
    assert capsys.readouterr().out.startswith("00_tour ")


def test_the_check_ends_with_a_status_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    save(tmp_path, GOOD)
    assert notebooks.main(["--check"]) == 0
    save(tmp_path, [new_markdown_cell("word " * 1400), printed("")])
    assert notebooks.main(["--check"]) == 1


def test_the_command_line_names_the_notebooks_it_knows(capsys):
    with pytest.raises(DataError, match="99"):
        notebooks.notebook_paths(["99"])
    assert notebooks.main(["--check", "99"]) == 2
    assert "no notebook '99'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "packages, start, why",
    [
        (("numpy", "opencv-python"), "[OK] numpy 2", "pinned and installed, opencv perhaps as its headless variant"),
        (
            ("no-such-package",),
            "[FAIL] not as in requirements.txt: no-such-package is missing",
            "says which and what to do",
        ),
        (("pip",), "[FAIL]", "installed, but nobody pinned it"),
    ],
)
def test_the_environment_line(packages, start, why):
    assert notebooks.environment(*packages).startswith(start), why
