"""Damaged model files: an answer or a DataError, and the process lives. HAR_FUZZ=10 tries longer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helpers.emotion.classifier import DEFAULT_EMOTION
from tests.data.builders import mutated

LONGER = int(os.environ.get("HAR_FUZZ", "1"))

# A process of its own: what reads these files is not Python, and a test must outlive it.
LOAD = """
import json, sys
import numpy as np
from helpers.emotion.classifier import EmotionClassifier
from helpers.errors import DataError
for line in sys.stdin:
    try:
        answer = EmotionClassifier.load(line.strip()).predict(np.zeros((1, 48, 48, 1), np.float32)).tolist()
    except DataError as error:
        answer = f"DataError: {error}"
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer), flush=True)
"""


def damaged(whole: bytes, seed: int) -> bytes:
    """Every second time bytes of the beginning, where such files describe themselves."""
    rng = np.random.default_rng((9, seed))
    if seed % 2:
        return mutated(whole, rng)
    data = bytearray(whole)
    for place in rng.integers(0, 2000, 4):
        data[place] = rng.integers(256)
    return bytes(data)


@pytest.mark.parametrize("suffix, rounds", [(".tflite", 40 * LONGER), (".h5", 6 * LONGER)])  # Keras takes seconds
def test_a_damaged_model_is_named(tmp_path, suffix, rounds):
    whole = (DEFAULT_EMOTION / f"emotion_model{suffix}").read_bytes()
    folders = [tmp_path / str(seed) for seed in range(rounds)]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        for name in ("labels.json", "config.json"):
            shutil.copy(DEFAULT_EMOTION / name, folder)
        (folder / f"emotion_model{suffix}").write_bytes(damaged(whole, seed))
    ran = subprocess.run(
        [sys.executable, "-c", LOAD], input="\n".join(map(str, folders)), capture_output=True, text=True
    )
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, f"ended by {ran.returncode} at seed {len(answers)}: {ran.stderr[-1000:]}"
    said = [answer for answer in answers if isinstance(answer, str)]
    assert all(answer.startswith("DataError: ") and f"emotion_model{suffix}" in answer for answer in said), said
    assert len(answers) == rounds and said, "the damage was noticed at least once"
