"""Reading an image file: any kind, whole, of a size that can be held in memory."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from helpers.data.files import printable, why_unreadable
from helpers.errors import DataError

_MOST_PIXELS = 2**27  # 134 million: the largest phone cameras have 108
_MOST_BYTES = 2**30
_NARROWEST = 32  # sides of 32:1 show nothing, and resizing them makes sides of no pixel


def read_image(path: Path | str) -> np.ndarray:
    """An image file as uint8 BGR (H, W, 3), upright by its EXIF tag, gray repeated, alpha dropped.

    Raises DataError naming the file when it is missing, empty, cut off, not an image, or too large or narrow; the size
    is known from the header, before any pixel is decoded.
    """
    path = Path(path)
    if why := why_unreadable(path):
        raise DataError(f"{printable(path)}: cannot be read ({why}).")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path}: more than {_MOST_BYTES:,} bytes, which no image has.")
    try:
        data = path.read_bytes()  # cv2.imread fails on non-ASCII paths on Windows
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not data:
        raise DataError(f"{path}: an empty file (0 bytes). Copy or download it again.")
    if _is_cut_off(data):
        raise DataError(f"{path}: the image is cut off. Copy or download it again.")
    if why := why_unusable(*(_header_size(io.BytesIO(data)) or (1, 1))):  # OpenCV may know what Pillow does not
        raise DataError(f"{path}: {why}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(
            f"{path}: not an image that OpenCV can read. Is it damaged, or another kind of file under an image's name?"
        )
    return image


def why_unusable(width: int, height: int) -> str:
    """Why an image or video of this size is not decoded, in words; empty when nothing speaks against it."""
    if width * height > _MOST_PIXELS:
        return f"more than {_MOST_PIXELS:,} pixels; reduce it"
    if max(width, height) > _NARROWEST * min(width, height):
        return f"{width} x {height} pixels are too narrow to show anything; cut it to another shape"
    return ""


def image_size(path: Path | str) -> tuple[int, int] | None:
    """(width, height) as the header of an image file tells, no pixel decoded; None when it cannot be read."""
    path = Path(path)
    return None if why_unreadable(path) else _header_size(path)


def _header_size(file: Path | io.BytesIO) -> tuple[int, int] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # also about damaged tags
            with Image.open(file) as image:
                return image.size
    except Image.DecompressionBombError:
        return _MOST_PIXELS, _MOST_PIXELS
    except Exception:  # damaged headers raise anything
        return None


def _is_cut_off(data: bytes) -> bool:
    """Whether the end marker is missing: decoders fill in gray there and do not complain."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False  # other formats: the decoder itself notices
    position = 2
    while data[position : position + 2] not in (b"\xff\xda", b""):  # step over the JPEG headers,
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")  # thumbnail too
    return b"\xff\xd9" not in data[position:]
