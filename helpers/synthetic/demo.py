"""The demo clip: a photograph of Grace Hopper (public domain) on a synthetic figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import cv2
import numpy as np

from helpers.synthetic.painting import Camera
from helpers.synthetic.scenes import (
    expose,
    paint_scene,
    sample_appearance,
)
from helpers.synthetic.skeleton import MOTIONS, Body, Pose, Style, ease, rest

_DEMO_SIZE, DEMO_FPS, _DEMO_SEED = (480, 640), 25, 20
# seconds, action, framing, expression that the face moves to
DEMO_SCRIPT = (
    (1.6, "idle", "near", "neutral"),
    (3.2, "wave_one_hand", "near", "happy"),
    (3.2, "wave_two_hands", "near", "surprise"),
    (1.0, "idle", "far", "neutral"),
    (3.0, "jumping_jack", "far", "happy"),
    (2.6, "bend", "far", "neutral"),
)


_DEMO_FRAMINGS = {"near": Camera(0.56, 1.13, 3.0, 0.85), "far": Camera(1.5, 1.40, 3.0, 0.85)}
_DEMO_BODY = Body(shirt=(70, 48, 40), trousers=(62, 44, 38), skin=(140, 165, 215), build=1.05)


# The photograph that matplotlib ships: Grace Hopper, US Navy, public domain. Outline of cap, head
# and collar, and the point that takes the place of the figure's face, in pixels of that image.
_PHOTO_FACE, _PHOTO_SCALE = (268, 212), 0.00070  # body heights per pixel
_PHOTO = "grace_hopper.jpg"
_PHOTO_LIPS = (270, 277)  # where they meet
_PHOTO_GAPE = (30, 20)  # half width and height of the open mouth
_PHOTO_OUTLINE = (
    (180, 80),
    (184, 56),
    (212, 34),
    (258, 24),
    (304, 34),
    (336, 62),
    (345, 92),
    (366, 98),
    (368, 150),
    (371, 190),
    (366, 230),
    (354, 268),
    (334, 304),
    (326, 316),
    (328, 345),
    (300, 410),
    (262, 470),
    (236, 415),
    (208, 350),
    (206, 306),
    (182, 284),
    (164, 262),
    (160, 200),
    (154, 150),
    (155, 102),
)


# Where an expression pulls the skin: x, y, shift right, shift down, reach; pixels of that image.
_PHOTO_PULLS = {
    "neutral": (),
    "happy": (
        (233, 279, -12, -12, 20),
        (309, 273, 12, -12, 20),
        (268, 290, 0, 4, 18),
        (215, 250, -3, -7, 24),
        (330, 244, 3, -7, 24),
    ),
    "surprise": ((212, 156, 0, -12, 17), (312, 150, 0, -12, 17), (233, 279, 9, 3, 16), (309, 273, -9, 3, 16)),
}


def demo_sections() -> list[tuple[float, float, str]]:
    """What happens in the demo clip: (start s, end s, action or "idle"), without gaps."""
    ends = np.cumsum([row[0] for row in DEMO_SCRIPT])
    return [
        (round(float(end - row[0]), 3), round(float(end), 3), row[1])
        for end, row in zip(ends, DEMO_SCRIPT, strict=True)
    ]


def render_demo(seconds: float | None = None) -> Iterator[np.ndarray]:
    """The frames of the demo clip, BGR uint8 (480, 640, 3)."""
    whole = demo_sections()[-1][1]
    appearance = replace(
        sample_appearance(_DEMO_SEED, _DEMO_SIZE),
        body=_DEMO_BODY,
        heading=0.0,
        softness=0.5,
        shake=0.0,
        distractor=None,
        furniture=None,
        sun=np.array([-0.6, -0.8]),
        tones=np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2),
    )
    grain = np.random.default_rng(_DEMO_SEED)
    for k in range(round(min(seconds or whole, whole) * DEMO_FPS)):
        t = k / DEMO_FPS
        pose, camera, expression = _demo_moment(t)
        head = _PhotoHead(expression, pose.tilt)
        image = paint_scene(replace(appearance, camera=camera), [(pose, appearance.body)], t, _DEMO_SIZE, head=head)
        yield expose(image, appearance, grain)


def _demo_moment(t: float) -> tuple[Pose, Camera, dict[str, float]]:
    """Pose, camera and expression weights at t; a section takes over from the last within 0.5 s."""
    sections = demo_sections()
    now = max(k for k, (start, _, _) in enumerate(sections) if start <= t)
    before, share = max(now - 1, 0), ease((t - sections[now][0]) / 0.5)
    poses = [_demo_pose(k, t - sections[k][0]) for k in (before, now)]
    names = [field.name for field in fields(Pose) if field.name != "hips"]  # nobody walks here
    pose = Pose(**{name: _mix(*(getattr(p, name) for p in poses), share) for name in names})
    near, far = (_DEMO_FRAMINGS[DEMO_SCRIPT[k][2]] for k in (before, now))
    back = ease((t - sections[now][0]) / DEMO_SCRIPT[now][0])
    camera = replace(far, span=_mix(near.span, far.span, back), top=_mix(near.top, far.top, back))
    expression = {DEMO_SCRIPT[before][3]: 1 - share}
    expression[DEMO_SCRIPT[now][3]] = expression.get(DEMO_SCRIPT[now][3], 0.0) + share
    return pose, camera, expression


def _demo_pose(section: int, t: float) -> Pose:
    action = DEMO_SCRIPT[section][1]
    # close up, only the forearms have room to wave
    variant = 0.65 if DEMO_SCRIPT[section][2] == "near" else 0.2
    style = Style(
        seconds=4,
        heading=0.0,
        reach=1,
        rate=1.0,
        phase=-1.5,
        amplitude=1.1,
        variant=variant,
        route=0.5,
        side=1,
        start=0.5,
        elbow=0.25,
    )
    pose = rest(t, style)
    MOTIONS[action](pose, t, style)
    return pose


def _mix(a: object, b: object, share: float) -> object:
    """Between two numbers, arrays or tuples."""
    if isinstance(a, tuple):
        return tuple(_mix(x, y, share) for x, y in zip(a, b, strict=True))
    return a + (b - a) * share


@lru_cache(maxsize=1)
def _photo() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The photograph, its soft mask (float, 0..1), and per expression whence a pixel is fetched."""
    from matplotlib.cbook import get_sample_data

    image = cv2.imread(str(get_sample_data(_PHOTO, asfileobj=False)))
    mask = np.zeros(image.shape[:2], np.float32)
    cv2.fillPoly(mask, [np.array(_PHOTO_OUTLINE, np.int32)], 1.0, cv2.LINE_AA)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    fetch = {}
    for label, pulls in _PHOTO_PULLS.items():
        fetch[label] = np.zeros((*image.shape[:2], 2), np.float32)
        for cx, cy, right, down, reach in pulls:
            weight = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * reach**2))
            fetch[label] -= weight[..., None] * np.float32([right, down])
    return image, cv2.GaussianBlur(mask, (0, 0), 2.5), fetch


