"""Reading images: formats, orientation, damage, absurd sizes."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from helpers.data import images
from helpers.errors import DataError
from tests.data.builders import BAD_NAME, png_header, write_image


@pytest.mark.parametrize(
    "name, reason",
    [
        ("gesicht_ü_顔.jpg", "not every name is ASCII"),
        ("face.png", "lossless"),
        ("face.bmp", "no compression"),
        ("face.webp", "web"),
        ("face.tiff", "JAFFE's format"),
    ],
)
def test_read_image(tmp_path, name, reason):
    image = images.read_image(write_image(tmp_path / name))
    assert image.shape == (24, 32, 3) and image.dtype == np.uint8, reason


def test_read_image_gray_and_transparent(tmp_path):
    gray = np.full((8, 8), 77, np.uint8)
    cv2.imwrite(str(tmp_path / "gray.png"), gray)
    assert (images.read_image(tmp_path / "gray.png") == 77).all()
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([gray, gray, gray, gray]))
    assert images.read_image(tmp_path / "alpha.png").shape == (8, 8, 3)


def test_read_image_with_an_embedded_thumbnail(tmp_path):
    """A thumbnail in the header has its own end marker: it must not hide that the photo ends."""
    data = write_image(tmp_path / "photo.jpg", size=(64, 64)).read_bytes()
    thumbnail = write_image(tmp_path / "small.jpg").read_bytes()
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    (tmp_path / "both.jpg").write_bytes(data[:2] + header + data[2:] + b"\xff\xda trailing video")
    assert images.read_image(tmp_path / "both.jpg").shape == (64, 64, 3)
    (tmp_path / "cut.jpg").write_bytes(data[:2] + header + data[2:-500])
    with pytest.raises(DataError, match=r"cut\.jpg.*cut off"):
        images.read_image(tmp_path / "cut.jpg")


def cut(suffix: str, share: float) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    return data[: int(len(data) * share)]


HUGE_PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x0f\xff\xff\x00\x0f\xff\xff\x08\x02\x00\x00"
    b"\x00" + b"\x00" * 4 + b"\x00\x00\x00\x00IEND\xaeB`\x82"
)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8", "cut off"),
        (b"\xff\xd8\xff\xd9", "cut off|not an image"),
        (cut(".jpg", 0.1), "cut off"),
        (cut(".jpg", 0.99), "cut off"),
        (cut(".png", 0.6), "cut off"),
        (cut(".bmp", 0.6), "not an image"),
        (np.random.default_rng(0).bytes(4000), "not an image"),
        (HUGE_PNG, "not an image"),
    ],
)
def test_bad_image_is_named(tmp_path, data, message):
    (tmp_path / "face.jpg").write_bytes(data)
    with pytest.raises(DataError, match=rf"face\.jpg.*({message})"):
        images.read_image(tmp_path / "face.jpg")


def test_a_missing_image_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(DataError, match=f"{path.name}.*cannot be read"):
            images.read_image(path)


@pytest.mark.parametrize(
    "width, height, message",
    [
        (50_000, 50_000, "more than 134,217,728 pixels"),
        (400, 1, "400 x 1 pixels are too narrow"),
        (10, 3850, "10 x 3850 pixels are too narrow"),
    ],
)
def test_absurd_sizes_are_refused_by_the_header(tmp_path, width, height, message):
    (tmp_path / "face.png").write_bytes(png_header(width, height))
    with pytest.raises(DataError, match=rf"face\.png: .*({message})"):
        images.read_image(tmp_path / "face.png")


def test_the_size_is_known_from_the_header(tmp_path):
    (tmp_path / "face.png").write_bytes(png_header(300, 200)[:60])
    assert images.image_size(tmp_path / "face.png") == (300, 200), "its pixels are missing"
    (tmp_path / "face.png").write_bytes(b"not an image")
    assert images.image_size(tmp_path / "face.png") is None and images.image_size(tmp_path) is None


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    (tmp_path / "disk.jpg").touch()
    os.truncate(tmp_path / "disk.jpg", 2**40)  # takes no space: nothing is written
    with pytest.raises(DataError, match=r"disk\.jpg: more than"):
        images.read_image(tmp_path / "disk.jpg")


def test_pipes_and_names_that_cannot_be_printed(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    name = BAD_NAME.replace(".avi", ".jpg")
    write_image(tmp_path / "face.jpg").rename(tmp_path / name)
    for path, why in ((tmp_path / "pipe.jpg", "not a regular file"), (tmp_path / name, "not UTF-8")):
        with pytest.raises(DataError, match=why) as caught:
            images.read_image(path)
        assert str(caught.value).encode(), "can be printed"
