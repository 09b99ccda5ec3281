"""helpers.emotion.data: which faces are trained on, which are held out, and what raters do to the targets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from helpers.data.folders import Sample, list_split
from helpers.emotion import data as emotion_data
from helpers.emotion.faces import FaceSpec
from helpers.errors import DataError
from helpers.synthetic import faces as synthetic_faces
from helpers.synthetic.faces import EXPRESSIONS
from helpers.synthetic.samples import write_emotion_samples

SPEC = FaceSpec(align=False)


def write_faces(folder, counts: dict[str, int], expressions: dict[str, str]) -> list[Sample]:
    """Synthetic faces below `folder`/<label>/, as many of each label as `counts` says."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for seed in range(count):
            face = synthetic_faces.render_expression(expressions[label], seed)
            cv2.imwrite(str(folder / label / f"{seed}.png"), face)
    return [Sample(path, path.parent.name, path.name) for path in sorted(folder.glob("*/*.png"))]


def test_any_labels_and_a_class_of_two_faces(tmp_path):
    """Three classes of other names, no votes: the labels are the targets, every class is on both sides."""
    samples = write_faces(
        tmp_path, {"calm": 12, "joy": 9, "yawn": 2}, {"calm": "neutral", "joy": "happy", "yawn": "surprise"}
    )
    data = emotion_data.face_data(samples, SPEC, validation_fraction=0.2, vote_share=0.5)
    assert data.labels == ("calm", "joy", "yawn")
    assert set(data.targets) == set(data.validation_targets) == {0, 1, 2}
    assert len(data.targets) + len(data.validation_targets) == 23 and (data.targets == 2).sum() == 1
    np.testing.assert_array_equal(data.soft_targets, np.eye(3)[data.targets])
    unweighted, uniform = data.class_prior(1 / 9), data.class_prior(100)
    assert unweighted == pytest.approx(
        dict(zip(data.labels, np.bincount(data.targets) / len(data.targets), strict=True)), abs=1e-6
    )
    assert uniform == pytest.approx(dict.fromkeys(data.labels, 1 / 3), abs=1e-6), "weights undo the counts"


def test_copies_of_a_picture_stay_on_one_side(tmp_path):
    samples = write_faces(tmp_path, {"a": 6, "b": 6}, {"a": "neutral", "b": "happy"})
    copies = []
    for sample in samples:
        twin = sample.path.with_name(f"copy_{sample.path.name}")
        twin.write_bytes(sample.path.read_bytes())
        copies.append(Sample(twin, sample.label, twin.name))
    inside, outside = emotion_data.split_faces([*samples, *copies], 0.3)
    names = [{sample.path.name.removeprefix("copy_") + sample.label for sample in part} for part in (inside, outside)]
    assert not names[0] & names[1] and len(outside) % 2 == 0 and outside


def test_a_class_of_one_picture_is_refused_by_name(tmp_path):
    samples = write_faces(tmp_path, {"a": 4, "lonely": 1}, {"a": "neutral", "lonely": "happy"})
    with pytest.raises(DataError, match="'lonely'"):
        emotion_data.face_data(samples, SPEC, validation_fraction=0.2, vote_share=0.0)


def test_whole_photographs_are_refused_with_the_command_that_takes_them(tmp_path, photo):
    samples = write_faces(tmp_path, {"a": 4, "b": 4}, {"a": "neutral", "b": "happy"})
    for sample in samples:
        cv2.imwrite(str(sample.path), photo)
    with pytest.raises(DataError, match=r"whole photographs.*helpers\.train emotion"):
        emotion_data.face_data(samples, SPEC, validation_fraction=0.2, vote_share=0.0)


