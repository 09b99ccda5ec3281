"""helpers.emotion.faces: finding, framing, aligning and normalising, on a real photo (grace_hopper, public domain)."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.data.folders import Sample, Skipped
from helpers.emotion import faces
from helpers.emotion.faces import Face, FacePreprocessor, FaceSpec
from helpers.errors import DataError

LANDMARKED = Path(os.environ.get("HAR_DATA", "data")) / "faces" / "landmarks68"


@pytest.fixture(scope="module")
def finder() -> faces.FaceFinder:
    return faces.FaceFinder()


@pytest.fixture(scope="module")
def face(photo, finder) -> Face:
    (found,) = finder.find(photo)
    return found


def move(photo: np.ndarray, degrees: float, scale: float, right: float, down: float) -> np.ndarray:
    """The photo rotated counter-clockwise about its middle, scaled and shifted, on a larger canvas."""
    rows, columns = photo.shape[:2]
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, scale)
    matrix[:, 2] += (120 + right, 120 + down)
    return cv2.warpAffine(photo, matrix, (columns + 240, rows + 240), borderMode=cv2.BORDER_REPLICATE)


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation of two pictures, 1 for the same up to contrast."""
    return float(np.corrcoef(one.ravel(), two.ravel())[0, 1])


# --------------------------------------------------------------------------------------------------- finding


def test_the_face_is_where_it_is(photo, face):
    left, right, mouth = faces.eyes_and_mouth(face.landmarks)
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32
    for point, expected in ((left, (221, 194)), (right, (310, 192)), (mouth, (270, 280))):
        np.testing.assert_allclose(point, expected, atol=12, err_msg="read off the photo by eye")
    x, y, width, height = face.box
    assert all(isinstance(value, int) for value in face.box)
    assert x < left[0] < right[0] < x + width and y < left[1] < mouth[1] < y + height


def test_gray_and_colour_give_the_same_face(photo, finder, face):
    (gray,) = finder.find(faces.to_gray(photo))
    assert gray.box == face.box and np.array_equal(gray.landmarks, face.landmarks)


@pytest.mark.parametrize(
    "image, reason",
    [
        (np.full((240, 320, 3), 127, np.uint8), "a wall"),
        (np.zeros((240, 320), np.uint8), "a covered lens, gray"),
        (np.full((8, 8, 3), 127, np.uint8), "smaller than the detector's window"),
        (np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8), "noise"),
    ],
)
def test_no_face_is_an_empty_list(finder, image, reason):
    assert finder.find(image) == [], reason


@pytest.mark.parametrize("width", [256, 320, 400])
def test_boxes_are_in_the_originals_pixels_whatever_the_detector_sees(photo, face, width):
    (reduced,) = faces.FaceFinder(detect_width=width).find(photo)
    np.testing.assert_allclose(reduced.box, face.box, atol=0.2 * face.box[2])
    difference = np.linalg.norm(reduced.landmarks - face.landmarks, axis=1).mean()
    assert difference < 0.05 * face.box[2], "landmarks are found in the full picture"


def test_an_image_narrower_than_detect_width_is_not_enlarged(photo, face):
    (same,) = faces.FaceFinder(detect_width=2000).find(photo)
    assert same.box == face.box


