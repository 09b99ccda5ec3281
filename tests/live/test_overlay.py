"""What is drawn on a frame."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest
from live_tools import scene

from helpers.live import overlay
from helpers.live import pipeline as pipeline_module
from helpers.live import results as results_module


def result_of(action="walk", faces=(), confidence=0.9, latency_ms=12.0, time_s=0.0):
    return results_module.FrameResult(0, time_s, action, confidence, np.array([0.9, 0.1]), tuple(faces), latency_ms, {})


def test_overlay_leaves_the_frame_alone_and_mirrors_the_image_only():
    frame = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    before = frame.copy()
    plain, mirrored = (overlay.draw_overlay(frame, result_of(), 30, mirror=mirror) for mirror in (False, True))
    assert (frame == before).all()
    assert (mirrored[100:] == plain[100:, ::-1]).all(), "below the bar the image is turned"
    blank = np.zeros((480, 640, 3), np.uint8)
    assert (
        overlay.draw_overlay(blank, result_of(), 30, mirror=True) == overlay.draw_overlay(blank, result_of(), 30)
    ).all(), "not text"


def test_mirrored_face_is_drawn_where_the_face_is(portrait, finder):
    frame = scene(portrait, (20, 60))
    result = pipeline_module.Pipeline(None, None, finder).step(frame, 0.0)
    drawn = (
        np.abs(overlay.draw_overlay(frame, result, mirror=True).astype(int) - cv2.flip(frame, 1)).sum(axis=2)[60:] > 60
    )
    assert drawn[:, 380:].any() and not drawn[:, :320].any()


def frame_of(kind: str, height: int, width: int) -> np.ndarray:
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return np.full((height, width, 3), {"black": 0, "gray": 128, "white": 255}[kind], np.uint8)


@pytest.mark.parametrize("shape", [(120, 160), (480, 640), (2160, 3840), (854, 480)])
@pytest.mark.parametrize("kind", ["black", "gray", "white", "noise"])
def test_text_stands_out_on_any_background_at_any_size(kind, shape):
    """WCAG 2.2: large text needs a contrast of 3 to 1, other text of 4.5 to 1."""
    image = overlay.draw_overlay(frame_of(kind, *shape), result_of(), 30)
    unit = max(0.75, min(image.shape[:2]) / 480)
    bar = image[: round(40 * unit)] / 255.0
    linear = np.where(bar <= 0.04045, bar / 12.92, ((bar + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.0722, 0.7152, 0.2126)
    left, right = luminance[:, : bar.shape[1] // 3], luminance[:, -bar.shape[1] // 4 :]
    background = np.quantile(luminance, 0.75 if kind == "noise" else 0.5)
    assert (left.max() + 0.05) / (background + 0.05) > 3, "the action"
    assert (right.max() + 0.05) / (background + 0.05) > 4.5, "frames a second and latency"
    letters = np.flatnonzero((luminance[:, bar.shape[1] // 2 :] > luminance.max() * 0.7).any(axis=1))
    assert 8 <= np.ptp(letters) < len(bar), "high enough to be read, not clipped"


def drawn(result, fps=30.0, shape=(480, 640)):
    return overlay.draw_overlay(np.zeros((*shape, 3), np.uint8), result, fps).any(axis=2)


def test_nothing_moves_when_a_number_changes():
    """Only the digits themselves differ, not where the words are."""
    low, high = result_of(confidence=0.11, latency_ms=8), result_of(confidence=0.88, latency_ms=388)
    changed = drawn(low, 9) ^ drawn(high, 130)
    columns = np.flatnonzero(changed.any(axis=0))
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 25) + 1)
    assert len(runs) == 3, "confidence, frames a second, latency"
    assert all(np.ptp(run) < 60 for run in runs)


# What a reader without one kind of cone sees, as matrices on linear RGB (Machado et al., 2009, severity 1.0).
EYES = {
    "full colour": np.eye(3),
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def seen_as(bgr: tuple, matrix) -> np.ndarray:
    """The colour as such an eye sees it, in CIE L*a*b*."""
    rgb = np.array(bgr[::-1]) / 255
    linear = np.clip(np.array(matrix) @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(np.float32(shown)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("eye", EYES)
def test_colours_of_the_emotions_differ_for_colour_blind_readers(eye):
    """A difference of 2.3 is just seen (Mahy et al., 1994)."""
    colours = [seen_as(colour, EYES[eye]) for colour in overlay.EMOTION_COLOURS.values()]
    assert len(colours) == 7
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 6 * 2.3


def test_a_label_stays_inside_the_image(portrait, finder):
    face = pipeline_module.Pipeline(None, None, finder).step(scene(portrait, (20, 60)), 0.0).faces[0]
    known = {"emotion": "surprise", "confidence": 1.0, "probabilities": np.array([1.0])}
    for x, y in ((-60, 100), (600, 100), (200, -60), (200, 440)):
        moved = face.landmarks - np.array(face.box[:2]) + (x, y)
        result = result_of(faces=[replace(face, box=(x, y, *face.box[2:]), landmarks=moved, **known)])
        gray = np.full((480, 640, 3), 128, np.uint8)
        plates = (overlay.draw_overlay(gray, result)[40:] == round(128 * overlay.SHADE)).all(axis=2)
        assert plates.sum() > 2000 and plates.any(axis=0).sum() > 150, (x, y)


def test_a_name_that_is_too_long_is_written_smaller():
    image = drawn(result_of(action="wave_" * 20), shape=(240, 240))
    assert image[:30, 100:].any() and not image[:30, -4:].any()


def test_numbers_are_held_long_enough_to_be_read():
    """Renewed every 0.3 s of the video; a new label shows its own confidence at once."""
    readout, shown = overlay.Readout(), []
    for number in range(30):
        action = "walk" if number < 20 else "run"
        result = result_of(action, confidence=0.5 + number / 100, latency_ms=10 + number, time_s=number / 30)
        shown.append(readout.steady(result))
    assert [len({r.action_confidence for r in shown[i : i + 9]}) for i in (0, 9)] == [1, 1]
    assert shown[20].action_confidence == pytest.approx(0.7)
    assert len({r.latency_ms for r in shown}) == 4 and shown[-1].latency_ms == pytest.approx(10 + 27 / 2)
    assert readout.fps > 0 and shown[-1].action == "run"


def test_bars_beside_the_image_show_its_numbers():
    readout = overlay.Readout()
    for number in range(30):
        share = 0.5 + number / 100
        shares = np.array([share, 1 - share])
        face = results_module.FaceResult(1, (0, 0, 9, 9), np.zeros((68, 2)), "happy", share, shares)
        result = replace(result_of(faces=[face], confidence=share, time_s=number / 30), action_probabilities=shares)
        shown = readout.steady(result)
        assert shown.action_confidence == shown.action_probabilities[0]
        assert shown.faces[0].confidence == shown.faces[0].probabilities[0]
