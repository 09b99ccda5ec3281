"""Notebook 04 on somebody else's faces: three classes, other names, no votes, a class of two faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from helpers.emotion.classifier import EmotionClassifier
from helpers.synthetic.faces import render_expression

SHOWN = {"calm": "neutral", "joy": "happy", "yawn": "surprise"}
SMALL = "EmotionRecipe(epochs=1, network=emotion_model.NetworkSpec(4, (8, 8), middle=0))"


def write_faces(folder: Path) -> None:
    for part, first, counts in (("train", 0, (9, 6, 2)), ("test", 50, (2, 2, 1))):
        for label, count in zip(SHOWN, counts, strict=True):
            (folder / part / label).mkdir(parents=True)
            for seed in range(first, first + count):
                cv2.imwrite(str(folder / part / label / f"{seed}.png"), render_expression(SHOWN[label], seed))


@pytest.mark.training
@pytest.mark.parametrize("share", [0, 0.5])
def test_every_cell_runs_on_faces_of_ones_own(tmp_path, run_on_own_data, share):
    write_faces(tmp_path / "faces")
    changed = {
        'DATASET = "fer2013" ': f'DATASET = "{tmp_path / "faces"}" ',
        'OUTPUT = "../out/emotion"': f'OUTPUT = "{tmp_path / "out"}"',
        "RECIPE = EmotionRecipe() ": f"RECIPE = replace({SMALL}, vote_share={share}) ",
    }
    out = run_on_own_data("04_emotion_training", changed)
    assert "the labels alone are the targets" in out and "n=    5" in out and "this study belongs to FER-2013" in out
    assert EmotionClassifier.load(tmp_path / "out", strict=True).labels == tuple(SHOWN)
