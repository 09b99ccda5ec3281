"""Training on several devices and machines: data parallelism by Keras's distribution API on JAX.

The same command is started on every machine. Which machines there are is told by Keras's own environment variables
KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID.
"""

from __future__ import annotations

import os
from pathlib import Path

import keras

from helpers.errors import DataError


def start_distribution() -> None:
    """Share every batch among all devices of all processes from now on; to be called before a model is built.

    Without other processes and with a single device nothing happens. Raises DataError when there shall be several
    processes and Keras does not run on JAX: its other backends cannot.
    """
    several = int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", 1)) > 1
    if keras.backend.backend() != "jax":
        if several:
            raise DataError(
                "KERAS_DISTRIBUTION_NUM_PROCESSES is set, and training on several machines needs JAX: "
                "pip install -r requirements-distributed.txt, and set KERAS_BACKEND=jax"
            )
        return
    if several:
        keras.distribution.initialize()
    if len(keras.distribution.list_devices()) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def process() -> tuple[int, int]:
    """(number of this process from 0, how many there are)."""
    if keras.backend.backend() != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def own_folder(folder: Path) -> Path:
    """Where this process may write: `folder` for the first one, a folder in it for each of the others."""
    number, _ = process()
    return folder / f"process{number}" if number else folder


def own_share(batches: keras.utils.PyDataset | tuple | None) -> keras.utils.PyDataset | tuple | None:
    """What this process feeds of `batches`; the batches themselves when nothing is distributed."""
    if keras.distribution.distribution() is None or not isinstance(batches, keras.utils.PyDataset):
        return batches
    return _Share(batches)


class _Share(keras.utils.PyDataset):
    """The part of every batch that this process feeds: the parts of all processes in a row are the whole batch.

    A batch that cannot be dealt out to all devices evenly loses its last samples; one that is too small is repeated.
    """

    def __init__(self, batches: keras.utils.PyDataset):
        super().__init__()
        self._batches = batches
        self._number, self._processes = process()
        self._devices = len(keras.distribution.list_devices())

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple:
        batch = self._batches[index]
        size = len(batch[0])
        dealt = max(self._devices, size - size % self._devices)
        first, last = (dealt * number // self._processes for number in (self._number, self._number + 1))
        rows = [row % size for row in range(first, last)]
        return tuple(part[rows] for part in batch)

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()
