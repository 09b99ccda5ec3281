"""Drawn sample data: moving figures, faces with an expression, and the demo clip. Nothing is downloaded.

A small 3-D skeleton (`Pose` -> joints -> perspective camera) is painted with tapered discs. What a *seed* fixes is
called its look (body, clothes, viewpoint, room, light, camera); an action only moves the skeleton. So the look tells
nothing about the label, which is the point: a model can learn these clips only by their movement.

Units: lengths in body heights, angles in radians, time in seconds. World axes: x to the right of the picture, y up from
the floor, z towards the camera. Pictures are BGR uint8. The same arguments always give the same pixels.
"""
from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

ACTIONS = ("bend", "jump", "jumping_jack", "run", "sit", "stand", "turn", "walk", "wave_one_hand", "wave_two_hands")
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SUBPIXEL = 4  # cv2 draws with this many fractional bits: without them slow movements jump from pixel to pixel
FIRST_TEST_SEED = 1_000_000  # drawn faces from here on are "other people": they only ever appear in test/


# ---------------------------------------------------------------- poses

@dataclass
class Pose:
    """One moment of the skeleton. Segment angles are (abduction, flexion): how far a limb is raised sideways and
    forwards, (0, 0) hanging down; rows are side 0 = picture left of a figure that faces the camera, side 1 = right."""
    arms: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, 2)))  # side, upper arm | forearm, angle
    legs: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, 2)))  # side, thigh | shin, angle
    heading: float = 0.0   # 0 faces the camera
    lean: float = 0.0      # trunk forwards
    tilt: float = 0.0      # trunk sideways
    gaze: float = 0.0      # head turned relative to the trunk
    lift: float = 0.0      # height of the lower foot above the floor
    hips: float | None = None  # height of the hips in leg lengths; None: as high as the lower foot allows
    place: tuple[float, float] = (0.0, 0.0)  # where the feet are on the floor: x, z


@dataclass(frozen=True)
class Style:
    """How one person does one action: drawn at random once per clip."""
    seconds: float
    heading: float         # where the person looks before the action
    reach: float           # body heights from the middle of the picture to its edge
    rate: float            # 1 is the usual tempo
    phase: float           # 0..2 pi
    amplitude: float       # 1 is the usual size of the movement
    variant: float         # 0..1, which of the ways of doing it
    route: float           # 0..1, which of the ways through the room
    side: int              # 0 or 1
    start: float           # when a single movement begins
    elbow: float           # how bent the arms are at rest

    def wave(self, hertz: float, t: float, delay: float = 0.0) -> float:
        return float(np.sin(2 * np.pi * hertz * self.rate * t + self.phase - delay))