@dataclass(frozen=True)
class _PhotoHead:
    """Paints the photographed head instead of the painted one; called by `paint_figure`."""

    expression: dict[str, float]
    roll: float

    def __call__(self, image: np.ndarray, pixel: dict, unit: float, *_: object) -> None:
        photo, mask, fetch = _photo()
        shift = sum(weight * fetch[label] for label, weight in self.expression.items())
        place = cv2.getRotationMatrix2D(_PHOTO_FACE, -2 * np.degrees(self.roll), unit * _PHOTO_SCALE)
        left, top = np.maximum(np.floor(pixel["face"] - 290 * unit * _PHOTO_SCALE), 0).astype(int)
        region = image[top:, left:][: int(580 * unit * _PHOTO_SCALE), : int(580 * unit * _PHOTO_SCALE)]
        place[:, 2] += pixel["face"] - _PHOTO_FACE - [left, top]
        size = region.shape[1::-1]
        moved = _pull(photo, shift, self.expression.get("surprise", 0.0))
        head = cv2.warpAffine(moved, place, size, flags=cv2.INTER_AREA)
        alpha = cv2.warpAffine(mask, place, size, flags=cv2.INTER_AREA)[..., None]
        region[:] = (alpha * head + (1 - alpha) * region).astype(np.uint8)


def _pull(image: np.ndarray, shift: np.ndarray, opened: float) -> np.ndarray:
    """The photograph with every pixel fetched from `shift` away, and the mouth `opened` (0..1)."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    fetch_x, fetch_y = x + shift[..., 0], y + shift[..., 1]
    if opened <= 0:
        return cv2.remap(image, fetch_x, fetch_y, cv2.INTER_LINEAR)
    (middle, lips), (half, height) = _PHOTO_LIPS, _PHOTO_GAPE
    gap = opened * height * np.maximum(1 - ((x - middle) / half) ** 2, 0)
    below = y - lips - gap  # the lower lip and what hangs on it move down, less towards the chin
    fetch_y -= np.where(below > 0, gap * np.exp(-((below / 45) ** 2)), 0)
    moved = cv2.remap(image, fetch_x, fetch_y.astype(np.float32), cv2.INTER_LINEAR)
    inside = cv2.GaussianBlur(((below < 0) & (y > lips)).astype(np.float32), (0, 0), 1.5)[..., None]
    return (moved * (1 - inside) + inside * np.float32([30, 20, 50])).astype(np.uint8)
