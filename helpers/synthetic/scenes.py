"""Synthetic sample data: people in action and faces with an expression, in rooms, under a light.

What a seed fixes is called its appearance (body, clothes, viewpoint, room, light, camera); an action only moves the skeleton.
So the appearance tells nothing about the label: these clips can only be learnt by their movement. The same arguments
always give the same pixels.
"""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from helpers.synthetic.faces import FACE_SHAPES, render_expression
from helpers.synthetic.painting import Camera, paint_figure, paint_head, shade
from helpers.synthetic.skeleton import COUPLE_MOTIONS, MOTIONS, Body, Pose, Style, rest

IDLE = "idle"  # standing still: a movement that is no action
ACTIONS = tuple(sorted(set(MOTIONS) - {IDLE}))
TRAVELLING = ("jump", "run", "walk")  # actions that may go somewhere
NOBODY = "nobody"  # the empty room
COUPLE_ACTIONS = tuple(sorted(COUPLE_MOTIONS))  # what two people do; one alone points
EXPRESSIONS = tuple(FACE_SHAPES)
FIRST_TEST_SEED = 1_000_000  # drawn faces from here on are "other people": they only ever appear in test/
SKINS = (
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


def _draw_body(rng: np.random.Generator) -> Body:
    return Body(
        build=rng.uniform(0.82, 1.3),
        shoulder=rng.uniform(0.088, 0.115),
        hip=rng.uniform(0.052, 0.072),
        trunk=rng.uniform(0.27, 0.31),
        leg=rng.uniform(0.225, 0.26),
        arm=rng.uniform(0.15, 0.18),
        head=rng.uniform(0.9, 1.2),
        skin=shade(SKINS[rng.integers(len(SKINS))], rng.uniform(0.85, 1.1)),
        shirt=_colour(rng),
        trousers=_colour(rng, 130, (20, 200)),
        shoes=_colour(rng, 80),
        hair=_colour(rng, 90, (10, 130)),
        sleeve="skin" if rng.random() < 0.5 else "shirt",
        shorts=rng.random() < 0.2,
        long_hair=rng.random() < 0.35,
        pattern=(int(rng.integers(3, 9)), _colour(rng)) if rng.random() < 0.35 else None,
    )


def _draw_camera(rng: np.random.Generator) -> Camera:
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


def _draw_heading(rng: np.random.Generator) -> float:
    """Mostly towards the camera, sometimes aside, rarely away."""
    spread = rng.choice([0.3, 1.6, 0.4], p=[0.6, 0.32, 0.08])
    return float(rng.uniform(-spread, spread) + (np.pi if spread == 0.4 else 0))


def _draw_room(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Wall, floor, texture, furniture and blobs; larger than the picture, for a shaking camera."""
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
    sun: np.ndarray  # direction towards the light, in the picture
    room: np.ndarray
    tones: np.ndarray  # uint8 (256,1,3): exposure, gamma and colour cast as a look-up table
    noise: np.ndarray  # int16, larger than the picture
    softness: float  # blur of the lens, pixels
    shake: float  # of the camera, as a fraction of the picture's height
    distractor: tuple | None  # colour, radius, height in the picture, speed
    furniture: tuple | None  # in front of people: colour, left and right edge, upper edge, in shares of the picture


def sample_appearance(seed: int, size: tuple[int, int]) -> Appearance:
    rng = np.random.default_rng((seed, 1))
    body, camera, heading = _draw_body(rng), _draw_camera(rng), _draw_heading(rng)
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
        body,
        camera,
        heading,
        rng.uniform(0.1, 0.6),
        np.array([np.cos(angle), np.sin(angle)]),
        _draw_room(rng, size),
        tones,
        noise,
        rng.uniform(0.4, 1.4) * blurred,
        rng.uniform(0.002, 0.02) * shaky,
        (_colour(rng), rng.uniform(0.03, 0.1), rng.uniform(0.1, 0.9), rng.uniform(-0.2, 0.2)) if busy else None,
        _draw_furniture(np.random.default_rng((seed, 6))),
    )


def _draw_furniture(rng: np.random.Generator) -> tuple | None:
    """A table or a box in front of a quarter of the people; it hides at most the lower 40 % of the picture."""
    left = rng.uniform(-0.3, 0.8)
    drawn = (_colour(rng, 120), left, left + rng.uniform(0.3, 0.9), rng.uniform(0.6, 0.95))
    return drawn if rng.random() < 0.25 else None


def _draw_style(action: str, seed: int, look: Appearance, seconds: float, size: tuple[int, int]) -> Style:
    rng = np.random.default_rng((seed, 2, zlib.crc32(action.encode())))
    return Style(
        seconds=seconds,
        heading=look.heading,
        reach=0.5 * look.camera.span * size[1] / size[0],
        rate=rng.uniform(0.75, 1.3),
        phase=rng.uniform(0, 2 * np.pi),
        amplitude=rng.uniform(0.75, 1.2),
        variant=rng.random(),
        route=rng.random(),
        side=int(rng.integers(2)),
        start=rng.uniform(0.05, 0.3) * min(seconds, 2.5),
        elbow=look.elbow,
    )


def expose(picture: np.ndarray, look: Appearance, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of the scene: blur, exposure, noise."""
    if look.softness:
        picture = cv2.GaussianBlur(picture, (0, 0), look.softness)
    picture = cv2.LUT(picture, look.tones)
    y, x = rng.integers(0, 24, 2)
    grain = look.noise[y : y + picture.shape[0], x : x + picture.shape[1]]
    return cv2.add(picture, grain[:, :: rng.choice((-1, 1))], dtype=cv2.CV_8U)


def render_action(
    action: str,
    seed: int,
    seconds: float = 2.5,
    size: tuple[int, int] = (240, 320),
    fps: float = 25,
) -> list[np.ndarray]:
    """A drawn person doing one of ACTIONS, or standing "idle"; with NOBODY the empty room.

    `seed` is the person: body, clothes, viewpoint, room, light and camera are the same for every
    action of that seed; half of the cameras turn after those who walk, run or jump.
    Returns round(seconds * fps) BGR uint8 frames of `size` (height, width). Raises ValueError for another action.
    """
    if action not in (*MOTIONS, NOBODY):
        raise ValueError(f"unknown action {action!r}; known: {', '.join(sorted(MOTIONS))}, {NOBODY}")
    look = sample_appearance(seed, size)
    style = _draw_style(action, seed, look, seconds, size)
    grain, follow = np.random.default_rng((seed, 3)), 0.0
    if action in TRAVELLING:
        rng = np.random.default_rng((seed, 5, zlib.crc32(action.encode())))
        follow = rng.choice([0.0, rng.uniform(0.6, 1.0)])
        style = replace(style, reach=style.reach * (1 + follow))
    times = [k / fps for k in range(round(seconds * fps))]
    if action == NOBODY:
        return [expose(paint_scene(look, [], t, size), look, grain) for t in times]
    poses = [rest(t, style) for t in times]
    for pose, t in zip(poses, times):
        MOTIONS[action](pose, t, style)
    # where the camera points, in pixels; the scene begins with what it sees then
    spots = look.camera.project(np.array([[pose.place[0], look.camera.height, pose.place[1]] for pose in poses]), size)[
        0
    ][:, 0]
    turned = follow * (spots - look.camera.centre * size[1])
    look = replace(look, camera=replace(look.camera, centre=look.camera.centre - turned[0] / size[1]))
    return [
        expose(paint_scene(look, [(pose, look.body)], t, size, pan=pan), look, grain)
        for pose, t, pan in zip(poses, times, turned - turned[0])
    ]


def render_couple(
    action: str,
    seed: int,
    seconds: float = 4.0,
    size: tuple[int, int] = (120, 160),
    fps: float = 25,
) -> list[np.ndarray]:
    """Two drawn people, seen from the side, who do one of COUPLE_ACTIONS; one alone for "point".

    As in `render_action` a seed fixes looks, room and camera, whatever the action. Returns
    round(seconds * fps) BGR uint8 frames of `size`. Raises ValueError for another action.
    """
    if action not in COUPLE_MOTIONS:
        raise ValueError(f"unknown action {action!r}; known: {', '.join(COUPLE_ACTIONS)}")
    rng = np.random.default_rng((seed, 4))
    top = rng.uniform(1.15, 1.4)
    camera = Camera(top + rng.uniform(0.05, 0.5), top, rng.uniform(3.5, 6), rng.uniform(0.7, 1.5), rng.normal(0, 0.03))
    look = replace(sample_appearance(seed, size), camera=camera)
    bodies = (look.body, replace(_draw_body(rng), build=rng.uniform(0.82, 1.2)))
    aside, apart = rng.uniform(-0.5, 0.5), rng.uniform(0.8, 1.25)
    style = replace(_draw_style(action, seed, look, seconds, size), start=rng.uniform(0.2, max(0.3, seconds - 3.0)))
    grain = np.random.default_rng((seed, 3))
    frames = []
    for k in range(round(seconds * fps)):
        t = k / fps
        poses = [rest(t, replace(style, phase=style.phase + 2 * number)) for number in range(2)]
        left = style.side  # which of the two acts
        for number, way in enumerate((1, -1)):
            poses[number].heading = way * np.pi / 2 + aside
        near = COUPLE_MOTIONS[action](poses[left], poses[1 - left], t, style)
        for number, way in enumerate((1, -1)):
            along = -way * (apart - near) / 2 if action != "point" else 0.0
            poses[number].place = (along * np.cos(aside), -along * np.sin(aside))
        shown = [left] if action == "point" else sorted((0, 1), key=lambda i: poses[i].place[1])
        frames.append(expose(paint_scene(look, [(poses[i], bodies[i]) for i in shown], t, size), look, grain))
    return frames


def paint_scene(
    look: Appearance,
    people: Sequence[tuple[Pose, Body]],
    t: float,
    size: tuple[int, int],
    head: Callable = paint_head,
    pan: float = 0.0,
) -> np.ndarray:
    """The room with everybody in it; `people` are painted in this order. pan: pixels that the camera has turned right."""
    rows, columns = size
    margin = np.array(look.room.shape[:2]) // 2 - np.array(size) // 2
    shift = look.shake * rows * np.array([np.sin(7.1 * t) + np.sin(2.3 * t), np.sin(5.3 * t + 1) + np.sin(1.7 * t)])
    y, x = np.clip(np.round(margin + shift), 0, 2 * margin).astype(int)
    wide = look.room.shape[1]
    seen = (x + round(pan) + np.arange(columns)) % (2 * wide)  # beyond its edges the room goes on as its mirror image
    picture = look.room[y : y + rows].take(np.minimum(seen, 2 * wide - 1 - seen), axis=1)
    if look.distractor:
        colour, radius, height, speed = look.distractor
        place = (
            int((0.5 + 0.4 * np.sin(2 * speed * t + 9 * height)) * columns - pan),
            int(height * rows),
        )
        cv2.circle(picture, place, int(radius * rows), colour, -1, cv2.LINE_AA)
    shaken = replace(
        look.camera,
        top=look.camera.top - shift[0] / rows * look.camera.span,
        centre=look.camera.centre - (shift[1] + round(pan)) / columns,
    )
    for pose, body in people:
        paint_figure(picture, pose, body, shaken, look.sun, head)
    if look.furniture:
        colour, *across, top = look.furniture
        left, right = (round(share * columns - shift[1] - pan) for share in across)
        cv2.rectangle(picture, (left, round(top * rows - shift[0])), (right, 2 * rows), colour, -1)
    return picture


def _unfinished(path: Path) -> Path:
    """Hidden, beside `path`, and of this process alone: another one may be writing the same file."""
    return path.with_name(f".{os.getpid()}_{path.name}")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Writes beside the target first: nobody ever finds half a clip there, after a kill or from another process."""
    part = _unfinished(path)
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"mp4v"), fps, frame.shape[1::-1])
            if not writer.isOpened():
                raise OSError(f"cannot write a video to {part}")
        writer.write(frame)
    if writer is None:
        raise ValueError(f"no frames to write to {path}")
    writer.release()
    part.replace(path)


def write_action_samples(
    folder: str | Path,
    people: Iterable[int],
    actions: Sequence[str] = ACTIONS,
    seconds: float = 2.5,
    size: tuple[int, int] = (240, 320),
    fps: float = 25,
) -> Path:
    """`<folder>/<action>/personNNN.mp4` for each seed in `people`, and groups.csv.

    groups.csv has the columns label, file, group; the group is the person. Clips that are
    already there are kept, so a second call is cheap. Returns the folder.
    """
    folder, people = Path(folder), tuple(people)
    for action in actions:
        (folder / action).mkdir(parents=True, exist_ok=True)
        for seed in people:
            path = folder / action / f"person{seed:03d}.mp4"
            if not path.exists():
                write_video(path, render_action(action, seed, seconds, size, fps), fps)
    with open(folder / "groups.csv", "w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(("label", "file", "group"))
        rows.writerows((path.parent.name, path.name, path.stem) for path in sorted(folder.glob("*/person*.mp4")))
    return folder


def write_emotion_samples(folder: str | Path, per_class: int, test_per_class: int | None = None) -> Path:
    """FER-2013's layout: `train/<class>/*.png` and `test/<class>/*.png`, 48x48 gray.

    test/ holds a quarter as many unless told, and nobody who is in train/. Files that are already
    there are kept. Returns the folder.
    """
    folder = Path(folder)
    test_per_class = max(1, per_class // 4) if test_per_class is None else test_per_class
    for split, first, count in (("train", 0, per_class), ("test", FIRST_TEST_SEED, test_per_class)):
        for label in EXPRESSIONS:
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            for seed in range(first, first + count):
                path = folder / split / label / f"person{seed:07d}.png"
                if not path.exists():
                    part = _unfinished(path)
                    cv2.imwrite(str(part), render_expression(label, seed))
                    part.replace(path)
    return folder


DEMO_SIZE, DEMO_FPS, DEMO_SEED = (480, 640), 25, 20


PHOTO_FACE, PHOTO_SCALE = (268, 212), 0.00070  # body heights per pixel
