"""The same work on one process and on several: order, left-out files, and a process that dies."""

from __future__ import annotations

import os

import pytest

from helpers.data.folders import Sample, Skipped
from helpers.data.jobs import map_files
from helpers.errors import DataError


def length(sample: Sample) -> tuple[int, int]:
    """(characters of the file, the process that read it)."""
    text = sample.path.read_text()
    if not text:
        raise DataError(f"{sample.path}: empty")
    return len(text), os.getpid()


def die(sample: Sample) -> None:
    os.abort()


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text("x" * number)
    return [Sample(tmp_path / f"{number}.txt", "a", str(number)) for number in (7, 3, 0, 5, 1, 2, 6, 4)]


@pytest.mark.parametrize("jobs", [1, 3])
def test_order_and_what_is_left_out_do_not_depend_on_the_processes(samples, jobs):
    skipped = []
    done = map_files(length, samples, jobs, skipped=skipped)
    assert [(sample.group, count) for sample, (count, _) in done] == [(n, int(n)) for n in "7351264"]
    assert skipped == [Skipped(samples[2].path, f"{samples[2].path}: empty")]
    processes = {process for _, (_, process) in done}
    assert (os.getpid() in processes) == (jobs == 1), "several processes: none of them is this one"


@pytest.mark.parametrize("jobs", [1, 2])
def test_without_a_list_the_first_bad_file_is_raised(samples, jobs):
    with pytest.raises(DataError, match=r"0\.txt: empty"):
        map_files(length, samples, jobs)


def test_a_process_that_dies_is_a_sentence(samples):
    with pytest.raises(DataError, match=r"one of 2 processes died at .*7\.txt .*--jobs 1"):
        map_files(die, samples, 2, skipped=[])
