"""Notebook 00's map of the assignment leads to headings that exist, and below them stands what it promises."""

from __future__ import annotations

from dataclasses import replace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import assignment
from tools.assignment import ASSIGNMENT, FIGURE, Shown
from tools.notebooks import notebook_paths


@pytest.mark.parametrize("row", ASSIGNMENT, ids=lambda row: row.what)
def test_every_line_of_the_assignment_is_shown(row):
    assert assignment.missing(row) == []


def test_the_tour_shows_the_map_of_today():
    tour = nbformat.read(notebook_paths(["00"])[0], as_version=4)
    shown = [o.get("data", {}).get("text/markdown") for c in tour.cells for o in c.get("outputs", [])]
    assert assignment.table() in shown, "run `python -m tools.notebooks 00`"


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook with a figure and a number below its first heading, and neither below its second."""
    outputs = [
        new_output("stream", name="stdout", text="accuracy 0.61\n"),
        new_output("display_data", {"image/png": "iVBO", "text/plain": "<Figure>"}),
    ]
    cells = [
        new_markdown_cell("# Title\n\n## First\nwords"),
        new_code_cell("1"),
        new_markdown_cell("### Inside"),
        new_code_cell("show()", outputs=outputs),
        new_markdown_cell("## Second"),
        new_code_cell("2"),
    ]
    path = tmp_path / "01_frames.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    monkeypatch.setattr(assignment, "notebook_paths", lambda numbers=(): [path])


ROW = Shown("a thing", "01", "First", (FIGURE, r"accuracy 0\.\d+"))
MISSING = [
    ("all there", ROW, []),
    ("in a part of the section", replace(ROW, heading="Inside"), []),
    ("heading renamed", replace(ROW, heading="Firstly"), ["no heading 'Firstly'"]),
    ("below another heading", replace(ROW, heading="Second"), ["no figure", r"no accuracy 0\.\d+"]),
    ("another number", replace(ROW, outputs=("macro-F1",)), ["no macro-F1"]),
]


@pytest.mark.parametrize("row, says", [row[1:] for row in MISSING], ids=[row[0] for row in MISSING])
def test_what_is_missing_is_named(row, says, notebook):
    found = assignment.missing(row)
    assert len(found) == len(says)
    assert all(
        text.startswith("01_frames.ipynb: a thing: ") and text.endswith(end)
        for text, end in zip(found, says, strict=True)
    )


@pytest.mark.usefixtures("notebook")
def test_a_row_of_the_table_is_a_link_to_the_heading(monkeypatch):
    monkeypatch.setattr(assignment, "ASSIGNMENT", (replace(ROW, heading="First, and more"),))
    assert assignment.table().endswith("| a thing | [01 · First, and more](01_frames.ipynb#First%2C-and-more) |")
