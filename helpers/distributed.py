"""Training on several devices and machines, each batch shared among all of them.

On JAX by Keras's distribution API, on TensorFlow on the GPUs of one machine by `tf.distribute.MirroredStrategy`.
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

    Without other processes and with a single device nothing happens. On JAX the result is that of one device. On
    TensorFlow each device has its own batch statistics and dropout: losses are those of one device only without batch
    normalisation and dropout. Raises DataError when there shall be several processes and Keras does not run on JAX: its
    other backends cannot.
    """
    several, backend = int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", 1)) > 1, keras.backend.backend()
    if several and backend != "jax":
        raise DataError(
            "KERAS_DISTRIBUTION_NUM_PROCESSES is set, and training on several machines needs JAX: "
            "pip install -r requirements-distributed.txt, and set KERAS_BACKEND=jax"
        )
    if several:
        keras.distribution.initialize()
    devices = keras.distribution.list_devices()
    if len(devices) > 1 and backend == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    elif len(devices) > 1 and backend == "tensorflow":
        import tensorflow as tf

        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(devices))


def _devices() -> int:
    """How many devices share every batch."""
    if keras.distribution.distribution() is not None:
        return len(keras.distribution.list_devices())
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


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
    if _devices() == 1 or not isinstance(batches, keras.utils.PyDataset):
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
        self._devices = _devices()

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