def test_upsampling_finds_a_face_that_is_too_small_otherwise(photo, finder):
    small = cv2.resize(photo, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    assert finder.find(small) == []
    assert len(faces.FaceFinder(upsample=1).find(small)) == 1


def test_the_largest_face_comes_first(photo, finder):
    small = cv2.resize(photo, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    both = np.full((600, 900, 3), 90, np.uint8)
    both[: small.shape[0], : small.shape[1]] = small
    both[:, 380 : 380 + 512] = photo
    first, second = finder.find(both)
    assert first.box[2] > second.box[2] and first.box[0] > 380


@pytest.mark.skipif(not LANDMARKED.is_dir(), reason="faces/landmarks68 is not below HAR_DATA")
def test_landmarks_agree_with_the_published_ones():
    """Mean distance over the distance of the outer eye corners; dlib's authors made the file with this very model, so
    it shows that boxes and points are read and written right, not how good the model is."""
    root = ElementTree.parse(LANDMARKED / "training_with_face_landmarks.xml").getroot()
    finder, errors = faces.FaceFinder(), []
    for image in root.iter("image"):
        pixels = cv2.imread(str(LANDMARKED / image.get("file")))
        for box in image.iter("box"):
            truth = np.array([(float(p.get("x")), float(p.get("y"))) for p in box.iter("part")])
            found = finder.landmarks(pixels, tuple(int(box.get(k)) for k in ("left", "top", "width", "height")))
            errors.append(np.linalg.norm(found - truth, axis=1).mean() / np.linalg.norm(truth[36] - truth[45]))
    assert len(errors) >= 4
    assert np.median(errors) < 0.05 and max(errors) < 0.15


# --------------------------------------------------------------------------------------------------- framing


def drawn_landmarks(side: float, centre: tuple[float, float] = (0.0, 0.0), roll: float = 0.0) -> np.ndarray:
    """68 points whose eyes and mouth sit as FER-2013 frames them in a crop of this side."""
    points = np.zeros((68, 2), np.float32)
    eyes, mouth = -faces.EYES_TO_MOUTH / 2, faces.EYES_TO_MOUTH / 2
    points[faces.LEFT_EYE] = (-faces.EYE_DISTANCE / 2, eyes)
    points[faces.RIGHT_EYE] = (faces.EYE_DISTANCE / 2, eyes)
    points[faces.MOUTH] = (0, mouth)
    angle = np.radians(roll)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points @ turn.T * side + centre).astype(np.float32)


@pytest.mark.parametrize(
    "side, centre, roll, reason",
    [
        (48, (24, 28), 0, "a FER-2013 thumbnail"),
        (300, (500, 200), 0, "a large face elsewhere"),
        (120, (-10, 20), 25, "turned clockwise, reaching outside"),
        (120, (60, 60), -40, "turned counter-clockwise"),
    ],
)
def test_framing_reads_side_centre_and_roll_back(side, centre, roll, reason):
    points = drawn_landmarks(side, centre, roll)
    found, length = faces.framing(points)
    np.testing.assert_allclose(found, centre, atol=1e-2, err_msg=reason)
    assert length == pytest.approx(side, rel=1e-4), reason
    assert faces.eye_roll(points) == pytest.approx(roll, abs=1e-2), reason


@pytest.mark.parametrize("expand", [0.8, 1.0, 1.5])
def test_eyes_and_mouth_land_where_fer2013_has_them(photo, face, finder, expand):
    """Measured in the crop itself: landmarks are found again in it."""
    crop = FacePreprocessor(FaceSpec(size=240, expand=expand, clahe=False)).crop(photo, face.landmarks)
    box = faces.landmark_box(drawn_landmarks(240 / expand, (120, 120 + (faces.CENTRE_Y - 0.5) * 240 / expand)))
    left, right, mouth = faces.eyes_and_mouth(finder.landmarks(crop, box))
    eyes = (left + right) / 2
    assert faces.eye_roll(finder.landmarks(crop, box)) == pytest.approx(0, abs=3)
    middle = 0.5 + (faces.CENTRE_Y - 0.5) / expand
    assert ((eyes + mouth) / 2)[1] / 240 == pytest.approx(middle, abs=0.03)
    assert ((eyes + mouth) / 2)[0] / 240 == pytest.approx(0.5, abs=0.03)
    _, side = faces.framing(finder.landmarks(crop, box))
    assert side / 240 == pytest.approx(1 / expand, rel=0.06)


def test_the_landmark_box_follows_a_face_like_the_detectors(photo, finder, face):
    box = faces.landmark_box(face.landmarks)
    np.testing.assert_allclose(box, face.box, atol=0.25 * face.box[2])
    again = finder.landmarks(photo, box)
    assert np.linalg.norm(again - face.landmarks, axis=1).mean() < 0.05 * face.box[2]
    for _ in range(10):  # as tracking does it: the box must not creep or grow
        box = faces.landmark_box(finder.landmarks(photo, box))
    np.testing.assert_allclose(box, face.box, atol=0.25 * face.box[2])


def test_the_landmark_box_follows_a_moving_face(photo, finder, face):
    box = faces.landmark_box(face.landmarks)
    for shift in range(0, 60, 6):
        box = (
            faces.landmark_box(finder.landmarks(move(photo, 0, 1, shift, -shift / 2), box))
            if shift
            else (box[0] + 120, box[1] + 120, box[2], box[3])
        )
    np.testing.assert_allclose(box[:2], (face.box[0] + 120 + 54, face.box[1] + 120 - 27), atol=0.2 * face.box[2])


# --------------------------------------------------------------------------------------------------- aligning


@pytest.mark.parametrize(
    "degrees, scale, right, down, reason",
    [
        (0, 1.0, 40, -30, "shifted"),
        (15, 1.0, 0, 0, "head tilted to one side"),
        (-15, 1.0, 0, 0, "and to the other"),
        (0, 0.6, 0, 0, "farther away"),
        (0, 1.15, 0, 0, "nearer"),
        (-10, 0.8, -30, 25, "all of it"),
    ],
)
def test_the_crop_does_not_depend_on_how_the_head_is_held(photo, face, finder, degrees, scale, right, down, reason):
    """From the detector's box, which jumps in steps of a fifth; closer once the box follows the landmarks."""
    preprocessor = FacePreprocessor(FaceSpec())
    moved = move(photo, degrees, scale, right, down)
    (found,) = finder.find(moved)
    crop = preprocessor.crop(moved, found.landmarks)
    assert crop.shape == (48, 48) and crop.dtype == np.uint8
    assert likeness(crop, preprocessor.crop(photo, face.landmarks)) > 0.75, reason
    pictures = ((photo, settled(finder, photo, face)), (moved, settled(finder, moved, found)))
    one, two = (preprocessor.crop(picture, landmarks) for picture, landmarks in pictures)
    assert likeness(one, two) > 0.94 and np.abs(one.astype(float) - two).mean() < 12, reason


def settled(finder: faces.FaceFinder, image: np.ndarray, face: Face) -> np.ndarray:
    """Landmarks after two frames of following the face."""
    landmarks = face.landmarks
    for _ in range(2):
        landmarks = finder.landmarks(image, faces.landmark_box(landmarks))
    return landmarks


def test_without_alignment_the_head_stays_tilted(photo, face, finder):
    moved = move(photo, 15, 1, 0, 0)
    (found,) = finder.find(moved)
    original = FacePreprocessor(FaceSpec()).crop(photo, face.landmarks)
    tilted = FacePreprocessor(FaceSpec(align=False)).crop(moved, found.landmarks)
    upright = FacePreprocessor(FaceSpec()).crop(moved, found.landmarks)
    assert likeness(tilted, original) < likeness(upright, original) - 0.1


def test_exact_landmarks_give_the_exact_crop(photo, face):
    """The geometry alone, without the predictor: points moved with the photo."""
    rows, columns = photo.shape[:2]
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), 20, 1.0)
    matrix[:, 2] += 120
    points = (face.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    preprocessor = FacePreprocessor(FaceSpec())
    crop, original = preprocessor.crop(move(photo, 20, 1, 0, 0), points), preprocessor.crop(photo, face.landmarks)
    assert np.abs(crop.astype(float) - original).mean() < 3


def test_a_large_face_is_averaged_not_sampled():
    """A checkerboard of single pixels has no middle gray pixel; its reduction must be gray all over."""
    board = (np.indices((1200, 1200)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crop = FacePreprocessor(FaceSpec()).crop(board, drawn_landmarks(700, (600, 640), roll=7))
    assert crop.std() < 25 and abs(float(crop.mean()) - 127) < 5


def test_outside_the_image_the_border_is_repeated():
    image = np.full((60, 60), 200, np.uint8)
    crop = FacePreprocessor(FaceSpec()).crop(image, drawn_landmarks(80, (0, 30)))
    assert (crop == 200).all()


# --------------------------------------------------------------------------------------------------- thumbnails


def test_a_thumbnail_is_framed_like_the_photo_it_was_cut_from(photo, face, finder):
    preprocessor = FacePreprocessor(FaceSpec())
    original = preprocessor.crop(photo, face.landmarks)
    centre, side = faces.framing(face.landmarks)
    left, top = round(centre[0] - side / 2), round(centre[1] - side * faces.CENTRE_Y)
    cut = photo[top : top + round(side), left : left + round(side)]
    thumbnail = cv2.resize(cut, (48, 48), interpolation=cv2.INTER_AREA)
    assert likeness(preprocessor.from_thumbnail(thumbnail, finder), original) > 0.9


@pytest.mark.parametrize(
    "image, reason",
    [
        (np.random.default_rng(3).integers(0, 256, (48, 48), np.uint8), "noise"),
        (np.zeros((48, 48), np.uint8), "a black image, of which FER-2013 has some"),
        (np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8), "noise in colour"),
        (np.random.default_rng(3).integers(0, 256, (30, 70), np.uint8), "not square"),
    ],
)
def test_an_implausible_thumbnail_is_only_resized(finder, image, reason):
    factor = 192 / max(image.shape[:2])
    large = cv2.resize(faces.to_gray(image), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    landmarks = finder.landmarks(large, (0, 0, large.shape[1], large.shape[0]))
    unlikely = not faces.plausible(finder.landmarks(large, faces.landmark_box(landmarks)), large.shape[1])
    crop = FacePreprocessor(FaceSpec(size=64)).from_thumbnail(image, finder)
    assert crop.shape == (64, 64) and crop.dtype == np.uint8, reason
    if unlikely:
        expected = cv2.resize(faces.to_gray(image), (64, 64), interpolation=cv2.INTER_AREA)
        assert np.array_equal(crop, expected), reason


@pytest.mark.parametrize(
    "side, centre, roll, expected, reason",
    [
        (48, (24, 28.3), 0, True, "framed as usual"),
        (30, (24, 28.3), 20, True, "smaller and tilted"),
        (20, (24, 28.3), 0, False, "less than half the usual"),
        (80, (24, 28.3), 0, False, "more than one and a half times the usual"),
        (48, (40, 28.3), 0, False, "at the edge"),
        (48, (24, 28.3), 55, False, "lying on its side"),
        (48, (24, 28.3), 180, False, "upside down"),
    ],
)
def test_what_landmarks_a_thumbnail_can_have(side, centre, roll, expected, reason):
    assert faces.plausible(drawn_landmarks(side, centre, roll), 48) is expected, reason


def test_without_alignment_a_thumbnail_is_only_resized(finder, photo):
    thumbnail = cv2.resize(photo[80:280, 170:370], (48, 48))
    crop = FacePreprocessor(FaceSpec(align=False)).from_thumbnail(thumbnail, finder)
    assert np.array_equal(crop, faces.to_gray(thumbnail))


# --------------------------------------------------------------------------------------------------- normalising

CROPS = np.random.default_rng(0).normal(120, 30, (3, 48, 48)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("clahe", [False, True])
def test_standardised_images_have_mean_0_and_deviation_1(clahe):
    out = FacePreprocessor(FaceSpec(clahe=clahe)).normalise(CROPS)
    assert out.shape == (3, 48, 48, 1) and out.dtype == np.float32
    np.testing.assert_allclose(out.mean(axis=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(axis=(1, 2, 3)), 1, atol=1e-4)


def test_each_image_is_normalised_on_its_own():
    preprocessor = FacePreprocessor(FaceSpec())
    one_by_one = np.concatenate([preprocessor.normalise(crop[None]) for crop in CROPS])
    np.testing.assert_array_equal(preprocessor.normalise(CROPS), one_by_one)


@pytest.mark.parametrize("scaling", ["standardise", "minus_one_to_one"])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_a_flat_image_stays_flat(scaling, level):
    flat = np.full((1, 48, 48), level, np.uint8)
    out = FacePreprocessor(FaceSpec(scaling=scaling)).normalise(flat)
    assert np.isfinite(out).all() and np.ptp(out) == 0


def test_sensor_noise_on_a_flat_image_is_not_blown_up():
    noise = np.random.default_rng(0).integers(100, 102, (1, 48, 48)).astype(np.uint8)
    assert np.abs(FacePreprocessor(FaceSpec(clahe=False)).normalise(noise)).max() < 1


def test_minus_one_to_one_maps_black_and_white_to_the_ends():
    crops = np.zeros((1, 48, 48), np.uint8)
    crops[0, 24:] = 255
    out = FacePreprocessor(FaceSpec(clahe=False, scaling="minus_one_to_one")).normalise(crops)
    assert out.min() == -1 and out.max() == 1 and out.dtype == np.float32


def test_standardising_removes_brightness_and_contrast():
    preprocessor = FacePreprocessor(FaceSpec(clahe=False))
    dark = (CROPS.astype(float) * 0.5 + 10).astype(np.uint8)
    np.testing.assert_allclose(preprocessor.normalise(dark), preprocessor.normalise(CROPS), atol=0.05)


def test_clahe_evens_a_face_lit_from_one_side(photo, face):
    plain = FacePreprocessor(FaceSpec(clahe=False))
    crop = plain.crop(photo, face.landmarks)
    lit = (crop * np.linspace(0.25, 1, 48)).astype(np.uint8)
    even = FacePreprocessor(FaceSpec())
    assert likeness(even.normalise(lit[None]), even.normalise(crop[None])) > likeness(
        plain.normalise(lit[None]), plain.normalise(crop[None])
    )


def test_no_crops_give_no_inputs():
    assert FacePreprocessor(FaceSpec()).normalise(np.empty((0, 48, 48), np.uint8)).shape == (0, 48, 48, 1)


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"size": 8}, "size"),
        ({"expand": 0.1}, "expand"),
        ({"expand": 5}, "expand"),
        ({"scaling": "0..1"}, "scaling"),
    ],
)
def test_a_spec_refuses_what_cannot_work(settings, named):
    with pytest.raises(ValueError, match=named):
        FaceSpec(**settings)


@pytest.mark.parametrize(
    "box, points, named",
    [
        ((0, 0, 10, 10), np.zeros((5, 2), np.float32), "landmarks"),
        ((0, 0, 0, 10), np.zeros((68, 2), np.float32), "box"),
        ((0, 0, 10, -1), np.zeros((68, 2), np.float32), "box"),
    ],
)
def test_a_face_refuses_what_cannot_be(box, points, named):
    with pytest.raises(ValueError, match=named):
        Face(box, points)


# --------------------------------------------------------------------------------------------------- files


@pytest.fixture
def files(tmp_path, photo) -> list[Sample]:
    """Two photos of a face between everything that is not one."""
    (tmp_path / "zero.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    cv2.imwrite(str(tmp_path / "one.png"), photo)
    cv2.imwrite(str(tmp_path / "two.png"), photo[:, ::-1])
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200), 90, np.uint8))
    names = ("zero.jpg", "one.png", "text.png", "wall.png", "two.png")
    return [Sample(tmp_path / name, "happy", name) for name in names]


