"""README.md: its command lines are ones that the programs take, its links lead to files."""

from __future__ import annotations

import re
import shlex

import pytest

from helpers.data.paths import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LINES = [
    line.split("#")[0].strip() for line in re.findall(r"(?m)^    (python -m helpers\.\w+ .*)$", TEXT) if "{" not in line
]
LINES = [line for line in LINES if "[" not in line and "FOLDER" not in line]


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_is_one_that_the_program_takes(line):
    module, *arguments = shlex.split(line)[2:]
    if module == "helpers.live":
        from helpers.live.__main__ import _parser

        _parser().parse_args(arguments)
    elif module == "helpers.train":
        from helpers.train.__main__ import _parse

        _parse(arguments)
    elif module == "helpers.evaluate":
        from helpers.evaluate.__main__ import _parse

        _parse(arguments)
    else:
        pytest.fail(f"{module}: no such command")


def test_the_recipes_are_there():
    assert {line.split()[2] for line in LINES} >= {"helpers.train", "helpers.live", "helpers.evaluate"} and len(
        LINES
    ) >= 6


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_a_link_leads_to_a_file(target):
    assert (REPOSITORY / target).exists()


@pytest.mark.parametrize("room", sorted(set(re.findall(r"`(helpers/[\w/]+(?:\.py)?|tools/)`", TEXT))))
def test_a_room_of_the_picture_exists(room):
    assert (REPOSITORY / room).exists()
