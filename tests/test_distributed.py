"""Training by two processes, or by two devices of one, gives what one gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers.data.paths import REPOSITORY

needs_jax = pytest.mark.skipif(
    find_spec("jax") is None, reason="JAX is not installed: pip install -r requirements-distributed.txt"
)

# A network with everything that could tell processes apart: dropout, batch normalisation, augmented batches, a last
# batch that is smaller. On TensorFlow without the first two, and with one batch an epoch: devices normalise each by
# themselves there, and Keras draws the order of batches once more when they are shared.
TRAIN = """
import json, sys
from pathlib import Path

import keras
import numpy as np

from helpers.distributed import process, start_distribution
from helpers.training import fit


on_tensorflow = keras.backend.backend() == "tensorflow"
size = 80 if on_tensorflow else 16


class Batches(keras.utils.PyDataset):
    def __init__(self, samples):
        super().__init__()
        rng = np.random.default_rng(samples)
        self.x, self.y = rng.normal(size=(samples, 12, 12, 1)).astype("float32"), rng.integers(0, 3, samples)
        self.epoch = 0

    def __len__(self):
        return -(-len(self.x) // size)

    def __getitem__(self, index):
        rows = slice(size * index, size * index + size)
        return self.x[rows] * (1 + 0.1 * self.epoch), self.y[rows]

    def on_epoch_end(self):
        self.epoch += 1


start_distribution()
keras.utils.set_random_seed(0)
layers = keras.layers
network = keras.Sequential([keras.Input((12, 12, 1)), layers.SeparableConv2D(8, 3)])
if not on_tensorflow:
    network.add(layers.BatchNormalization())
    network.add(layers.Dropout(0.3))
for layer in (layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")):
    network.add(layer)
network.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = fit(network, Batches(72), Batches(40), epochs=3, work=Path(sys.argv[1]), seed=1)
weights = [float(np.abs(value).sum()) for value in network.get_weights()]
devices = len(keras.distribution.list_devices())
print(json.dumps({"processes": process()[1], "devices": devices, "history": history, "weights": weights}))
"""


TWO_DEVICES = """
import tensorflow as tf

processor, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
"""


def start(
    work: Path,
    number: int = 0,
    processes: int = 1,
    address: str = "",
    *,
    code: str = TRAIN,
    backend: str = "jax",
) -> subprocess.Popen:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    if processes > 1:
        environment |= {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
            "KERAS_DISTRIBUTION_NUM_PROCESSES": str(processes),
            "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
        }
    return subprocess.Popen(
        [sys.executable, "-c", code, str(work)],
        cwd=REPOSITORY,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def answer(process: subprocess.Popen) -> dict | float:
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(printed.splitlines()[-1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.training
@needs_jax
def test_two_processes_give_the_losses_and_weights_of_one(tmp_path):
    alone = answer(start(tmp_path / "alone"))
    address = f"127.0.0.1:{free_port()}"
    shared = [start(tmp_path / "shared", number, 2, address) for number in range(2)]
    first, second = (answer(process) for process in shared)
    assert (alone["processes"], first["processes"], second["processes"]) == (1, 2, 2)
    assert len(alone["history"]["loss"]) == 3 and alone["history"]["loss"][2] != alone["history"]["loss"][0]
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        assert first["history"][name] == pytest.approx(alone["history"][name], abs=1e-4), name
        assert second["history"][name] == pytest.approx(alone["history"][name], abs=1e-4), name
    assert first["weights"] == pytest.approx(second["weights"], rel=1e-6)
    assert first["weights"] == pytest.approx(alone["weights"], rel=1e-4, abs=1e-4)


@pytest.mark.training
def test_two_devices_on_tensorflow_give_the_losses_and_weights_of_one(tmp_path):
    one = answer(start(tmp_path / "one", backend="tensorflow"))
    two = answer(start(tmp_path / "two", code=TWO_DEVICES + TRAIN, backend="tensorflow"))
    assert (one["devices"], two["devices"]) == (1, 2)
    assert len(one["history"]["loss"]) == 3 and one["history"]["loss"][2] != one["history"]["loss"][0]
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        assert two["history"][name] == pytest.approx(one["history"][name], abs=1e-4), name
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-4, abs=1e-4)


EXPORT = """
import sys
from pathlib import Path

import keras
import numpy as np

from helpers.runtime import LiteRT, export_litert

layers = keras.layers
network = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3, "softmax")])
export_litert(network, Path(sys.argv[1]) / "network.tflite")
inputs = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
assert keras.backend.backend() == "jax"
print(float(np.abs(LiteRT(Path(sys.argv[1]) / "network.tflite")(inputs) - np.asarray(network(inputs))).max()))
"""


@pytest.mark.training
@needs_jax
def test_a_network_trained_on_jax_becomes_a_litert_file(tmp_path):
    assert answer(start(tmp_path, code=EXPORT)) < 1e-5


def test_several_processes_need_jax(monkeypatch):
    from helpers.distributed import start_distribution
    from helpers.errors import DataError

    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(DataError, match="requirements-distributed.txt"):
        start_distribution()