def _ease(x: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _keys(u: float, times: Sequence[float], values: Sequence[float]) -> float:
    """Value at u between key-frames, easing in and out of each."""
    last = len(times) - 2
    k = min(max(int(np.searchsorted(times, u, side="right")) - 1, 0), last)
    return values[k] + (values[k + 1] - values[k]) * _ease((u - times[k]) / (times[k + 1] - times[k]))


def _rest(t: float, style: Style) -> Pose:
    """Standing still is not frozen: breathing, weight shifting from leg to leg, a look around."""
    sway = style.wave(0.23, t)
    pose = Pose(heading=style.heading + 0.03 * sway, tilt=0.018 * sway, lean=0.03 + 0.01 * style.wave(0.31, t, 1))
    pose.gaze = 0.12 * style.wave(0.17, t, 2)
    pose.arms[:, :, 0] = 0.14 + 0.02 * sway
    pose.arms[:, 0, 1] = 0.04 * style.wave(0.27, t)
    pose.arms[:, 1, 1] = style.elbow + 0.04 * style.wave(0.21, t, 1)
    pose.legs[:, :, 0] = 0.07
    pose.place = (0.012 * sway, 0.0)
    return pose


def _idle(pose: Pose, t: float, style: Style) -> None:
    """Nothing on top of the sway of standing."""


def _wave_arms(pose: Pose, t: float, style: Style, sides: Iterable[int]) -> None:
    """From a whole arm swung between shoulder height and overhead (variant 0) to a forearm beckoning (variant 1)."""
    raised = _ease((t - style.start + 0.7) / 0.5)
    pose.heading *= 0.6  # people face whom they wave at
    for side in sides:
        opposite = np.pi if side == 1 and style.route > 0.85 else 0.0  # a few wave their hands in parallel
        swing = style.amplitude * style.wave(1.0 + 0.9 * style.variant, t, opposite)
        upper = (1 - style.variant) * (2.25 + 0.7 * swing) + style.variant * (1.35 + 0.1 * swing)
        fore = (1 - style.variant) * (2.4 + 0.85 * swing) + style.variant * (2.95 + 0.5 * swing)
        target = np.array([[upper, -0.15], [fore, -0.25]])
        pose.arms[side] += raised * (target - pose.arms[side])
    pose.tilt += 0.03 * raised * style.wave(1.0 + 0.9 * style.variant, t)


def _wave_one_hand(pose: Pose, t: float, style: Style) -> None:
    _wave_arms(pose, t, style, (style.side,))


def _wave_two_hands(pose: Pose, t: float, style: Style) -> None:
    _wave_arms(pose, t, style, (0, 1))


def _jumping_jack(pose: Pose, t: float, style: Style) -> None:
    """Arms and legs open and close together; a small hop on each change."""
    opened = 0.5 - 0.5 * style.wave(1.05, t)
    pose.heading *= 0.6
    pose.arms[:, :, 0] = 0.15 + (2.4 + 0.5 * style.amplitude) * opened
    pose.arms[:, 1, 0] += 0.25 * style.variant * opened
    pose.arms[:, :, 1] *= 0.3
    pose.legs[:, :, 0] = 0.04 + 0.4 * style.amplitude * opened
    pose.lift = 0.05 * style.amplitude * (1 - style.wave(1.05, t) ** 2)


def _bend(pose: Pose, t: float, style: Style) -> None:
    """Bow down, reach for the floor, come up; repeated with a pause."""
    u = (t * style.rate / 2.6 - style.start / 5) % 1.0
    down = style.amplitude * _keys(u, (0, 0.1, 0.45, 0.55, 0.9, 1), (0, 0, 1, 1, 0, 0))
    if style.route > 0.4:  # most people turn aside before they bow
        pose.heading = (1 if style.side else -1) * (0.8 + 0.8 * style.variant)
    pose.lean += 1.45 * down
    pose.arms[:, :, 1] += 1.3 * down
    knee = 0.15 + 0.55 * style.variant
    pose.legs[:, 0, 1] += knee * down
    pose.legs[:, 1, 1] -= 0.5 * knee * down


def _jump(pose: Pose, t: float, style: Style) -> None:
    """Crouch with the arms back, take off, fly, land on bent knees; in place or forwards."""
    cycles = t * style.rate / 1.3 + style.start / 3
    count, u = int(cycles), cycles % 1.0
    crouch = style.amplitude * _keys(u, (0, 0.28, 0.42, 0.66, 0.78, 1), (0, 1, 0, 0.15, 0.7, 0))
    flight = min(max((u - 0.42) / 0.26, 0.0), 1.0)
    pose.lift = 0.2 * style.amplitude * 4 * flight * (1 - flight)
    pose.lean += 0.55 * crouch
    pose.legs[:, 0, 1] = 0.95 * crouch
    pose.legs[:, 1, 1] = -0.7 * crouch
    swing = _keys(u, (0, 0.28, 0.48, 0.7, 0.85, 1), (0, -0.7, 1 + 1.4 * style.variant, 0.9, 0.2, 0))
    pose.arms[:, :, 1] += swing * style.amplitude
    if style.route > 0.5:
        total = style.seconds * style.rate / 1.3
        step = min(0.45 * style.amplitude, 1.4 * style.reach / max(total, 1))
        travelled = step * (count + _ease(flight) - total / 2)
        pose.place = (travelled * np.sin(pose.heading), travelled * np.cos(pose.heading))


def _seated(pose: Pose, style: Style, p: float) -> None:
    """Between standing (p = 0) and sitting (p = 1); the trunk leans forwards in between, as balance needs."""
    moving = np.sin(np.pi * p)
    pose.lean += (0.5 + 0.25 * style.variant) * moving + 0.1 * (style.route - 0.3) * p
    pose.legs[:, 0, 1] = (1.4 + 0.2 * style.amplitude - 0.2 * style.variant) * p
    pose.legs[:, 1, 1] = (0.25 * style.route - 0.15) * p
    pose.legs[:, :, 0] += 0.15 * style.variant * p
    pose.arms[:, 0, 1] += 0.5 * moving + 0.3 * p
    pose.arms[:, 1, 1] += 0.5 * moving + (0.9 - style.elbow) * p


def _sit(pose: Pose, t: float, style: Style) -> None:
    _seated(pose, style, _ease((t - style.start) * style.rate / 1.2))


def _stand(pose: Pose, t: float, style: Style) -> None:
    _seated(pose, style, 1 - _ease((t - style.start) * style.rate / 1.1))


def _turn(pose: Pose, t: float, style: Style) -> None:
    """Turn round on the spot with small steps, the head first; wait, turn on."""
    u = (t - style.start) * style.rate / 2.4
    angle = (1 if style.side else -1) * (1.6 + 1.6 * style.variant)
    turned, ahead = (np.floor(v) + _ease((v % 1.0) * 1.7) for v in (max(u, 0.0), max(u + 0.04, 0.0)))
    stepping = np.sin(np.pi * (turned % 1.0))
    pose.heading += angle * turned
    pose.gaze += angle * (ahead - turned) * 1.5
    for side, sign in ((0, 1), (1, -1)):
        lifted = stepping * max(0.0, sign * np.sin(12 * style.rate * t))
        pose.legs[side, :, 1] += (0.35 * lifted, -0.3 * lifted)
        pose.arms[side, :, 1] += 0.25 * sign * stepping


def _gait(pose: Pose, phase: float, thigh: float, mean: float, knee: float, swing: float) -> None:
    """Legs in opposite phase, knees bent while a leg comes forwards, arms against the legs."""
    for side, shift in ((0, 0.0), (1, np.pi)):
        forwards = mean + thigh * np.sin(phase + shift)
        bent = 0.12 + knee * max(0.0, np.cos(phase + shift))
        pose.legs[side, :, 1] = (forwards, forwards - bent)
        pose.arms[side, :, 1] += -swing * np.sin(phase + shift)
    pose.tilt += 0.03 * np.sin(phase)


def _go(pose: Pose, t: float, style: Style, speed: float) -> None:
    """Across the picture, towards the camera, away from it, or on the spot; at the end of the way, turn back."""
    ways = ((0.45, np.pi / 2, style.reach), (0.7, 0.0, 0.8), (0.85, np.pi, 0.8), (1.1, 0.0, 0.0))
    _, heading, half = next(way for way in ways if style.route < way[0])
    heading = (1 if style.side else -1) * heading + 0.4 * (style.variant - 0.5)
    pose.heading = heading
    if half == 0:
        return
    leg = max(2 * half / speed, min(style.seconds, 2.5))  # never faster than the gait, never gone before the clip ends
    turns = style.seconds > leg
    lap, part = divmod(t / leg if turns else (t - style.seconds / 2) / leg + 0.5, 1.0)
    along = half * (2 * part - 1) * (-1 if lap % 2 else 1)
    pose.heading += np.pi * (lap + turns * _ease((part - 0.88) / 0.12))
    pose.place = (along * np.sin(heading), along * np.cos(heading))


def _walk(pose: Pose, t: float, style: Style) -> None:
    phase = 2 * np.pi * 0.95 * style.rate * t + style.phase
    pose.hips = 0.95 + 0.02 * np.cos(2 * phase)  # highest over the standing leg
    _gait(pose, phase, 0.42 * style.amplitude, 0.06, 0.6, 0.4 * style.amplitude)
    pose.arms[:, 1, 1] += 0.15
    _go(pose, t, style, 0.85 * style.rate)


def _run(pose: Pose, t: float, style: Style) -> None:
    phase = 2 * np.pi * 1.5 * style.rate * t + style.phase
    _gait(pose, phase, 0.75 * style.amplitude, 0.25, 1.35, 0.75 * style.amplitude)
    pose.arms[:, 1, 1] += 1.3
    pose.lean += 0.16
    pose.hips = 0.92 - 0.035 * style.amplitude * np.cos(2 * phase)  # highest in flight, legs apart
    _go(pose, t, style, 1.9 * style.rate)


MOTIONS: dict[str, Callable[[Pose, float, Style], None]] = {
    "bend": _bend, "jump": _jump, "jumping_jack": _jumping_jack, "run": _run, "sit": _sit, "stand": _stand, "turn": _turn,
    "walk": _walk, "wave_one_hand": _wave_one_hand, "wave_two_hands": _wave_two_hands, "idle": _idle,
}


# ---------------------------------------------------------------- skeleton and camera

@dataclass(frozen=True)
class Body:
    """Lengths and radii in body heights, colours BGR. `build` widens everything."""
    build: float = 1.0
    shoulder: float = 0.112
    hip: float = 0.062
    trunk: float = 0.29
    leg: float = 0.245       # thigh and shin, each
    arm: float = 0.165       # upper arm; the forearm is a little shorter
    head: float = 1.0
    skin: tuple = (150, 175, 215)
    shirt: tuple = (90, 60, 40)
    trousers: tuple = (60, 60, 60)
    shoes: tuple = (30, 30, 30)
    hair: tuple = (30, 40, 50)
    sleeve: str = "shirt"    # colour of the forearm: "shirt" or "skin"
    shorts: bool = False
    long_hair: bool = False
    pattern: tuple | None = None  # stripes: (number on the trunk, colour)


def _segment(angles: np.ndarray, side: int, length: float) -> np.ndarray:
    abduction, flexion = angles
    sign = 1 if side else -1
    return length * np.array([sign * np.sin(abduction), -np.cos(abduction) * np.cos(flexion),
                              np.cos(abduction) * np.sin(flexion)])


def _rotation(axis: str, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    rows = {"x": ((1, 0, 0), (0, c, -s), (0, s, c)), "y": ((c, 0, s), (0, 1, 0), (-s, 0, c)),
            "z": ((c, -s, 0), (s, c, 0), (0, 0, 1))}
    return np.array(rows[axis])


def _joints(pose: Pose, body: Body) -> dict[str, np.ndarray]:
    """World positions by joint name; L/R suffix for side 0/1. The lower foot stands on the floor (or `lift` above)."""
    pelvis, trunk = _rotation("y", pose.heading), _rotation("z", pose.tilt) @ _rotation("x", pose.lean)
    neck = trunk @ np.array([0, body.trunk + 0.015, 0])
    head = _rotation("z", pose.tilt) @ _rotation("x", 0.6 * pose.lean) @ _rotation("y", pose.gaze)
    joint = {"neck": neck, "waist": trunk @ np.array([0, 0.4 * body.trunk, 0])}
    for name, point in HEAD_POINTS.items():
        joint[name] = neck + head @ (body.head * np.array(point))
    for side, mark in enumerate("LR"):
        sign = 1 if side else -1
        joint["hip" + mark] = np.array([sign * body.hip, 0, 0])
        joint["waist" + mark] = trunk @ np.array([sign * 0.75 * body.shoulder, 0.35 * body.trunk, 0])
        joint["shoulder" + mark] = trunk @ np.array([sign * body.shoulder, body.trunk - 0.02 + 0.012 * pose.arms[side, 0, 0], 0])
        joint["elbow" + mark] = joint["shoulder" + mark] + trunk @ _segment(pose.arms[side, 0], side, body.arm)
        forearm = trunk @ _segment(pose.arms[side, 1], side, 1.0)
        joint["wrist" + mark] = joint["elbow" + mark] + 0.88 * body.arm * forearm
        joint["hand" + mark] = joint["wrist" + mark] + 0.06 * forearm
        joint["knee" + mark] = joint["hip" + mark] + _segment(pose.legs[side, 0], side, body.leg)
        joint["ankle" + mark] = joint["knee" + mark] + _segment(pose.legs[side, 1], side, body.leg)
        joint["toe" + mark] = joint["ankle" + mark] + np.array([0.15 * sign * 0.1, -0.02, 0.1])
    feet = np.array([joint["ankleL"], joint["ankleR"]])
    hips = -feet[:, 1].min() if pose.hips is None else 2 * body.leg * pose.hips
    shift = np.array([pose.place[0], pose.lift + 0.035 + hips, pose.place[1]])
    stand = pelvis @ np.array([0, 0, feet[:, 2].mean()])  # the feet keep their place, the hips move over them
    return {name: pelvis @ point + shift - stand for name, point in joint.items()}


HEAD_POINTS = {"crown": (0, 0.125, -0.012), "templeL": (-0.036, 0.135, 0.03), "templeR": (0.036, 0.135, 0.03), "fringe": (0, 0.15, 0.025),
                "face": (0, 0.105, 0.008),
               "chin": (0, 0.058, 0.02), "nape": (0, 0.07, -0.03), "eyeL": (-0.026, 0.112, 0.066), "eyeR": (0.026, 0.112, 0.066), "nose": (0, 0.092, 0.075),
               "mouthL": (-0.018, 0.066, 0.062), "mouthR": (0.018, 0.066, 0.062)}

# name, joints, radii in body heights, colour of Body; the nearer to the camera, the later it is painted
PARTS = tuple((part + mark, tuple(j + mark for j in joints), radii, colour) for mark in "LR" for part, joints, radii, colour in (
    ("foot", ("ankle", "toe"), (0.027, 0.022), "shoes"),
    ("shin", ("knee", "ankle"), (0.040, 0.028), "shin"),
    ("thigh", ("hip", "knee"), (0.062, 0.042), "trousers"),
    ("upper arm", ("shoulder", "elbow"), (0.037, 0.029), "shirt"),
    ("forearm", ("elbow", "wrist"), (0.029, 0.020), "sleeve"),
    ("hand", ("wrist", "hand"), (0.021, 0.024), "skin"),
)) + (
    ("pelvis", ("hipL", "hipR", "waistL", "waistR"), (0.058, 0.058, 0.046, 0.046), "trousers"),
    ("chest", ("shoulderL", "shoulderR", "waistL", "waistR"), (0.038, 0.038, 0.05, 0.05), "shirt"),
    ("neck", ("neck", "chin"), (0.032, 0.032), "skin"),
)


@dataclass(frozen=True)
class Camera:
    """Perspective camera at `height`, `distance` in front of the figure's place; `span` body heights fill the picture's
    height there, and its upper edge is at height `top`."""
    span: float
    top: float
    distance: float = 3.5
    height: float = 0.75
    roll: float = 0.0
    centre: float = 0.5  # where x = 0 appears, as a fraction of the width

    def project(self, points: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(N,3) world points -> (N,2) pixels and (N,) pixels per body height there; `size` is (height, width)."""
        rows, columns = size
        unit = rows / self.span * self.distance / np.maximum(self.distance - points[:, 2], 0.5)
        horizon = rows / self.span * (self.top - self.height)
        x, y = points[:, 0] * unit, horizon - (points[:, 1] - self.height) * unit - rows / 2
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.stack([c * x - s * y + self.centre * columns, s * x + c * y + rows / 2], axis=1), unit


# ---------------------------------------------------------------- painting

def _disc_hull(image: np.ndarray, centres: np.ndarray, radii: np.ndarray, colour: tuple) -> None:
    """Fill the convex hull of some discs: two discs make a tapered limb, four a trunk."""
    rim = CIRCLE[None] * np.asarray(radii, float)[:, None, None] + centres[:, None]
    points = np.round(np.clip(rim.reshape(-1, 2), -4000, 4000) * 2 ** SUBPIXEL).astype(np.int32)
    cv2.fillConvexPoly(image, cv2.convexHull(points), colour, cv2.LINE_AA, SUBPIXEL)


CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))], 1)


def _shade(colour: tuple, factor: float) -> tuple:
    return tuple(float(min(max(c * factor, 0), 255)) for c in colour)


def _paint_part(image: np.ndarray, centres: np.ndarray, radii: np.ndarray, colour: tuple, sun: np.ndarray) -> None:
    """A darker rim on the side away from the light makes a limb look round."""
    _disc_hull(image, centres, radii, _shade(colour, 0.72))
    _disc_hull(image, centres + sun * 0.22 * radii[:, None], 0.76 * radii, colour)


def _paint_stripes(image: np.ndarray, top: np.ndarray, bottom: np.ndarray, width: float, pattern: tuple) -> None:
    number, colour = pattern
    axis = bottom - top
    across = np.array([-axis[1], axis[0]]) / (np.hypot(*axis) + 1e-6) * width
    for k in range(number):
        middle = top + axis * (k + 0.5) / number
        ends = np.round(np.array([middle - across, middle + across]) * 2 ** SUBPIXEL).astype(int)
        cv2.line(image, ends[0].tolist(), ends[1].tolist(), colour, max(1, int(np.hypot(*axis) / number / 2)),
                 cv2.LINE_AA, SUBPIXEL)


def _paint_head(image: np.ndarray, pixel: dict, unit: float, body: Body, sun: np.ndarray, facing: float) -> None:
    """`facing` is 1 towards the camera, -1 away from it: only a face that can be seen is drawn."""
    r = unit * body.head
    hair = [pixel["crown"], pixel["nape"]]
    if body.long_hair:
        hair.append(pixel["nape"] + [0, 0.09 * r])
    skull = (np.array([pixel["face"], pixel["chin"]]), np.array([0.057, 0.042]) * r, body.skin, sun)
    cap = (np.array(hair), np.array([0.058, 0.040, 0.052][:len(hair)]) * r, body.hair, sun)
    for paint in ((cap, skull) if facing > -0.2 else (skull, cap)):
        _paint_part(image, *paint)
    if facing > -0.2:  # a fringe from temple to temple
        _disc_hull(image, np.array([pixel["templeL"], pixel["fringe"], pixel["templeR"]]), np.array([0.016, 0.024, 0.016]) * r, body.hair)
    if facing > 0.15:
        dark = _shade(body.skin, 0.45)
        for name, radius in (("eyeL", 0.009), ("eyeR", 0.009), ("nose", 0.006)):
            _disc_hull(image, pixel[name][None], np.array([radius * r]), dark if name == "nose" else (35, 30, 30))
        _disc_hull(image, np.array([pixel["mouthL"], pixel["mouthR"]]), np.full(2, 0.006 * r), dark)


def _paint_figure(image: np.ndarray, pose: Pose, body: Body, camera: Camera, sun: np.ndarray, head: Callable = _paint_head) -> None:
    joint = _joints(pose, body)
    world = np.array(list(joint.values()))
    pixels, units = camera.project(world, image.shape[:2])
    pixel, unit = dict(zip(joint, pixels)), dict(zip(joint, units))
    colours = {name: getattr(body, name) for name in ("skin", "shirt", "trousers", "shoes")}
    colours |= {"sleeve": colours[body.sleeve], "shin": body.skin if body.shorts else body.trousers}

    def depth(part: tuple) -> float:  # the trunk first where an arm hangs beside it
        return np.mean([joint[j][2] for j in part[1]]) - (0.03 if part[0] in ("chest", "pelvis", "neck") else 0.0)

    order = sorted(PARTS + (("head", ("face", "crown"), (), ""),), key=depth)
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


# ---------------------------------------------------------------- what a seed fixes

SKINS = ((205, 220, 245), (170, 195, 235), (140, 170, 220), (110, 145, 200), (75, 110, 165), (50, 75, 120), (35, 50, 85))


def _colour(rng: np.random.Generator, saturation: float = 200, value: tuple[float, float] = (25, 245)) -> tuple:
    hsv = np.uint8([[[rng.integers(180), rng.uniform(0, saturation), rng.uniform(*value)]]])
    return tuple(float(c) for c in cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0])


def _draw_body(rng: np.random.Generator) -> Body:
    return Body(
        build=rng.uniform(0.82, 1.3), shoulder=rng.uniform(0.088, 0.115), hip=rng.uniform(0.052, 0.072),
        trunk=rng.uniform(0.27, 0.31), leg=rng.uniform(0.225, 0.26), arm=rng.uniform(0.15, 0.18), head=rng.uniform(0.9, 1.2),
        skin=_shade(SKINS[rng.integers(len(SKINS))], rng.uniform(0.85, 1.1)), shirt=_colour(rng), trousers=_colour(rng, 130, (20, 200)),
        shoes=_colour(rng, 80), hair=_colour(rng, 90, (10, 130)), sleeve="skin" if rng.random() < 0.5 else "shirt",
        shorts=rng.random() < 0.2, long_hair=rng.random() < 0.35,
        pattern=(int(rng.integers(3, 9)), _colour(rng)) if rng.random() < 0.35 else None)


def _draw_camera(rng: np.random.Generator) -> Camera:
    """Full body (55 %), to the knees (25 %) or the upper body as in front of a webcam (20 %)."""
    top, framing = rng.uniform(1.06, 1.36), rng.random()
    span = top + rng.uniform(0.05, 0.8) if framing < 0.55 else rng.uniform(0.9, 1.1) if framing < 0.8 else rng.uniform(0.62, 0.85)
    return Camera(span, top, rng.uniform(2.4, 5), rng.uniform(0.5, 1.1), rng.normal(0, 0.03), 0.5 + rng.uniform(-0.12, 0.12))


def _draw_heading(rng: np.random.Generator) -> float:
    """Mostly towards the camera, sometimes aside, rarely away."""
    spread = rng.choice([0.3, 1.6, 0.4], p=[0.6, 0.32, 0.08])
    return float(rng.uniform(-spread, spread) + (np.pi if spread == 0.4 else 0))


def _draw_room(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A wall, a floor, texture, furniture and blobs; larger than the picture so that a shaking camera stays inside."""
    rows, columns = (round(1.1 * n) for n in size)
    ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    room = (1 - ramp) * np.float32(_colour(rng, 110)) + ramp * np.float32(_colour(rng, 110)) + np.zeros((1, columns, 1), np.float32)
    floor = int(rows * rng.uniform(0.6, 1.0))
    room[floor:] = 0.4 * room[floor:] + 0.6 * np.float32(_colour(rng, 90))
    for cells, strength in ((rng.integers(4, 12), 25), (rng.integers(15, 60), 14)):
        noise = rng.normal(0, strength * rng.random(), (int(cells), int(cells), 1)).astype(np.float32)
        room += cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)[:, :, None]
    room = np.clip(room, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 7)):
        x, y = int(rng.uniform(-0.1, 1) * columns), int(rng.uniform(-0.1, 0.9) * rows)
        w, h = int(rng.uniform(0.05, 0.4) * columns), int(rng.uniform(0.05, 0.6) * rows)
        if rng.random() < 0.7:
            cv2.rectangle(room, (x, y), (x + w, y + h), _colour(rng, 150), -1 if rng.random() < 0.7 else 3)
        else:
            cv2.ellipse(room, (x, y), (w // 2, h // 4), float(rng.uniform(0, 180)), 0, 360, _colour(rng, 150), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(0.4, 2.5))


@dataclass(frozen=True)
class Look:
    """Everything that a seed fixes apart from the action."""
    body: Body
    camera: Camera
    heading: float
    elbow: float
    sun: np.ndarray          # direction towards the light, in the picture
    room: np.ndarray
    tones: np.ndarray        # uint8 (256,1,3): exposure, gamma and colour cast as a look-up table
    noise: np.ndarray        # int16, larger than the picture
    softness: float          # blur of the lens, pixels
    shake: float             # of the camera, as a fraction of the picture's height
    distractor: tuple | None  # colour, radius, height in the picture, speed


def _draw_look(seed: int, size: tuple[int, int]) -> Look:
    rng = np.random.default_rng((seed, 1))
    body, camera, heading = _draw_body(rng), _draw_camera(rng), _draw_heading(rng)
    light = rng.choice([rng.uniform(0.75, 1.2), rng.uniform(0.3, 0.75), rng.uniform(0.06, 0.25)], p=[0.6, 0.25, 0.15])
    levels = light * (np.arange(256) / 255) ** rng.uniform(0.75, 1.35)
    tones = np.clip(255 * levels[:, None] * rng.uniform(0.9, 1.1, 3), 0, 255).astype(np.uint8)[:, None]
    angle, blurred, shaky, busy = rng.uniform(0, 2 * np.pi), rng.random() < 0.4, rng.random() < 0.35, rng.random() < 0.15
    noise = rng.normal(0, rng.uniform(0.5, 6), (size[0] + 24, size[1] + 24, 3)).round().astype(np.int16)
    return Look(body, camera, heading, rng.uniform(0.1, 0.6), np.array([np.cos(angle), np.sin(angle)]), _draw_room(rng, size), tones,
                noise, rng.uniform(0.4, 1.4) * blurred, rng.uniform(0.002, 0.012) * shaky,
                (_colour(rng), rng.uniform(0.03, 0.1), rng.uniform(0.1, 0.9), rng.uniform(-0.2, 0.2)) if busy else None)


def _draw_style(action: str, seed: int, look: Look, seconds: float, size: tuple[int, int]) -> Style:
    rng = np.random.default_rng((seed, 2, zlib.crc32(action.encode())))
    return Style(seconds=seconds, heading=look.heading, reach=0.5 * look.camera.span * size[1] / size[0], rate=rng.uniform(0.75, 1.3),
                 phase=rng.uniform(0, 2 * np.pi), amplitude=rng.uniform(0.75, 1.2), variant=rng.random(), route=rng.random(),
                 side=int(rng.integers(2)), start=rng.uniform(0.05, 0.3) * min(seconds, 2.5), elbow=look.elbow)


def _expose(picture: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of the scene: blur, exposure, noise."""
    if look.softness:
        picture = cv2.GaussianBlur(picture, (0, 0), look.softness)
    picture = cv2.LUT(picture, look.tones)
    y, x = rng.integers(0, 24, 2)
    grain = look.noise[y:y + picture.shape[0], x:x + picture.shape[1]]
    return cv2.add(picture, grain[:, ::rng.choice((-1, 1))], dtype=cv2.CV_8U)


def draw_action(action: str, seed: int, seconds: float = 2.5, size: tuple[int, int] = (240, 320), fps: float = 25) -> list[np.ndarray]:
    """A drawn person doing one of ACTIONS, or standing "idle".

    `seed` is the person: body, clothes, viewpoint, room, light and camera are the same for every action of that seed.
    Returns round(seconds * fps) BGR uint8 frames of `size` (height, width). Raises ValueError for another action.
    """
    if action not in MOTIONS:
        raise ValueError(f"unknown action {action!r}; known: {', '.join(sorted(MOTIONS))}")
    look = _draw_look(seed, size)
    style = _draw_style(action, seed, look, seconds, size)
    grain = np.random.default_rng((seed, 3))
    frames = []
    for k in range(round(seconds * fps)):
        t = k / fps
        pose = _rest(t, style)
        MOTIONS[action](pose, t, style)
        frames.append(_expose(_paint_scene(look, pose, t, size), look, grain))
    return frames


def _paint_scene(look: Look, pose: Pose, t: float, size: tuple[int, int]) -> np.ndarray:
    rows, columns = size
    margin = np.array(look.room.shape[:2]) // 2 - np.array(size) // 2
    shift = look.shake * rows * np.array([np.sin(7.1 * t) + np.sin(2.3 * t), np.sin(5.3 * t + 1) + np.sin(1.7 * t)])
    y, x = np.clip(np.round(margin + shift), 0, 2 * margin).astype(int)
    picture = look.room[y:y + rows, x:x + columns].copy()
    if look.distractor:
        colour, radius, height, speed = look.distractor
        place = (int((0.5 + 0.4 * np.sin(2 * speed * t + 9 * height)) * columns), int(height * rows))
        cv2.circle(picture, place, int(radius * rows), colour, -1, cv2.LINE_AA)
    shaken = Camera(**{**vars(look.camera), "top": look.camera.top - shift[0] / rows * look.camera.span,
                       "centre": look.camera.centre - shift[1] / columns})
    _paint_figure(picture, pose, look.body, shaken, look.sun)
    return picture


# ---------------------------------------------------------------- faces

# What an expression does to a face, after the facial action units that Ekman and Friesen list for it: brows (inner and outer
# end up, pinched together), upper lid, lower lid squint, nose wrinkle, mouth (corners up, open, wide, upper lip up, teeth).
FACE_MOVES = ("inner", "outer", "pinch", "lid", "squint", "nose", "corner", "open", "wide", "upper", "teeth")
FACE_SHAPES = {
    "angry":    (-1.0, 0.4, 1.0, 0.3, 0.6, 0.4, -0.5, 0.25, 0.0, 0.2, 0.4),
    "disgust":  (-0.6, -0.2, 0.6, -0.4, 0.9, 1.0, -0.5, 0.25, -0.1, 1.0, 0.3),
    "fear":     (0.9, 0.2, 0.6, 0.9, 0.1, 0.0, -0.3, 0.55, 0.35, 0.1, 0.4),
    "happy":    (0.1, 0.1, 0.0, -0.2, 0.7, 0.1, 1.0, 0.4, 0.5, 0.2, 0.9),
    "neutral":  (0.0,) * 11,
    "sad":      (0.9, -0.5, 0.4, -0.5, 0.2, 0.0, -0.8, 0.0, -0.1, 0.0, 0.0),
    "surprise": (1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.1, -0.4, 0.0, 0.1),
}
CANVAS = 144  # faces are drawn at three times the final 48 pixels


def draw_expression(label: str, seed: int) -> np.ndarray:
    """A drawn face, framed as in FER-2013 (the face fills the picture): uint8 (48, 48) gray.

    `seed` is the person; the same person shows every expression, each time with another pose, light and strength.
    Raises ValueError for a label that is not in EXPRESSIONS.
    """
    if label not in FACE_SHAPES:
        raise ValueError(f"unknown expression {label!r}; known: {', '.join(EXPRESSIONS)}")
    person = np.random.default_rng((seed, 4))
    shot = np.random.default_rng((seed, 5, zlib.crc32(label.encode())))
    strength = shot.uniform(0.6, 1.2)
    move = dict(zip(FACE_MOVES, strength * np.array(FACE_SHAPES[label]) + shot.normal(0, 0.1, len(FACE_MOVES))))
    face = _Face(person, shot)
    face.paint_skin()
    face.paint_folds(move)
    face.paint_eyes(move)
    face.paint_mouth(move)
    face.paint_hair_and_glasses()
    picture = cv2.resize(cv2.GaussianBlur(face.image, (0, 0), shot.uniform(0.7, 2.2)), (48, 48), interpolation=cv2.INTER_AREA)
    return np.clip(picture + shot.normal(0, shot.uniform(1, 6), picture.shape), 0, 255).astype(np.uint8)


class _Face:
    """A face on a gray float canvas. Face coordinates: x and y in -1..1, y down, eyes at -0.25, mouth at 0.5."""

    def __init__(self, person: np.random.Generator, shot: np.random.Generator) -> None:
        self.skin = person.uniform(85, 215)
        self.width, self.eye_gap, self.eye_size = person.uniform(0.8, 0.98), person.uniform(0.36, 0.44), person.uniform(0.85, 1.2)
        self.brow_height, self.brow_weight = person.uniform(0.18, 0.25), person.uniform(0.03, 0.07)
        self.mouth_width, self.lips, self.nose = person.uniform(0.28, 0.38), person.uniform(0.7, 1.4), person.uniform(0.8, 1.2)
        self.hair, self.hairline = person.uniform(10, 170), person.uniform(-1.15, -0.65)
        self.age, self.beard, self.glasses = person.random() ** 2, person.random() < 0.15, person.random() < 0.2
        self.light = np.array([*shot.uniform(-0.8, 0.8, 2), 0.9])
        self.exposure, self.yaw = shot.uniform(0.6, 1.15), shot.normal(0, 0.07)
        self.backdrop = shot.uniform(10, 245)
        roll, scale = shot.normal(0, 0.07), CANVAS / 2 * shot.uniform(1.0, 1.16)
        self.axes = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        self.origin = CANVAS / 2 + shot.normal(0, 0.02 * CANVAS, 2)
        self.image = np.full((CANVAS, CANVAS), self.backdrop, np.float32)

    def _pixels(self, points: Sequence) -> np.ndarray:
        points = np.array(points, float)
        points[:, 0] = points[:, 0] * self.width + self.yaw * (1 - points[:, 0] ** 2)  # the middle moves most when a head turns
        return np.round((points @ self.axes.T + self.origin) * 2 ** SUBPIXEL).astype(np.int32)

    def _fill(self, points: Sequence, tone: float) -> None:
        cv2.fillPoly(self.image, [self._pixels(points)], float(tone), cv2.LINE_AA, SUBPIXEL)

    def _line(self, points: Sequence, tone: float, weight: float, opacity: float = 1.0) -> None:
        layer = self.image.copy()
        cv2.polylines(layer, [self._pixels(points)], False, float(tone), max(1, round(weight * CANVAS / 2)), cv2.LINE_AA, SUBPIXEL)
        cv2.addWeighted(layer, opacity, self.image, 1 - opacity, 0, self.image)

    def _ring(self, x: float, y: float, a: float, b: float) -> np.ndarray:
        return np.array([x, y]) + CIRCLE * [a, b]

    def paint_skin(self) -> None:
        """An ellipsoid under one lamp, with darker eye sockets and a nose that catches the light."""
        inverse = np.linalg.inv(self.axes)
        y, x = np.mgrid[:CANVAS, :CANVAS]
        x, y = np.tensordot(inverse, np.stack([x - self.origin[0], y - self.origin[1]]), 1)
        x, y = x / self.width, y / 1.12
        depth = np.sqrt(np.maximum(1 - x ** 2 - y ** 2, 0))
        shade = 0.55 + 0.45 * (x * self.light[0] + y * self.light[1] + depth * self.light[2])
        for side in (-1, 1):
            shade -= 0.22 * np.exp(-((x - side * self.eye_gap - self.yaw) ** 2 / 0.05 + (y + 0.24) ** 2 / 0.02))
        shade += 0.15 * np.exp(-((x - self.yaw) ** 2 / 0.006 + (y - 0.05) ** 2 / 0.06))
        shade -= 0.3 * self.beard * np.exp(-(x ** 2 / 0.35 + (y - 0.65) ** 2 / 0.06))
        inside = np.clip((1 - x ** 2 - y ** 2) * 12, 0, 1)
        self.image = (inside * self.skin * self.exposure * np.clip(shade, 0.12, 1.4) + (1 - inside) * self.image).astype(np.float32)
        self.tone = self.skin * self.exposure

    def paint_folds(self, move: dict) -> None:
        """Nose, nasolabial folds, frown and forehead lines; the older the person, the deeper."""
        dark, n = 0.5 * self.tone, self.nose
        self._line([(-0.13 * n, 0.2), (-0.06 * n, 0.24), (0, 0.22), (0.06 * n, 0.24), (0.13 * n, 0.2)], dark, 0.03, 0.8)
        fold = 0.15 + 0.3 * self.age + 0.4 * max(move["corner"], 0) + 0.45 * max(move["nose"], 0)
        frown = 0.7 * max(move["pinch"], 0)
        raised = 0.5 * max(move["inner"], 0) + 0.2 * self.age
        cheek = 0.06 * move["corner"]
        for s in (-1, 1):
            self._line([(s * 0.17, 0.13), (s * (0.3 + cheek), 0.3), (s * (0.38 + cheek), 0.48)], dark, 0.03, min(fold, 0.9))
            self._line([(s * 0.06, -0.42), (s * 0.05, -0.3)], dark, 0.03, min(frown, 0.9))
            self._line([(s * 0.05, -0.12), (s * 0.14, -0.05)], dark, 0.03, min(0.8 * max(move["nose"], 0), 0.9))
        for y in (-0.62, -0.72):
            self._line([(-0.35, y + 0.02), (0, y - 0.02), (0.35, y + 0.02)], dark, 0.02, min(raised, 0.8))

    def paint_eyes(self, move: dict) -> None:
        opened = np.clip(0.075 * self.eye_size * (1 + 0.55 * move["lid"] - 0.45 * move["squint"]), 0.012, 0.16)
        for s in (-1, 1):
            x, y, half = s * self.eye_gap, -0.24, 0.15 * self.eye_size
            upper = [(x - half, y), (x - half / 2, y - opened), (x + half / 2, y - opened), (x + half, y)]
            lower = [(x + half / 2, y + 0.7 * opened), (x - half / 2, y + 0.7 * opened)]
            self._fill(upper + lower, min(1.35 * self.tone, 245))
            self._fill(self._ring(x, y, 0.065, min(0.065, opened)), 25)
            self._line(upper, 0.25 * self.tone, 0.03)
            self._line([upper[3], *lower, upper[0]], 0.55 * self.tone, 0.02, 0.7)
            top = y - self.brow_height
            inner = (s * (0.17 - 0.05 * move["pinch"]), top - 0.11 * move["inner"] + 0.03 * move["squint"])
            middle = (s * 0.38, top - 0.05 - 0.05 * (move["inner"] + move["outer"]))
            outer = (s * 0.6, top + 0.03 - 0.1 * move["outer"])
            self._line([inner, middle, outer], min(self.hair, 0.5 * self.tone), self.brow_weight)

    def paint_mouth(self, move: dict) -> None:
        """Two lips around an opening that is dark, or shows teeth."""
        half = self.mouth_width * (1 + 0.35 * move["wide"])
        corner, opened = 0.53 - 0.11 * move["corner"], max(0.14 * move["open"], 0)
        top, bottom, lip = 0.5 - 0.06 * move["upper"] - 0.3 * opened, 0.53 + 1.3 * opened, 0.045 * self.lips
        x = np.linspace(-1, 1, 9)
        bow = 1 - x ** 2
        edge = corner + 0 * x
        upper, lower = edge + (top - corner) * bow, edge + (bottom - corner) * bow
        outer = np.concatenate([np.stack([half * 1.06 * x, upper - lip * bow], 1), np.stack([half * 1.06 * x, lower + lip * bow], 1)[::-1]])
        inner = np.concatenate([np.stack([half * x, upper], 1), np.stack([half * x, lower], 1)[::-1]])
        self._fill(outer, 0.68 * self.tone)
        self._fill(inner, 0.22 * self.tone)
        if move["teeth"] > 0.25:
            biting = np.minimum(upper + 0.09, lower)
            self._fill(np.concatenate([np.stack([0.9 * half * x, upper], 1), np.stack([0.9 * half * x, biting], 1)[::-1]]), min(1.4 * self.tone, 240))
        self._line(np.stack([half * x, upper], 1), 0.3 * self.tone, 0.02, 0.8)

    def paint_hair_and_glasses(self) -> None:
        x = np.linspace(-1.2, 1.2, 9)
        self._fill([(-1.3, -1.6), *zip(x, self.hairline + 0.45 * x ** 2), (1.3, -1.6)], self.hair * self.exposure)
        if self.glasses:
            for s in (-1, 1):
                rim = self._ring(s * self.eye_gap, -0.22, 0.25, 0.19)
                self._line(np.concatenate([rim, rim[:1]]), 20, 0.03, 0.9)
            self._line([(-0.13, -0.26), (0.13, -0.26)], 20, 0.03, 0.9)


# ---------------------------------------------------------------- sample sets

def _write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Writes beside the target first: an interrupted run leaves no half clip that looks whole."""
    part = path.with_name("part_" + path.name)
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), fps, frame.shape[1::-1])
            if not writer.isOpened():
                raise OSError(f"cannot write a video to {part}")
        writer.write(frame)
    writer.release()
    part.replace(path)


def write_action_samples(folder: str | Path, people: Iterable[int], actions: Sequence[str] = ACTIONS, seconds: float = 2.5,
                         size: tuple[int, int] = (240, 320), fps: float = 25) -> Path:
    """`<folder>/<action>/personNNN.mp4` for each seed in `people`, and groups.csv (label,file,group; the group is the person).

    Clips that are already there are kept, so a second call is cheap. Returns the folder.
    """
    folder = Path(folder)
    for action in actions:
        (folder / action).mkdir(parents=True, exist_ok=True)
        for seed in people:
            path = folder / action / f"person{seed:03d}.mp4"
            if not path.exists():
                _write_video(path, draw_action(action, seed, seconds, size, fps), fps)
    with open(folder / "groups.csv", "w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(("label", "file", "group"))
        rows.writerows((path.parent.name, path.name, path.stem) for path in sorted(folder.glob("*/person*.mp4")))
    return folder


def write_emotion_samples(folder: str | Path, per_class: int, test_per_class: int | None = None) -> Path:
    """FER-2013's layout: `train/<class>/*.png` and `test/<class>/*.png` (a quarter as many unless told), 48x48 gray.

    Nobody in test/ is in train/. Files that are already there are kept. Returns the folder.
    """
    folder = Path(folder)
    test_per_class = max(1, per_class // 4) if test_per_class is None else test_per_class
    for split, first, count in (("train", 0, per_class), ("test", FIRST_TEST_SEED, test_per_class)):
        for label in EXPRESSIONS:
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            for seed in range(first, first + count):
                path = folder / split / label / f"person{seed:07d}.png"
                if not path.exists():
                    cv2.imwrite(str(path), draw_expression(label, seed))
    return folder
