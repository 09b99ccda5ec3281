"""A skeleton that moves: poses over time for each action, and joints in three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Pose:
    """One moment of the skeleton.

    Segment angles are (abduction, flexion): how far a limb is raised sideways and forwards, (0, 0)
    hanging down. Side 0 is left in the image when the figure faces the camera, side 1 right.
    """

    # axes: side, upper arm | forearm or thigh | shin, angle
    arms: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, 2)))
    legs: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, 2)))
    heading: float = 0.0  # 0 faces the camera
    lean: float = 0.0  # trunk forwards
    tilt: float = 0.0  # trunk sideways
    gaze: float = 0.0  # head turned relative to the trunk
    lift: float = 0.0  # height of the lower foot above the floor
    hips: float | None = None  # height of the hips in leg lengths; None: as high as the lower foot allows
    place: tuple[float, float] = (0.0, 0.0)  # where the feet are on the floor: x, z


@dataclass(frozen=True)
class Style:
    """How one person does one action: sampled once per clip."""

    seconds: float
    heading: float  # where the person looks before the action
    reach: float  # body heights from the middle of the image to its edge
    rate: float  # 1 is the usual tempo
    phase: float  # 0..2 pi
    amplitude: float  # 1 is the usual size of the movement
    variant: float  # 0..1, which of the ways of doing it
    route: float  # 0..1, which of the ways through the room
    side: int  # 0 or 1
    start: float  # when a single movement begins
    elbow: float  # how bent the arms are at rest

    def wave(self, hertz: float, t: float, delay: float = 0.0) -> float:
        return float(np.sin(2 * np.pi * hertz * self.rate * t + self.phase - delay))


def ease(x: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _keys(u: float, times: Sequence[float], values: Sequence[float]) -> float:
    """Value at u between key-frames, easing in and out of each."""
    last = len(times) - 2
    k = min(max(int(np.searchsorted(times, u, side="right")) - 1, 0), last)
    return values[k] + (values[k + 1] - values[k]) * ease((u - times[k]) / (times[k + 1] - times[k]))


def rest(t: float, style: Style) -> Pose:
    """Standing still is not frozen: breathing, weight shifting from leg to leg, a look around."""
    sway = style.wave(0.23, t)
    pose = Pose(
        heading=style.heading + 0.03 * sway,
        tilt=0.018 * sway,
        lean=0.03 + 0.01 * style.wave(0.31, t, 1),
    )
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
    """From a whole arm swung over the head (variant 0) to a waving forearm (variant 1)."""
    raised = ease((t - style.start + 0.7) / 0.5)
    pose.heading *= 0.6  # people face whom they wave at
    for side in sides:
        # a few wave their hands in parallel
        opposite = np.pi if side == 1 and style.route > 0.85 else 0.0
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
    if style.route > 0.35:  # the others move their arms alone, as many do in front of a webcam
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
    """Crouch with the arms back, take off, fly, land on bent knees; once or again and again, in place or forwards."""
    once = style.phase < np.pi
    cycles = (
        min(max((t - style.start) * style.rate / 1.3, 0.0), 1.0) if once else t * style.rate / 1.3 + style.start / 3
    )
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
        total = 1.0 if once else style.seconds * style.rate / 1.3
        step = min((0.9 if once else 0.45) * style.amplitude, 1.4 * style.reach / max(total, 1))
        travelled = step * (count + ease(flight) - total / 2)
        pose.place = (travelled * np.sin(pose.heading), travelled * np.cos(pose.heading))


def _seated(pose: Pose, style: Style, p: float) -> None:
    """Between standing (p = 0) and sitting (p = 1), leaning forwards in between to keep balance."""
    moving = np.sin(np.pi * p)
    pose.lean += (0.35 + 0.8 * style.variant) * moving + 0.1 * (style.route - 0.3) * p
    pose.legs[:, 0, 1] = (1.4 + 0.2 * style.amplitude - 0.2 * style.variant) * p
    pose.legs[:, 1, 1] = (0.25 * style.route - 0.15) * p
    pose.legs[:, :, 0] += 0.15 * style.variant * p
    pose.arms[:, 0, 1] += 0.5 * moving + 0.3 * p
    pose.arms[:, 1, 1] += 0.5 * moving + (0.9 - style.elbow) * p


def _sit(pose: Pose, t: float, style: Style) -> None:
    _seated(pose, style, ease((t - style.start) * style.rate / 1.2))


def _stand(pose: Pose, t: float, style: Style) -> None:
    _seated(pose, style, 1 - ease((t - style.start) * style.rate / 1.1))


def _turn(pose: Pose, t: float, style: Style) -> None:
    """Turn round on the spot with small steps, the head first; wait, turn on."""
    u = (t - style.start) * style.rate / 2.4
    angle = (1 if style.side else -1) * (1.6 + 1.6 * style.variant)
    turned, ahead = (np.floor(v) + ease((v % 1.0) * 1.7) for v in (max(u, 0.0), max(u + 0.04, 0.0)))
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
    """Across the image, towards the camera, away (some far off, as in a corridor), or on the spot; back at the end."""
    # up to which route, heading, half the way's length, and how much further into the room it may go (body heights)
    ways = ((0.4, np.pi / 2, style.reach, 0), (0.65, 0.0, 1.4, 3.0), (0.9, np.pi, 1.4, 3.0), (1.1, 0.0, 0.0, 0))
    _, heading, half, deep = next(way for way in ways if style.route < way[0])
    far = 12 * (style.route - 0.4) % deep if deep else 0.0
    heading = (1 if style.side else -1) * heading + 0.4 * (style.variant - 0.5)
    pose.heading = heading
    if half == 0:
        return
    half += far
    # seconds for one way: never faster than the gait, never gone before a short clip ends
    leg = max(2 * half / speed, min(style.seconds, 2.5))
    turns = style.seconds > leg
    lap, part = divmod(t / leg if turns else (t - style.seconds / 2) / leg + 0.5, 1.0)
    along = half * (2 * part - 1) * (-1 if lap % 2 else 1)
    pose.heading += np.pi * (lap + turns * ease((part - 0.88) / 0.12))
    pose.place = (along * np.sin(heading), along * np.cos(heading) - far)


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
    "bend": _bend,
    "jump": _jump,
    "jumping_jack": _jumping_jack,
    "run": _run,
    "sit": _sit,
    "stand": _stand,
    "turn": _turn,
    "walk": _walk,
    "wave_one_hand": _wave_one_hand,
    "wave_two_hands": _wave_two_hands,
    "idle": _idle,
}


def _hold(pose: Pose, side: int, share: float, upper: Sequence[float], fore: Sequence[float]) -> None:
    """One arm moved towards these (abduction, flexion) of upper arm and forearm, `share` of the way."""
    pose.arms[side] += share * (np.array([upper, fore]) - pose.arms[side])


def _held(t: float, style: Style, rise_s: float = 0.5) -> float:
    """0 before the movement, 1 while it is held; half of the people take the arm down again before the clip ends."""
    up = ease((t - style.start) / rise_s)
    return up - (ease((t - style.seconds + 0.7) / 0.5) if style.phase < np.pi else 0.0)


def _low_wave(pose: Pose, t: float, style: Style) -> None:
    """Upper arm down or a little aside, forearm upright, a small swing from the elbow or the wrist."""
    held, quick = ease((t - style.start + 0.5) / 0.5), 1.2 + 1.2 * style.route
    swing = (0.18 + 0.3 * style.amplitude * style.variant) * style.wave(quick, t)
    pose.heading *= 0.6
    upper = (0.2 + 1.1 * style.variant + 0.05 * swing, 0.1 + 0.5 * style.route)
    _hold(pose, style.side, held, upper, (2.85 + swing, -0.35))


def _raise_hand(pose: Pose, t: float, style: Style) -> None:
    """One arm up and kept there: straight, or bent with the hand beside or above the head."""
    bent = max(0.0, 1.6 * style.variant - 0.6)
    upper = (2.75 - 1.3 * bent + 0.15 * style.amplitude, -0.1)
    fore = (2.9 + 0.15 * bent, -0.15)
    pose.heading *= 0.8
    tremble = 0.03 * style.wave(0.5, t)
    _hold(pose, style.side, _held(t, style), (upper[0] + tremble, upper[1]), (fore[0] + tremble, fore[1]))


def _point_at(pose: Pose, t: float, style: Style) -> None:
    """One arm stretched aside or half forwards and kept there; some only turn a bent forearm out."""
    ahead = 1.1 * style.variant if style.route < 0.8 else 0.2
    level = np.pi / 2 + 0.2 * (style.amplitude - 1)
    upper, fore = (level * np.cos(0.6 * ahead), ahead), (level * np.cos(0.5 * ahead), ahead)
    if style.route > 0.7:  # elbow at the body
        upper, fore = (0.35 + 0.4 * style.variant, 0.1), (1.75 + 0.2 * style.amplitude - 0.4 * style.variant, 0.2)
    pose.heading *= 0.8
    pose.gaze += (1 if style.side else -1) * 0.5 * _held(t, style) * style.variant
    _hold(pose, style.side, _held(t, style), upper, fore)


def _squat(pose: Pose, t: float, style: Style) -> None:
    """Down on bent knees with a straight back, the arms forwards, and up again."""
    down = style.amplitude * (0.5 - 0.5 * np.cos(2 * np.pi * max(0.0, t - style.start) * style.rate / 1.8))
    pose.legs[:, 0, 1] = 1.15 * down
    pose.legs[:, 1, 1] = -0.85 * down
    pose.legs[:, :, 0] += 0.25 * style.variant * down
    pose.lean += 0.45 * down
    pose.arms[:, :, 1] += (1.2 if style.route > 0.35 else 0.2) * down


def _stop(pose: Pose, t: float, style: Style) -> None:
    """The palm shown to the camera at the height of chest or shoulder, and kept there; sometimes both."""
    for side in (0, 1) if style.route > 0.8 else (style.side,):
        upper = (0.2 + 0.3 * style.variant, 0.3 + 0.9 * style.amplitude * style.variant)
        _hold(pose, side, _held(t, style), upper, (0.15, 1.4 + 0.6 * style.route))


def _beckon(pose: Pose, t: float, style: Style) -> None:
    """The forearm drawn towards the body again and again, in front of it."""
    swing = 0.5 * style.amplitude * style.wave(1.1 + 0.5 * style.route, t)
    upper = (0.2 + 0.3 * style.variant, 0.4 + 0.1 * swing)
    _hold(pose, style.side, ease((t - style.start + 0.4) / 0.5), upper, (0.25, 1.7 + swing))


def _slow_down(pose: Pose, t: float, style: Style) -> None:
    """A flat hand pressed down, in front or aside, again and again."""
    swing = 0.35 * style.amplitude * style.wave(0.7 + 0.6 * style.route, t)
    aside = 1.2 * style.variant
    upper, fore = (0.2 + aside, 0.3 + 0.3 * swing), (0.3 + aside, 1.1 + swing)
    _hold(pose, style.side, ease((t - style.start + 0.4) / 0.5), upper, fore)


def _fidget(pose: Pose, t: float, style: Style) -> None:
    """A hand to the face, the hip or the other arm, and away again; a shrug; a look around."""
    near = _held(t, style, 0.7)
    face, hip, arm = ((0.5, 0.8), (-0.5, 2.5)), ((0.6, -0.3), (-0.6, 0.4)), ((0.1, 0.4), (-1.0, 1.5))
    target = face if style.variant < 0.4 else hip if style.variant < 0.7 else arm
    for side in (0, 1) if style.route > 0.7 else (style.side,):
        _hold(pose, side, near, *target)
    pose.gaze += 0.7 * style.wave(0.4, t) * style.amplitude * (style.route < 0.5)
    pose.tilt += 0.08 * style.wave(0.3, t)


# More that one person does. Some people wave low; of the others "webcam" has real ones.
GESTURES: dict[str, Callable[[Pose, float, Style], None]] = {
    "low_wave": _low_wave,
    "point": _point_at,
    "raise_hand": _raise_hand,
    "squat": _squat,
}
# Movements that are none of the actions: what a network must not answer to.
OTHER_MOTIONS: dict[str, Callable[[Pose, float, Style], None]] = {
    "beckon": _beckon,
    "fidget": _fidget,
    "slow_down": _slow_down,
    "stop": _stop,
}


# x, y, z from the base of the neck, in body heights
_HEAD_POINTS = {
    "crown": (0, 0.125, -0.012),
    "fringe": (0, 0.15, 0.025),
    "face": (0, 0.105, 0.008),
    "chin": (0, 0.058, 0.02),
    "nape": (0, 0.07, -0.03),
    "locks": (0, -0.01, -0.055),
    "templeL": (-0.036, 0.135, 0.03),
    "templeR": (0.036, 0.135, 0.03),
    "nose": (0, 0.09, 0.062),
    "eyeL": (-0.024, 0.112, 0.052),
    "eyeR": (0.024, 0.112, 0.052),
    "mouthL": (-0.018, 0.064, 0.052),
    "mouthR": (0.018, 0.064, 0.052),
}


@dataclass(frozen=True)
class Body:
    """Lengths and radii in body heights, colours BGR. `build` widens everything."""

    build: float = 1.0
    shoulder: float = 0.112
    hip: float = 0.062
    trunk: float = 0.29
    leg: float = 0.245  # thigh and shin, each
    arm: float = 0.165  # upper arm; the forearm is a little shorter
    head: float = 1.0
    skin: tuple = (150, 175, 215)
    shirt: tuple = (90, 60, 40)
    trousers: tuple = (60, 60, 60)
    shoes: tuple = (30, 30, 30)
    hair: tuple = (30, 40, 50)
    sleeve: str = "shirt"  # colour of the forearm: "shirt" or "skin"
    shorts: bool = False
    long_hair: bool = False
    pattern: tuple | None = None  # stripes: (number on the trunk, colour)


def _segment(angles: np.ndarray, side: int, length: float) -> np.ndarray:
    abduction, flexion = angles
    sign = 1 if side else -1
    return length * np.array(
        [
            sign * np.sin(abduction),
            -np.cos(abduction) * np.cos(flexion),
            np.cos(abduction) * np.sin(flexion),
        ]
    )


def _rotation(axis: str, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    rows = {
        "x": ((1, 0, 0), (0, c, -s), (0, s, c)),
        "y": ((c, 0, s), (0, 1, 0), (-s, 0, c)),
        "z": ((c, -s, 0), (s, c, 0), (0, 0, 1)),
    }
    return np.array(rows[axis])


def joint_positions(pose: Pose, body: Body) -> dict[str, np.ndarray]:
    """World positions by joint name, suffix L or R for side 0 or 1; a foot is on the floor."""
    pelvis, trunk = (
        _rotation("y", pose.heading),
        _rotation("z", pose.tilt) @ _rotation("x", pose.lean),
    )
    neck = trunk @ np.array([0, body.trunk + 0.015, 0])
    head = _rotation("z", pose.tilt) @ _rotation("x", 0.6 * pose.lean) @ _rotation("y", pose.gaze)
    joint = {"neck": neck}
    for name, point in _HEAD_POINTS.items():
        joint[name] = neck + head @ (body.head * np.array(point))
    for side, mark in enumerate("LR"):
        sign = 1 if side else -1
        joint["hip" + mark] = np.array([sign * body.hip, 0, 0])
        joint["waist" + mark] = trunk @ np.array([sign * 0.75 * body.shoulder, 0.35 * body.trunk, 0])
        joint["shoulder" + mark] = trunk @ np.array(
            [sign * body.shoulder, body.trunk - 0.028 + 0.012 * pose.arms[side, 0, 0], 0]
        )
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
    # the feet keep their place, the hips move over them
    stand = pelvis @ np.array([0, 0, feet[:, 2].mean()])
    return {name: pelvis @ point + shift - stand for name, point in joint.items()}
