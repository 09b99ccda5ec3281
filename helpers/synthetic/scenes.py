"""Synthetic videos of people in action, in a room, under a light, before a camera.

What a seed fixes is called its appearance (body, clothes, viewpoint, room, light, camera); an action only moves the
skeleton. So the appearance tells nothing about the label: these clips can only be learnt by their movement.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from helpers.synthetic.painting import Camera, paint_figure, paint_head, shade
from helpers.synthetic.skeleton import GESTURES, MOTIONS, OTHER_MOTIONS, Body, Pose, Style, rest

IDLE = "idle"  # standing still: a movement that is no action
ACTIONS = tuple(sorted(set(MOTIONS) - {IDLE}))
ALONE = MOTIONS | GESTURES | OTHER_MOTIONS  # what one person can do
_TRAVELLING = ("jump", "run", "walk")  # actions that may go somewhere
NOBODY = "nobody"  # the empty room
_SKINS = (
    (205, 220, 245),
    (170, 195, 235),
    (140, 170, 220),
    (110, 145, 200),
    (75, 110, 165),
    (50, 75, 120),
    (35, 50, 85),
)


def _colour(rng: np.random.Generator, saturation: float = 200, value: tuple[float, float] = (25, 245)) -> tuple:
    hsv = np.uint8([[[rng.integers(180), rng.uniform(0, saturation), rng.uniform(*value)]]])
    return tuple(float(c) for c in cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0])


def _sample_body(rng: np.random.Generator) -> Body:
    return Body(
        build=rng.uniform(0.82, 1.3),
        shoulder=rng.uniform(0.088, 0.115),
        hip=rng.uniform(0.052, 0.072),
        trunk=rng.uniform(0.27, 0.31),
        leg=rng.uniform(0.225, 0.26),
        arm=rng.uniform(0.15, 0.18),
        head=rng.uniform(0.9, 1.2),
        skin=shade(_SKINS[rng.integers(len(_SKINS))], rng.uniform(0.85, 1.1)),
        shirt=_colour(rng),
        trousers=_colour(rng, 130, (20, 200)),
        shoes=_colour(rng, 80),
        hair=_colour(rng, 90, (10, 130)),
        sleeve="skin" if rng.random() < 0.5 else "shirt",
        shorts=rng.random() < 0.2,
        long_hair=rng.random() < 0.35,
        pattern=(int(rng.integers(3, 9)), _colour(rng)) if rng.random() < 0.35 else None,
    )


def _sample_camera(rng: np.random.Generator) -> Camera:
    """Full body (50 %), to the knees (20 %) or the upper body as in front of a webcam (30 %)."""
    framing, share = rng.random(), rng.random()
    if framing < 0.5:
        top = 1.06 + 0.3 * share
        span = top + rng.uniform(0.05, 0.8)
    else:
        top = 1.05 + 0.17 * share
        span = rng.uniform(0.9, 1.1) if framing < 0.7 else rng.uniform(0.55, 0.85)
    return Camera(
        span,
        top,
        rng.uniform(2.4, 5),
        rng.uniform(0.5, 1.1),
        rng.normal(0, 0.03),
        0.5 + rng.uniform(-0.12, 0.12),
    )


def _sample_heading(rng: np.random.Generator) -> float:
    """Mostly towards the camera, sometimes aside, rarely away."""
    spread = rng.choice([0.3, 1.6, 0.4], p=[0.6, 0.32, 0.08])
    return float(rng.uniform(-spread, spread) + (np.pi if spread == 0.4 else 0))


def _sample_room(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Wall, floor, texture, furniture and blobs; larger than the image, for a shaking camera."""
    rows, columns = (round(1.1 * n) for n in size)
    ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    room = (
        (1 - ramp) * np.float32(_colour(rng, 110))
        + ramp * np.float32(_colour(rng, 110))
        + np.zeros((1, columns, 1), np.float32)
    )
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
            cv2.ellipse(
                room,
                (x, y),
                (w // 2, h // 4),
                float(rng.uniform(0, 180)),
                0,
                360,
                _colour(rng, 150),
                -1,
                cv2.LINE_AA,
            )
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(0.4, 2.5))