@pytest.mark.parametrize(
    "cut, shrink, expected",
    [(False, 1.0, True), (True, 1.0, False), (False, 0.1, False)],
    ids=["a photograph", "cut to the face", "smaller than a face"],
)
def test_whole_photographs_are_told_from_face_crops(tmp_path, photo, finder, cut, shrink, expected):
    if cut:
        (face,) = finder.find(photo)
        centre, side = faces.framing(face.landmarks)
        (left, top), side = (centre - side / 2).astype(int), int(side)
        photo = photo[top : top + side, left : left + side]
        assert finder.detect(faces.to_gray(photo)), "it is the size that tells them apart"
    cv2.imwrite(str(tmp_path / "a.png"), cv2.resize(photo, None, fx=shrink, fy=shrink))
    (tmp_path / "b.png").write_text("broken")
    samples = [Sample(tmp_path / name, "x", name) for name in ("a.png", "b.png")]
    assert faces.are_photographs(samples) is expected


def test_unusable_files_are_collected_with_a_reason(files, finder):
    skipped: list[Skipped] = []
    crops, used = faces.crop_samples(files, FacePreprocessor(FaceSpec()), finder, detect=True, skipped=skipped)
    assert [sample.path.name for sample in used] == ["one.png", "two.png"]
    assert crops.shape == (2, 48, 48) and crops.dtype == np.uint8
    assert [item.path.name for item in skipped] == ["zero.jpg", "text.png", "wall.png"]
    assert all(item.path.name in item.reason for item in skipped)
    assert likeness(crops[0], crops[1][:, ::-1]) > 0.9, "the mirrored photo gives the mirrored crop"


def test_without_a_list_the_first_unusable_file_is_an_error(files, finder):
    with pytest.raises(DataError, match=r"zero\.jpg"):
        faces.crop_samples(files, FacePreprocessor(FaceSpec()), finder, detect=True)


def test_nothing_usable_gives_an_empty_array(files, finder):
    crops, used = faces.crop_samples(files[:1], FacePreprocessor(FaceSpec(size=64)), finder, skipped=[])
    assert crops.shape == (0, 64, 64) and crops.dtype == np.uint8 and used == []
