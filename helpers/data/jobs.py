"""The same work on many files, on one process or several."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TypeVar

from helpers.data.files import printable
from helpers.data.folders import Sample, Skipped
from helpers.errors import DataError

Result = TypeVar("Result")


def map_files(
    work: Callable[[Sample], Result],
    samples: Sequence[Sample],
    jobs: int = 1,
    *,
    skipped: list[Skipped] | None = None,
    progress: Callable = iter,
) -> list[tuple[Sample, Result]]:
    """Each sample with what `work` makes of it, in the samples' order, the same for any number of processes.

    work: for `jobs` > 1 it must be picklable; every process unpickles it once, so what holds a model is pickled as the
    way to load it. A sample for which it raises DataError is appended to `skipped`; without that list it is raised.
    progress: wraps the iterable of samples, as tqdm does. Raises DataError when a process dies.
    """
    done = []
    with _results(work, samples, jobs) as results:
        for sample in progress(samples):
            try:
                result = next(results)
            except BrokenProcessPool:
                raise DataError(
                    f"one of {jobs} processes died at {printable(sample.path)} or a file after it: too little memory, "
                    "or a file that ends the program; try --jobs 1"
                ) from None
            if not isinstance(result, DataError):
                done.append((sample, result))
            elif skipped is None:
                raise result
            else:
                skipped.append(Skipped(sample.path, str(result)))
    return done


@contextmanager
def _results(work: Callable, samples: Sequence[Sample], jobs: int) -> Iterator[Iterator]:
    """What comes of every sample, or the DataError; at an early end nothing more is begun."""
    if jobs == 1:
        yield (_answer(work, sample) for sample in samples)
        return
    # Spawned, not forked: a copy of a process with threads may wait for ever. Ctrl-C is for the first process alone.
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        yield pool.map(partial(_answer_there, pickle.dumps(work)), samples)
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(work: Callable[[Sample], Result], sample: Sample) -> Result | DataError:
    try:
        return work(sample)
    except DataError as error:
        return error


def _answer_there(pickled: bytes, sample: Sample) -> Result | DataError:
    return _answer(_unpickled(pickled), sample)


@lru_cache(maxsize=1)
def _unpickled(pickled: bytes) -> Callable:
    return pickle.loads(pickled)
