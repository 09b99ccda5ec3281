"""A camera, and a painter of synthetic people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from helpers.synthetic.skeleton import Body, Pose, joint_positions

SUBPIXEL = 4  # fractional bits in cv2 coordinates: without them slow movements jump by whole pixels


# name, joints, radii in body heights, colour; the nearer to the camera, the later it is painted
_LIMBS = (
    ("foot", ("ankle", "toe"), (0.027, 0.022), "shoes"),
    ("shin", ("knee", "ankle"), (0.040, 0.028), "shin"),
    ("thigh", ("hip", "knee"), (0.062, 0.042), "trousers"),
    ("upper arm", ("shoulder", "elbow"), (0.037, 0.029), "shirt"),
    ("forearm", ("elbow", "wrist"), (0.029, 0.020), "sleeve"),
    ("hand", ("wrist", "hand"), (0.021, 0.024), "skin"),
)


_PARTS = (
    *(
        (name, tuple(joint + mark for joint in joints), radii, colour)
        for mark in "LR"
        for name, joints, radii, colour in _LIMBS
    ),
    ("pelvis", ("hipL", "hipR", "waistL", "waistR"), (0.058, 0.058, 0.046, 0.046), "trousers"),
    ("chest", ("shoulderL", "shoulderR", "waistL", "waistR"), (0.038, 0.038, 0.05, 0.05), "shirt"),
    ("neck", ("neck", "chin"), (0.032, 0.032), "skin"),
    ("locks", ("nape", "locks"), (0.044, 0.054), "hair"),  # only where the hair is long
)


@dataclass(frozen=True)
class Camera:
    """A perspective camera at `height`, `distance` in front of the figure's place.

    There, `span` body heights fill the height of the image, whose upper edge is at height `top`.
    """

    span: float
    top: float
    distance: float = 3.5
    height: float = 0.75
    roll: float = 0.0
    centre: float = 0.5  # where x = 0 appears, as a fraction of the width

    def project(self, points: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(N,3) world points -> (N,2) pixels, (N,) pixels per body height; size (height, width)."""
        rows, columns = size
        unit = rows / self.span * self.distance / np.maximum(self.distance - points[:, 2], 0.5)
        horizon = rows / self.span * (self.top - self.height)
        x, y = points[:, 0] * unit, horizon - (points[:, 1] - self.height) * unit - rows / 2
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.stack([c * x - s * y + self.centre * columns, s * x + c * y + rows / 2], axis=1), unit


def _disc_hull(image: np.ndarray, centres: np.ndarray, radii: np.ndarray, colour: tuple) -> None:
    """Fill the convex hull of some discs: two discs make a tapered limb, four a trunk."""
    rim = CIRCLE[None] * np.asarray(radii, float)[:, None, None] + centres[:, None]
    points = np.round(np.clip(rim.reshape(-1, 2), -4000, 4000) * 2**SUBPIXEL).astype(np.int32)
    cv2.fillConvexPoly(image, cv2.convexHull(points), colour, cv2.LINE_AA, SUBPIXEL)


CIRCLE = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)),
        np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False)),
    ],
    1,
)


def shade(colour: tuple, factor: float) -> tuple:
    return tuple(float(min(max(c * factor, 0), 255)) for c in colour)


def _paint_part(image: np.ndarray, centres: np.ndarray, radii: np.ndarray, colour: tuple, sun: np.ndarray) -> None:
    """A darker rim on the side away from the light makes a limb look round."""
    _disc_hull(image, centres, radii, shade(colour, 0.72))
    _disc_hull(image, centres + sun * 0.22 * radii[:, None], 0.76 * radii, colour)


def _paint_stripes(image: np.ndarray, top: np.ndarray, bottom: np.ndarray, width: float, pattern: tuple) -> None:
    number, colour = pattern
    axis = bottom - top
    across = np.array([-axis[1], axis[0]]) / (np.hypot(*axis) + 1e-6) * width
    for k in range(number):
        middle = top + axis * (k + 0.5) / number
        ends = np.round(np.array([middle - across, middle + across]) * 2**SUBPIXEL).astype(int)
        cv2.line(
            image,
            ends[0].tolist(),
            ends[1].tolist(),
            colour,
            max(1, int(np.hypot(*axis) / number / 2)),
            cv2.LINE_AA,
            SUBPIXEL,
        )


def paint_head(image: np.ndarray, pixel: dict, unit: float, body: Body, sun: np.ndarray, facing: float) -> None:
    """`facing` is 1 towards the camera, -1 away from it: only a face that can be seen is painted."""
    r = unit * body.head
    skull = (np.array([pixel["face"], pixel["chin"]]), np.array([0.057, 0.042]) * r, body.skin, sun)
    cap = (np.array([pixel["crown"], pixel["nape"]]), np.array([0.058, 0.040]) * r, body.hair, sun)
    for paint in (cap, skull) if facing > -0.2 else (skull, cap):
        _paint_part(image, *paint)
    if facing > -0.2:  # a fringe from temple to temple
        _disc_hull(
            image,
            np.array([pixel["templeL"], pixel["fringe"], pixel["templeR"]]),
            np.array([0.016, 0.024, 0.016]) * r,
            body.hair,
        )
    if facing > 0.15:
        dark = shade(body.skin, 0.45)
        for name, radius in (("eyeL", 0.009), ("eyeR", 0.009), ("nose", 0.006)):
            _disc_hull(
                image,
                pixel[name][None],
                np.array([radius * r]),
                dark if name == "nose" else (35, 30, 30),
            )
        _disc_hull(image, np.array([pixel["mouthL"], pixel["mouthR"]]), np.full(2, 0.006 * r), dark)


def paint_figure(
    image: np.ndarray,
    pose: Pose,
    body: Body,
    camera: Camera,
    sun: np.ndarray,
    head: Callable = paint_head,
) -> None:
    joint = joint_positions(pose, body)
    world = np.array(list(joint.values()))
    pixels, units = camera.project(world, image.shape[:2])
    pixel, unit = dict(zip(joint, pixels, strict=True)), dict(zip(joint, units, strict=True))
    colours = {name: getattr(body, name) for name in ("skin", "shirt", "trousers", "shoes", "hair")}
    colours |= {"sleeve": colours[body.sleeve], "shin": body.skin if body.shorts else body.trousers}

    def depth(part: tuple) -> float:  # the trunk first where an arm hangs beside it
        return np.mean([joint[j][2] for j in part[1]]) - (0.03 if part[0] in ("chest", "pelvis", "neck") else 0.0)

    parts = _PARTS if body.long_hair else _PARTS[:-1]
    order = sorted((*parts, ("head", ("face", "crown"), (), "")), key=depth)
    facing = float(np.cos(pose.heading + pose.gaze))
    for name, joints, radii, colour in order:
        if name == "head":
            head(image, pixel, unit["face"], body, sun, facing)
            continue
        centres = np.array([pixel[j] for j in joints])
        radii = body.build * np.array(radii) * [unit[j] for j in joints]
        _paint_part(image, centres, radii, colours[colour], sun)
        if body.pattern and colour == "shirt":
            top, bottom = (centres[:2].mean(0), centres[2:].mean(0)) if name == "chest" else centres
            width = radii[0] * 0.9 + (np.hypot(*(centres[0] - centres[1])) / 2 if name == "chest" else 0)
            _paint_stripes(image, top, bottom, width, body.pattern)