@dataclass(frozen=True)
class Appearance:
    """Everything that a seed fixes apart from the action."""

    body: Body
    camera: Camera
    heading: float
    elbow: float
    sun: np.ndarray  # direction towards the light, in the image
    room: np.ndarray
    tones: np.ndarray  # uint8 (256,1,3): exposure, gamma and colour cast as a look-up table
    noise: np.ndarray  # int16, larger than the image
    softness: float  # blur of the lens, pixels
    shake: float  # of the camera, as a fraction of the image's height
    distractor: tuple | None  # colour, radius, height in the image, speed
    furniture: tuple | None  # in front of people: colour, left and right edge, upper edge, in shares of the image


def sample_appearance(seed: int, size: tuple[int, int]) -> Appearance:
    """The appearance of this seed, for frames of `size` (height, width)."""
    rng = np.random.default_rng((seed, 1))
    body, camera, heading = _sample_body(rng), _sample_camera(rng), _sample_heading(rng)
    light = rng.choice(
        [rng.uniform(0.75, 1.2), rng.uniform(0.3, 0.75), rng.uniform(0.06, 0.25)],
        p=[0.45, 0.25, 0.3],
    )
    levels = light * (np.arange(256) / 255) ** rng.uniform(0.75, 1.35)
    tones = np.clip(255 * levels[:, None] * rng.uniform(0.9, 1.1, 3), 0, 255).astype(np.uint8)[:, None]
    angle, blurred, shaky, busy = (
        rng.uniform(0, 2 * np.pi),
        rng.random() < 0.4,
        rng.random() < 0.5,
        rng.random() < 0.15,
    )
    noise = rng.normal(0, rng.uniform(0.5, 8), (size[0] + 24, size[1] + 24, 3)).round().astype(np.int16)
    return Appearance(
        body=body,
        camera=camera,
        heading=heading,
        elbow=rng.uniform(0.1, 0.6),
        sun=np.array([np.cos(angle), np.sin(angle)]),
        room=_sample_room(rng, size),
        tones=tones,
        noise=noise,
        softness=rng.uniform(0.4, 1.4) * blurred,
        shake=rng.uniform(0.002, 0.02) * shaky,
        distractor=_sample_distractor(rng) if busy else None,
        furniture=_sample_furniture(np.random.default_rng((seed, 6))),
    )


def _sample_distractor(rng: np.random.Generator) -> tuple:
    """A disc that moves through the room."""
    return _colour(rng), rng.uniform(0.03, 0.1), rng.uniform(0.1, 0.9), rng.uniform(-0.2, 0.2)


def _sample_furniture(rng: np.random.Generator) -> tuple | None:
    """A table or a box in front of a quarter of the people; it hides at most the lower 40 % of the image."""
    left = rng.uniform(-0.3, 0.8)
    furniture = (_colour(rng, 120), left, left + rng.uniform(0.3, 0.9), rng.uniform(0.6, 0.95))
    return furniture if rng.random() < 0.25 else None


def _sample_style(action: str, seed: int, appearance: Appearance, seconds: float, size: tuple[int, int]) -> Style:
    rng = np.random.default_rng((seed, 2, zlib.crc32(action.encode())))
    return Style(
        seconds=seconds,
        heading=appearance.heading,
        reach=0.5 * appearance.camera.span * size[1] / size[0],
        rate=rng.uniform(0.75, 1.3),
        phase=rng.uniform(0, 2 * np.pi),
        amplitude=rng.uniform(0.75, 1.2),
        variant=rng.random(),
        route=rng.random(),
        side=int(rng.integers(2)),
        start=rng.uniform(0.05, 0.3) * min(seconds, 2.5),
        elbow=appearance.elbow,
    )


