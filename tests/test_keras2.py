"""Models that Keras 2 wrote: read with Keras 3, they answer as they did there. Files: tf_keras 2.21, random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from keras import layers

from helpers import keras2, keras_files
from helpers.errors import DataError

FILES = Path(__file__).parent / "files" / "keras2"
ANSWERS = json.loads((FILES / "answers.json").read_text())
WHY = {
    "transfer_learning": "preprocess_input is arithmetic, a model in a model in TimeDistributed, calls counted from 1",
    "sequential": "the first layer notes the input's shape, normalisation its axis in a list",
    "hard_sigmoid": "of ConvLSTM2D: another slope than Keras 3's, without a word",
    "leaky_relu": "alpha is called negative_slope now, and another value is assumed where it is missing",
}


@pytest.mark.parametrize("path", sorted(FILES.glob("*.[hk]*")), ids=lambda path: path.name)
def test_a_model_answers_as_it_did_in_keras_2(path):
    model, expected = keras_files.load_keras(path), ANSWERS[path.stem]
    pixels = np.random.default_rng(0).random((1, *model.input_shape[1:])) * expected["scale"]
    answer = model(pixels.astype(np.float32), training=False)
    np.testing.assert_allclose(answer, expected["y"], atol=1e-6, err_msg=WHY[path.stem])


def node(kind: str, **config) -> dict:
    return {"class_name": kind, "config": {"name": "it", **config}, "name": "it", "inbound_nodes": []}


@pytest.mark.parametrize(
    "layer, says",
    [
        (node("Lambda", function="code"), "'it' is a Lambda"),
        (node("MyAttention", units=3), "'it' is a MyAttention"),
        (node("TFOpLambda", function="math.exp"), "'it' is a call of exp"),
        (node("SlicingOpLambda", function="__operators__.getitem"), "'it' is a call of getitem"),
        (node("DepthwiseConv2D", kernel_size=[3, 3], groups=4), r"\(DepthwiseConv2D\) has groups=4"),
        (node("LSTM", units=3, time_major=True), r"\(LSTM\) has time_major=True"),
        (node("LSTM", units=3, time_major=False, implementation=2), None),
        (node("DepthwiseConv2D", kernel_size=[3, 3], groups=1), None),
    ],
)
def test_what_cannot_be_translated_is_named_and_nothing_is_dropped_that_means_something(layer, says):
    config = {"class_name": "Functional", "config": {"layers": [layer], "input_layers": [], "output_layers": []}}
    if says is None:
        kept = keras2.translate("m.h5", config)["config"]["layers"][0]["config"]
        getattr(layers, layer["class_name"]).from_config(kept)
        return
    with pytest.raises(DataError, match=rf"m\.h5: its layer .*{says}"):
        keras2.translate("m.h5", config)


@pytest.mark.parametrize(
    "function, constant, values",
    [("math.truediv", 127.5, [0, 2]), ("math.subtract", 1.0, [-1, 254]), ("__operators__.add", 0.5, [0.5, 255.5])],
)
def test_arithmetic_with_a_constant_is_a_rescaling(function, constant, values):
    call = {**node("TFOpLambda", function=function), "inbound_nodes": [["input", 0, 0, {"y": constant, "name": None}]]}
    translated = keras2.translate("m.h5", call)
    layer = layers.Rescaling.from_config(translated["config"])
    np.testing.assert_allclose(layer(np.float32([0, 255])), values, rtol=1e-6)
    assert translated["inbound_nodes"] == [[["input", 0, 0, {}]]]
