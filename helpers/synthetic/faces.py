"""A synthetic face with an expression: what that does to brows, lids, nose and mouth, and a painter."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from helpers.synthetic.painting import CIRCLE, SUBPIXEL

# What an expression does to a face, after the facial action units that Ekman and Friesen (Facial
# Action Coding System) list for it: brows (inner and outer end up, pinched together), upper lid up,
# lower lid squint, nose wrinkle, mouth (corners up, open, wide, upper lip up, teeth).
_FACE_MOVES = ("inner", "outer", "pinch", "lid", "squint", "nose", "corner", "open", "wide", "upper", "teeth")
_FACE_SHAPES = {
    "angry": (-1.0, 0.4, 1.0, 0.3, 0.6, 0.4, -0.5, 0.25, 0.0, 0.2, 0.4),
    "disgust": (-0.6, -0.2, 0.6, -0.4, 0.9, 1.0, -0.5, 0.25, -0.1, 1.0, 0.3),
    "fear": (0.9, 0.2, 0.6, 0.9, 0.1, 0.0, -0.3, 0.55, 0.35, 0.1, 0.4),
    "happy": (0.1, 0.1, 0.0, -0.2, 0.7, 0.1, 1.0, 0.4, 0.5, 0.2, 0.9),
    "neutral": (0.0,) * 11,
    "sad": (0.9, -0.5, 0.4, -0.5, 0.2, 0.0, -0.8, 0.0, -0.1, 0.0, 0.0),
    "surprise": (1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.1, -0.4, 0.0, 0.1),
}

EXPRESSIONS = tuple(_FACE_SHAPES)
_CANVAS = 144  # faces are painted at three times the final 48 pixels


def render_expression(label: str, seed: int) -> np.ndarray:
    """A synthetic face, framed as in FER-2013 (the face fills the image): uint8 (48, 48) gray.

    `seed` is the person, who shows every expression with another pose, light and strength.
    Raises ValueError for a label that is not in EXPRESSIONS.
    """
    if label not in _FACE_SHAPES:
        raise ValueError(f"unknown expression {label!r}; known: {', '.join(EXPRESSIONS)}")
    person = np.random.default_rng((seed, 4))
    shot = np.random.default_rng((seed, 5, zlib.crc32(label.encode())))
    strength = shot.uniform(0.6, 1.2)
    move = dict(
        zip(
            _FACE_MOVES,
            strength * np.array(_FACE_SHAPES[label]) + shot.normal(0, 0.1, len(_FACE_MOVES)),
            strict=True,
        )
    )
    face = _Face(person, shot)
    face.paint_skin()
    face.paint_folds(move)
    face.paint_eyes(move)
    face.paint_mouth(move)
    face.paint_hair_and_glasses()
    image = cv2.resize(
        cv2.GaussianBlur(face.image, (0, 0), shot.uniform(0.7, 2.2)),
        (48, 48),
        interpolation=cv2.INTER_AREA,
    )
    return np.clip(image + shot.normal(0, shot.uniform(1, 6), image.shape), 0, 255).astype(np.uint8)


class _Face:
    """A face on a gray canvas. Its coordinates: x, y in -1..1, y down, eyes -0.25, mouth 0.5."""

    def __init__(self, person: np.random.Generator, shot: np.random.Generator) -> None:
        self.skin = person.uniform(85, 215)
        self.width, self.eye_gap, self.eye_size = (
            person.uniform(0.8, 0.98),
            person.uniform(0.36, 0.44),
            person.uniform(0.85, 1.2),
        )
        self.brow_height, self.brow_weight = person.uniform(0.18, 0.25), person.uniform(0.03, 0.07)
        self.mouth_width, self.lips, self.nose = (
            person.uniform(0.28, 0.38),
            person.uniform(0.7, 1.4),
            person.uniform(0.8, 1.2),
        )
        self.hair, self.hairline = person.uniform(10, 170), person.uniform(-1.15, -0.65)
        self.age, self.beard, self.glasses = (
            person.random() ** 2,
            person.random() < 0.15,
            person.random() < 0.2,
        )
        self.light = np.array([*shot.uniform(-0.8, 0.8, 2), 0.9])
        self.exposure, self.yaw = shot.uniform(0.6, 1.15), shot.normal(0, 0.07)
        self.backdrop = shot.uniform(10, 245)
        roll, scale = shot.normal(0, 0.07), _CANVAS / 2 * shot.uniform(1.0, 1.16)
        self.axes = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        self.origin = _CANVAS / 2 + shot.normal(0, 0.02 * _CANVAS, 2)
        self.image = np.full((_CANVAS, _CANVAS), self.backdrop, np.float32)

    def _pixels(self, points: Sequence) -> np.ndarray:
        points = np.array(points, float)
        middle = 1 - points[:, 0] ** 2  # moves most when a head turns
        points[:, 0] = points[:, 0] * self.width + self.yaw * middle
        return np.round((points @ self.axes.T + self.origin) * 2**SUBPIXEL).astype(np.int32)

    def _fill(self, points: Sequence, tone: float) -> None:
        cv2.fillPoly(self.image, [self._pixels(points)], float(tone), cv2.LINE_AA, SUBPIXEL)

    def _line(self, points: Sequence, tone: float, weight: float, opacity: float = 1.0) -> None:
        layer = self.image.copy()
        cv2.polylines(
            layer,
            [self._pixels(points)],
            False,
            float(tone),
            max(1, round(weight * _CANVAS / 2)),
            cv2.LINE_AA,
            SUBPIXEL,
        )
        cv2.addWeighted(layer, opacity, self.image, 1 - opacity, 0, self.image)

    def _ring(self, x: float, y: float, a: float, b: float) -> np.ndarray:
        return np.array([x, y]) + CIRCLE * [a, b]

    def paint_skin(self) -> None:
        """An ellipsoid under one lamp, with dark eye sockets and a nose that catches the light."""
        inverse = np.linalg.inv(self.axes)
        y, x = np.mgrid[:_CANVAS, :_CANVAS]
        x, y = np.tensordot(inverse, np.stack([x - self.origin[0], y - self.origin[1]]), 1)
        x, y = x / self.width, y / 1.12
        depth = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
        glow = 0.55 + 0.45 * (x * self.light[0] + y * self.light[1] + depth * self.light[2])
        for side in (-1, 1):
            glow -= 0.22 * np.exp(-((x - side * self.eye_gap - self.yaw) ** 2 / 0.05 + (y + 0.24) ** 2 / 0.02))
        glow += 0.15 * np.exp(-((x - self.yaw) ** 2 / 0.006 + (y - 0.05) ** 2 / 0.06))
        glow -= 0.3 * self.beard * np.exp(-(x**2 / 0.35 + (y - 0.65) ** 2 / 0.06))
        inside = np.clip((1 - x**2 - y**2) * 12, 0, 1)
        self.image = (inside * self.skin * self.exposure * np.clip(glow, 0.12, 1.4) + (1 - inside) * self.image).astype(
            np.float32
        )
        self.tone = self.skin * self.exposure

    def paint_folds(self, move: dict) -> None:
        """Nose, nasolabial folds, frown and forehead lines; the older the person, the deeper."""
        dark, n = 0.5 * self.tone, self.nose
        self._line(
            [(-0.13 * n, 0.2), (-0.06 * n, 0.24), (0, 0.22), (0.06 * n, 0.24), (0.13 * n, 0.2)],
            dark,
            0.03,
            0.8,
        )
        fold = 0.15 + 0.3 * self.age + 0.4 * max(move["corner"], 0) + 0.45 * max(move["nose"], 0)
        frown = 0.7 * max(move["pinch"], 0)
        raised = 0.5 * max(move["inner"], 0) + 0.2 * self.age
        cheek = 0.06 * move["corner"]
        for s in (-1, 1):
            self._line(
                [(s * 0.17, 0.13), (s * (0.3 + cheek), 0.3), (s * (0.38 + cheek), 0.48)],
                dark,
                0.03,
                min(fold, 0.9),
            )
            self._line([(s * 0.06, -0.42), (s * 0.05, -0.3)], dark, 0.03, min(frown, 0.9))
            self._line(
                [(s * 0.05, -0.12), (s * 0.14, -0.05)],
                dark,
                0.03,
                min(0.8 * max(move["nose"], 0), 0.9),
            )
        for y in (-0.62, -0.72):
            self._line([(-0.35, y + 0.02), (0, y - 0.02), (0.35, y + 0.02)], dark, 0.02, min(raised, 0.8))

    def paint_eyes(self, move: dict) -> None:
        opened = np.clip(0.075 * self.eye_size * (1 + 0.55 * move["lid"] - 0.45 * move["squint"]), 0.012, 0.16)
        for s in (-1, 1):
            x, y, half = s * self.eye_gap, -0.24, 0.15 * self.eye_size
            upper = [
                (x - half, y),
                (x - half / 2, y - opened),
                (x + half / 2, y - opened),
                (x + half, y),
            ]
            lower = [(x + half / 2, y + 0.7 * opened), (x - half / 2, y + 0.7 * opened)]
            self._fill(upper + lower, min(1.35 * self.tone, 245))
            self._fill(self._ring(x, y, 0.065, min(0.065, opened)), 25)
            self._line(upper, 0.25 * self.tone, 0.03)
            self._line([upper[3], *lower, upper[0]], 0.55 * self.tone, 0.02, 0.7)
            top = y - self.brow_height
            inner = (
                s * (0.17 - 0.05 * move["pinch"]),
                top - 0.11 * move["inner"] + 0.03 * move["squint"],
            )
            middle = (s * 0.38, top - 0.05 - 0.05 * (move["inner"] + move["outer"]))
            outer = (s * 0.6, top + 0.03 - 0.1 * move["outer"])
            self._line([inner, middle, outer], min(self.hair, 0.5 * self.tone), self.brow_weight)

    def paint_mouth(self, move: dict) -> None:
        """Two lips around an opening that is dark, or shows teeth."""
        half = self.mouth_width * (1 + 0.35 * move["wide"])
        corner, opened = 0.53 - 0.11 * move["corner"], max(0.14 * move["open"], 0)
        top, bottom, lip = (
            0.5 - 0.06 * move["upper"] - 0.3 * opened,
            0.53 + 1.3 * opened,
            0.045 * self.lips,
        )
        x = np.linspace(-1, 1, 9)
        bow = 1 - x**2
        edge = corner + 0 * x
        upper, lower = edge + (top - corner) * bow, edge + (bottom - corner) * bow
        outer = np.concatenate(
            [
                np.stack([half * 1.06 * x, upper - lip * bow], 1),
                np.stack([half * 1.06 * x, lower + lip * bow], 1)[::-1],
            ]
        )
        inner = np.concatenate([np.stack([half * x, upper], 1), np.stack([half * x, lower], 1)[::-1]])
        self._fill(outer, 0.68 * self.tone)
        self._fill(inner, 0.22 * self.tone)
        if move["teeth"] > 0.25:
            biting = np.minimum(upper + 0.09, lower)
            self._fill(
                np.concatenate(
                    [
                        np.stack([0.9 * half * x, upper], 1),
                        np.stack([0.9 * half * x, biting], 1)[::-1],
                    ]
                ),
                min(1.4 * self.tone, 240),
            )
        self._line(np.stack([half * x, upper], 1), 0.3 * self.tone, 0.02, 0.8)

    def paint_hair_and_glasses(self) -> None:
        x = np.linspace(-1.2, 1.2, 9)
        self._fill(
            [(-1.3, -1.6), *zip(x, self.hairline + 0.45 * x**2, strict=True), (1.3, -1.6)],
            self.hair * self.exposure,
        )
        if self.glasses:
            for s in (-1, 1):
                rim = self._ring(s * self.eye_gap, -0.22, 0.25, 0.19)
                self._line(np.concatenate([rim, rim[:1]]), 20, 0.03, 0.9)
            self._line([(-0.13, -0.26), (0.13, -0.26)], 20, 0.03, 0.9)