def expose(image: np.ndarray, appearance: Appearance, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of the scene: blur, exposure, noise."""
    if appearance.softness:
        image = cv2.GaussianBlur(image, (0, 0), appearance.softness)
    image = cv2.LUT(image, appearance.tones)
    y, x = rng.integers(0, 24, 2)
    grain = appearance.noise[y : y + image.shape[0], x : x + image.shape[1]]
    return cv2.add(image, grain[:, :: rng.choice((-1, 1))], dtype=cv2.CV_8U)


def render_action(
    action: str,
    seed: int,
    seconds: float = 2.5,
    *,
    size: tuple[int, int] = (240, 320),
    fps: float = 25,
) -> list[np.ndarray]:
    """A synthetic person doing one of ALONE, "idle" among them; with NOBODY the empty room.

    `seed` is the person: body, clothes, viewpoint, room, light and camera are the same for every
    action of that seed; half of the cameras turn after those who walk, run or jump.
    Returns round(seconds * fps) BGR uint8 frames of `size` (height, width). Raises ValueError for another action.
    """
    if action not in (*ALONE, NOBODY):
        raise ValueError(f"unknown action {action!r}; known: {', '.join(sorted(ALONE))}, {NOBODY}")
    appearance = sample_appearance(seed, size)
    style = _sample_style(action, seed, appearance, seconds, size)
    grain, follow = np.random.default_rng((seed, 3)), 0.0
    if action in _TRAVELLING:
        rng = np.random.default_rng((seed, 5, zlib.crc32(action.encode())))
        follow = rng.choice([0.0, rng.uniform(0.6, 1.0)])
        style = replace(style, reach=style.reach * (1 + follow))
    times = [k / fps for k in range(round(seconds * fps))]
    if action == NOBODY:
        return [expose(paint_scene(appearance, [], t, size), appearance, grain) for t in times]
    poses = [rest(t, style) for t in times]
    for pose, t in zip(poses, times, strict=True):
        ALONE[action](pose, t, style)
    # where the camera points, in pixels; the scene begins with what it sees then
    spots = appearance.camera.project(
        np.array([[pose.place[0], appearance.camera.height, pose.place[1]] for pose in poses]), size
    )[0][:, 0]
    turned = follow * (spots - appearance.camera.centre * size[1])
    appearance = replace(
        appearance, camera=replace(appearance.camera, centre=appearance.camera.centre - turned[0] / size[1])
    )
    return [
        expose(paint_scene(appearance, [(pose, appearance.body)], t, size, pan=pan), appearance, grain)
        for pose, t, pan in zip(poses, times, turned - turned[0], strict=True)
    ]


def paint_scene(
    appearance: Appearance,
    people: Sequence[tuple[Pose, Body]],
    t: float,
    size: tuple[int, int],
    *,
    head: Callable = paint_head,
    pan: float = 0.0,
) -> np.ndarray:
    """The room with everybody in it, painted in the order of `people`. pan: pixels that the camera has turned right."""
    rows, columns = size
    margin = np.array(appearance.room.shape[:2]) // 2 - np.array(size) // 2
    shift = (
        appearance.shake * rows * np.array([np.sin(7.1 * t) + np.sin(2.3 * t), np.sin(5.3 * t + 1) + np.sin(1.7 * t)])
    )
    y, x = np.clip(np.round(margin + shift), 0, 2 * margin).astype(int)
    wide = appearance.room.shape[1]
    seen = (x + round(pan) + np.arange(columns)) % (2 * wide)  # beyond its edges the room goes on as its mirror image
    image = appearance.room[y : y + rows].take(np.minimum(seen, 2 * wide - 1 - seen), axis=1)
    if appearance.distractor:
        colour, radius, height, speed = appearance.distractor
        place = (
            int((0.5 + 0.4 * np.sin(2 * speed * t + 9 * height)) * columns - pan),
            int(height * rows),
        )
        cv2.circle(image, place, int(radius * rows), colour, -1, cv2.LINE_AA)
    shaken = replace(
        appearance.camera,
        top=appearance.camera.top - shift[0] / rows * appearance.camera.span,
        centre=appearance.camera.centre - (shift[1] + round(pan)) / columns,
    )
    for pose, body in people:
        paint_figure(image, pose, body, shaken, appearance.sun, head)
    if appearance.furniture:
        colour, *across, top = appearance.furniture
        left, right = (round(share * columns - shift[1] - pan) for share in across)
        cv2.rectangle(image, (left, round(top * rows - shift[0])), (right, 2 * rows), colour, -1)
    return image