def test_expected_labels_follow_what_faces_with_the_same_votes_were_called():
    """Of 40 faces that all ten raters called neutral, FER-2013 calls 10 sad: each of them is expected to be sad by 1/4.
    A face without votes keeps its label."""
    neutral, happy, none = (np.eye(10, dtype=int)[0] * 10, np.eye(10, dtype=int)[1] * 10, np.zeros(10, int))
    votes = np.stack([neutral] * 40 + [happy] * 40 + [none] * 2)
    labels = np.array([0] * 30 + [2] * 10 + [1] * 40 + [2, 0])  # of neutral, happy, sad, and a class without a face
    expected = emotion_data.expected_labels(labels, votes, 4)
    assert expected.dtype == np.float32 and expected.shape == (82, 4)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(expected[:40], np.tile([0.75, 0, 0.25, 0], (40, 1)), atol=0.03)
    assert (expected[40:80, 1] > 0.9).all()
    np.testing.assert_array_equal(expected[80:], np.eye(4)[[2, 0]])


def test_votes_on_faces_of_one_class_alone_teach_nothing():
    votes = np.tile(np.arange(10), (3, 1))
    np.testing.assert_array_equal(emotion_data.expected_labels(np.array([1, 1, 1]), votes, 2), np.eye(2)[[1, 1, 1]])


MANIFEST = (
    "file,label,usage,copies_in_Training,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
)


def test_votes_are_found_by_file_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_DATA", str(tmp_path))
    faces = [Sample(tmp_path / "train" / "sad" / name, "sad", name) for name in ("Training_7.jpg", "Training_8.jpg")]
    assert not emotion_data.fer_votes(faces).any(), "no file: no votes"
    row = "train/sad/Training_7.jpg,sad,Training,0,1,0,0,8,0,0,1,0,0,0\n"
    (tmp_path / "fer2013_manifest.csv").write_text(MANIFEST + row)
    np.testing.assert_array_equal(emotion_data.fer_votes(faces), [[1, 0, 0, 8, 0, 0, 1, 0, 0, 0], [0] * 10])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_the_raters_in_the_targets(tmp_path, monkeypatch, share):
    monkeypatch.setenv("HAR_DATA", str(tmp_path))
    samples = write_faces(tmp_path / "train", {"a": 8, "b": 8}, {"a": "neutral", "b": "happy"})
    lines = [f"train/{s.label}/{s.path.name},{s.label},Training,0,6,4,0,0,0,0,0,0,0,0\n" for s in samples[:8]]
    (tmp_path / "fer2013_manifest.csv").write_text(MANIFEST + "".join(lines))
    data = emotion_data.face_data(samples, SPEC, validation_fraction=0.25, vote_share=share)
    mixed = emotion_data.expected_labels(data.targets, data.votes, 2)
    np.testing.assert_allclose(data.soft_targets, (1 - share) * np.eye(2)[data.targets] + share * mixed, atol=1e-6)
    assert (mixed[:, 0] > 0.2).all() and (mixed[:, 0] < 0.8).all(), "the same votes for both classes say nothing"


def test_crops_are_computed_anew_exactly_when_something_changed(tmp_path, entries):
    source = list_split(write_emotion_samples(tmp_path / "faces", per_class=1), "train")
    labels = EXPRESSIONS
    crops, targets = emotion_data.face_arrays(source, labels, SPEC)
    assert crops.shape == (7, 48, 48) and [labels[t] for t in targets] == [s.label for s in source]
    again, _ = emotion_data.face_arrays(source, labels, FaceSpec(align=False))
    np.testing.assert_array_equal(crops, again)
    assert entries() == 1, "the same question is answered from disk"
    moved = source[0].path.rename(tmp_path / "renamed.png")
    emotion_data.face_arrays([Sample(moved, source[0].label, "x"), *source[1:]], labels, SPEC)
    assert entries() == 1, "a file is its content, not its name"
    emotion_data.face_arrays(source[1:], labels, SPEC)
    assert entries() == 2, "a file less"
    emotion_data.face_arrays(source[1:], labels, FaceSpec(align=False, size=64))
    assert entries() == 3, "another specification"
    cv2.imwrite(str(source[1].path), 255 - cv2.imread(str(source[1].path)))
    changed, _ = emotion_data.face_arrays(source[1:], labels, SPEC)
    assert entries() == 4 and not np.array_equal(changed[0], crops[1]), "another content"


def test_no_face_images_are_an_error():
    with pytest.raises(DataError, match="no face images"):
        emotion_data.face_arrays([], EXPRESSIONS, FaceSpec())
