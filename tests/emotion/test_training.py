"""helpers.emotion.training: labels, augmentation, batches, the cache of crops, learning."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import keras
import numpy as np
import pytest

from helpers import runtime, training
from helpers.data.folders import Sample, list_split
from helpers.emotion import classifier as emotion_classifier
from helpers.emotion import model as emotion_model
from helpers.emotion import training as emotion_training
from helpers.emotion.faces import FacePreprocessor, FaceSpec
from helpers.errors import DataError
from helpers.evaluate.metrics import Predictions
from helpers.evaluate.predict import predict_emotions
from helpers.synthetic import faces as synthetic_faces
from helpers.synthetic.faces import EXPRESSIONS
from helpers.synthetic.samples import write_emotion_samples


def test_expected_labels_follow_what_faces_with_the_same_votes_were_called():
    """Of 40 faces that all ten raters called neutral, FER-2013 calls 10 sad: each of them is expected to be sad by 1/4.
    A face without votes keeps its label."""
    neutral, happy, none = (np.eye(10, dtype=int)[0] * 10, np.eye(10, dtype=int)[1] * 10, np.zeros(10, int))
    votes = np.stack([neutral] * 40 + [happy] * 40 + [none] * 2)
    labels = np.array([0] * 30 + [2] * 10 + [1] * 40 + [2, 0])  # of neutral, happy, sad, and a class without a face
    expected = emotion_training.expected_labels(labels, votes, 4)
    assert expected.dtype == np.float32 and expected.shape == (82, 4)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(expected[:40], np.tile([0.75, 0, 0.25, 0], (40, 1)), atol=0.03)
    assert (expected[40:80, 1] > 0.9).all()
    np.testing.assert_array_equal(expected[80:], np.eye(4)[[2, 0]])


def test_votes_are_found_by_file_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_DATA", str(tmp_path))
    faces = [Sample(tmp_path / "train" / "sad" / name, "sad", name) for name in ("Training_7.jpg", "Training_8.jpg")]
    assert not emotion_training.fer_votes(faces).any(), "no file: no votes"
    (tmp_path / "fer2013_manifest.csv").write_text(
        "file,label,usage,copies_in_Training,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        "train/sad/Training_7.jpg,sad,Training,0,1,0,0,8,0,0,1,0,0,0\n"
    )
    np.testing.assert_array_equal(emotion_training.fer_votes(faces), [[1, 0, 0, 8, 0, 0, 1, 0, 0, 0], [0] * 10])


@pytest.mark.parametrize("sharper, reason", [(2.0, "twice too sure"), (1.0, "calibrated"), (0.5, "too shy")])
def test_the_temperature_undoes_what_was_done_to_calibrated_answers(sharper, reason):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 3))
    calibrated = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (rng.random((20_000, 1)) > calibrated.cumsum(axis=1)).sum(axis=1)  # drawn as the answers say
    spoilt = calibrated**sharper / (calibrated**sharper).sum(axis=1, keepdims=True)
    assert emotion_training.fit_temperature(spoilt, targets) == pytest.approx(sharper, rel=0.06), reason


CROPS = np.random.default_rng(0).integers(0, 256, (10, 48, 48)).astype(np.uint8)


def test_augmentation_with_nothing_allowed_is_a_mirror_at_most():
    out = emotion_training.augment_faces(CROPS, np.random.default_rng(0), degrees=0, shift=0, zoom=0)
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(out, CROPS, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(out, CROPS, strict=True)]
    assert np.logical_xor(mirrored, same).all() and 0 < sum(mirrored) < 10


def test_augmentation_keeps_shape_type_and_input_and_repeats():
    before = CROPS.copy()
    one, two = (emotion_training.augment_faces(CROPS, np.random.default_rng(4)) for _ in range(2))
    assert one.shape == CROPS.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(CROPS, before)
    assert not np.array_equal(one, emotion_training.augment_faces(CROPS, np.random.default_rng(5)))


def test_augmentation_moves_a_face_by_no_more_than_it_says():
    """A dot in the middle of the crop: shifts of 8 % of 48 pixels are at most 3.84."""
    dot = np.zeros((200, 48, 48), np.uint8)
    dot[:, 23:25, 23:25] = 255
    out = emotion_training.augment_faces(dot, np.random.default_rng(0)).astype(float)
    rows = (out.sum(axis=2) @ np.arange(48)) / out.sum(axis=(1, 2)) - 23.5
    columns = (out.sum(axis=1) @ np.arange(48)) / out.sum(axis=(1, 2)) - 23.5
    assert 3 < np.abs(rows).max() < 4.6 and 3 < np.abs(columns).max() < 4.6
    assert abs(rows.mean()) < 0.6 and abs(columns.mean()) < 0.6, "to no side on average"


def test_stretching_changes_the_ratio_of_a_faces_sides_and_not_its_size_or_place():
    """A square in the middle of the crop: height over width within exp(-0.4)..exp(0.4), the area as it was."""
    square = np.zeros((200, 48, 48), np.uint8)
    square[:, 16:32, 16:32] = 255
    out = (
        emotion_training.augment_faces(
            square, np.random.default_rng(0), degrees=0, shift=0, zoom=0, stretch=0.4
        ).astype(float)
        / 255
    )
    height, width = out[:, :, 23:25].sum(axis=1).mean(axis=1), out[:, 23:25].sum(axis=2).mean(axis=1)
    assert 0.35 < np.abs(np.log(height / width)).max() < 0.45 and abs(np.log(height / width).mean()) < 0.05
    np.testing.assert_allclose(out.sum(axis=(1, 2)), 256, rtol=0.03)
    rows, columns = (out.sum(axis=axis) @ np.arange(48) / out.sum(axis=(1, 2)) for axis in (2, 1))
    np.testing.assert_allclose((rows, columns), 23.5, atol=0.2)


def test_a_disturbed_picture_has_the_noise_and_the_blur_that_were_asked_for():
    rng, flat = np.random.default_rng(1), np.full((200, 200, 3), 128, np.uint8)
    np.testing.assert_array_equal(emotion_training.corrupt(flat, 0, 0, rng), flat)
    noisy = emotion_training.corrupt(flat, 6, 0, rng)
    assert noisy.shape == flat.shape and noisy.dtype == np.uint8
    assert noisy.std() == pytest.approx(6, rel=0.03) and noisy.mean() == pytest.approx(128, abs=0.1)
    assert emotion_training.corrupt(np.full((50, 50), 254, np.uint8), 20, 0, rng).max() == 255, "clipped, not wrapped"
    dot = np.zeros((41, 41), np.uint8)
    dot[20, 20] = 255
    blurred = emotion_training.corrupt(dot, 0, 1.5, rng).astype(float)
    assert np.sqrt(blurred.sum(axis=0) @ (np.arange(41) - 20) ** 2 / blurred.sum()) == pytest.approx(1.5, rel=0.1)


def test_every_face_is_disturbed_by_an_amount_of_its_own():
    flat = np.full((400, 24, 24), 128, np.uint8)
    deviations = emotion_training.corrupt_faces(flat, np.random.default_rng(2), noise=8, blur=0).std(axis=(1, 2))
    assert deviations.min() < 0.7 and 7 < deviations.max() < 9 and deviations.mean() == pytest.approx(4, rel=0.1)
    one, two = (emotion_training.corrupt_faces(CROPS, np.random.default_rng(3), 8, 1) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one.astype(int) - CROPS).max() > 8


def face_batches(**settings) -> emotion_training.FaceBatches:
    targets = np.eye(3, dtype=np.float32)[np.arange(10) % 3]
    return emotion_training.FaceBatches(CROPS, targets, FacePreprocessor(FaceSpec()), 4, seed=1, **settings)


def test_an_epoch_shows_every_face_once_in_another_order():
    batches = face_batches(augment=False)
    everything = FacePreprocessor(FaceSpec()).normalise(CROPS)
    orders = []
    for _ in range(2):
        parts = [batches[index] for index in range(len(batches))]
        assert [len(part[0]) for part in parts] == [4, 4, 2]
        images = np.concatenate([part[0] for part in parts])
        orders.append([int(np.abs(everything - image).sum(axis=(1, 2, 3)).argmin()) for image in images])
        labels = np.concatenate([part[1] for part in parts]).argmax(axis=1)
        np.testing.assert_array_equal(labels, np.array(orders[-1]) % 3)
        batches.on_epoch_end()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]


def test_batches_repeat_with_their_seed_and_change_with_the_epoch():
    one, two = face_batches(mixup_alpha=0.2), face_batches(mixup_alpha=0.2)
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_array_equal(a, b)
    first = one[0][0]
    one.on_epoch_end()
    assert not np.array_equal(first, one[0][0])


def test_reduced_batches_show_the_same_faces_smaller():
    targets, preprocessor = np.eye(10, dtype=np.float32), FacePreprocessor()
    whole, small = (
        emotion_training.FaceBatches(CROPS, targets, preprocessor, 10, 5, augment=False, side=side)[0]
        for side in (None, 24)
    )
    assert whole[0].shape == (10, 48, 48, 1) and small[0].shape == (10, 24, 24, 1)
    np.testing.assert_array_equal(whole[1], small[1])
    means = whole[0].reshape(10, 24, 2, 24, 2).mean(axis=(2, 4))  # each small pixel is the mean of four
    np.testing.assert_allclose(small[0][..., 0], means, atol=1e-5)


def epoch_of(batches: emotion_training.FaceBatches) -> list[np.ndarray]:
    """images, targets and weights of all batches of an epoch."""
    return [np.concatenate(part) for part in zip(*(batches[i] for i in range(len(batches))), strict=True)]


def test_a_teacher_answers_for_the_very_views_that_the_epochs_show():
    """Two views: epochs 0 and 2 show the same blended faces, epoch 1 others; targets are shares of label and answer."""
    keras.utils.set_random_seed(1)
    preprocessor, teacher = FacePreprocessor(FaceSpec()), emotion_model.build_mini_xception(3, 48, 4, (8,))
    answers = emotion_training.teach(teacher, CROPS, preprocessor, views=2, mixup_alpha=1.0, stretch=0.3, batch=4)
    assert answers.shape == (2, 10, 3) and answers.dtype == np.float32
    taught, everyone = dict(answers=answers, teacher_share=0.75, mixup_alpha=1.0, stretch=0.3), np.arange(10)
    batches, one_hot, shown = face_batches(**taught), np.eye(3, dtype=np.float32)[np.arange(10) % 3], []
    for epoch in range(3):
        images, targets, _ = epoch_of(batches)
        view = emotion_training.face_view(CROPS, preprocessor, epoch % 2, 1.0, 0.3)
        seen, labels = view.images(everyone, preprocessor), view.targets(one_hot, everyone)
        np.testing.assert_array_equal(images, seen[batches.order])
        said = runtime.KerasFunction(teacher)(seen)
        np.testing.assert_allclose(targets, (0.25 * labels + 0.75 * said)[batches.order], atol=1e-5)
        shown.append(seen)
        batches.on_epoch_end()
    assert ((labels > 0.05) & (labels < 0.45)).any(), "blended"
    assert np.array_equal(shown[0], shown[2]) and np.abs(shown[0] - shown[1]).max() > 0.5
    assert np.abs(answers[0] - answers[1]).max() > 1e-4
    small, large = face_batches(**taught, side=24)[1], face_batches(**taught)[1]
    np.testing.assert_array_equal(small[0], emotion_training.resize_faces(large[0], 24))
    np.testing.assert_array_equal(small[1], large[1])


def test_a_student_sees_disturbed_faces_where_its_teachers_saw_clean_ones():
    """The same faces at the same places, blended with the same others, and the teachers' answers stay."""
    preprocessor, everyone = FacePreprocessor(FaceSpec(clahe=False)), np.arange(10)
    clean, worse = (emotion_training.face_view(CROPS, preprocessor, 0, 1.0, 0.3, noise, 0.0) for noise in (0.0, 6.0))
    np.testing.assert_array_equal(clean.partner, worse.partner)
    np.testing.assert_array_equal(clean.share, worse.share)
    difference = worse.pictures.astype(float) - clean.pictures
    assert 1 < difference.std() < 6 and abs(difference.mean()) < 0.5, "noise, and nothing moved"
    answers = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 10)).astype(np.float32)
    taught = dict(answers=answers, teacher_share=0.75, mixup_alpha=1.0, stretch=0.3)
    shown, disturbed = (epoch_of(face_batches(**taught, noise=noise)) for noise in (0.0, 6.0))
    view = emotion_training.face_view(CROPS, FacePreprocessor(FaceSpec()), 0, 1.0, 0.3, 6.0).images(
        everyone, FacePreprocessor(FaceSpec())
    )
    np.testing.assert_array_equal(disturbed[0], view[face_batches(**taught).order])
    assert np.abs(disturbed[0] - shown[0]).max() > 0.3
    np.testing.assert_array_equal(disturbed[1], shown[1])
    untaught = [epoch_of(face_batches(noise=noise))[0] for noise in (0.0, 6.0)]
    assert 0.01 < np.abs(untaught[1] - untaught[0]).mean() < 1


def test_a_view_blends_its_pictures_and_its_targets_alike():
    """By hand: three quarters of face 0 and a quarter of face 2."""
    pictures = np.stack([np.full((16, 16), value, np.uint8) for value in (0, 51, 255)])
    view = emotion_training.FaceView(pictures, np.array([2, 0, 1]), np.float32([0.75, 1, 0.5]))
    images = view.images(np.array([0, 1]), FacePreprocessor(FaceSpec(16, clahe=False, scaling="minus_one_to_one")))
    np.testing.assert_allclose(images[:, 5, 5, 0], [0.75 * -1 + 0.25 * 1, -0.6], atol=1e-6)
    np.testing.assert_allclose(
        view.targets(np.eye(3, dtype=np.float32), np.array([0, 1])), [[0.75, 0, 0.25], [0, 1, 0]]
    )


def test_many_threads_make_the_same_batches():
    """Where there are many cores, several threads ask for batches at once."""
    keras.utils.set_random_seed(1)
    answers = np.full((2, 10, 3), 1 / 3, np.float32)
    for settings in (dict(mixup_alpha=0.4), dict(answers=answers, teacher_share=0.5, mixup_alpha=1.0)):
        one_by_one, together = face_batches(**settings), face_batches(**settings)
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(together.__getitem__, [0, 1, 2] * 8))
        for index, part in enumerate(parts):
            for a, b in zip(part, one_by_one[index % 3], strict=True):
                np.testing.assert_array_equal(a, b)


def test_answers_are_kept_in_small_steps_and_belong_to_their_faces(tmp_path):
    answers = np.random.default_rng(0).dirichlet(np.ones(7), (2, 5)).astype(np.float32)
    emotion_training.save_answers(tmp_path, answers, "these faces")
    again = emotion_training.load_answers(tmp_path, "these faces")
    np.testing.assert_allclose(again, answers, atol=0.02)
    np.testing.assert_allclose(again.sum(axis=-1), 1, atol=1e-6)
    assert again.dtype == np.float32
    with pytest.raises(DataError, match="other training faces.*delete"):
        emotion_training.load_answers(tmp_path, "those faces")
    with pytest.raises(DataError, match="nowhere.*no answers"):
        emotion_training.load_answers(tmp_path / "nowhere", "these faces")


def test_a_student_starts_from_the_weights_it_is_told(folders, monkeypatch):
    monkeypatch.setenv("HAR_PROFILE", "full")
    config = {
        "labels": "abc",
        "face": FaceSpec().as_dict(),
        "stem": 4,
        "widths": (8,),
        "dropout": 0.1,
        "l2": 0.0,
        "middle": 0,
    }
    keras.utils.set_random_seed(7)
    earlier = emotion_training.emotion_network(config)
    (folders / "artifacts" / "earlier").mkdir(parents=True)
    earlier.save(folders / "artifacts" / "earlier" / "emotion_model.keras")
    same, other = (
        emotion_training.emotion_network({**config, "start_from": "earlier"}),
        emotion_training.emotion_network(config),
    )
    for a, b in zip(earlier.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(earlier.get_weights(), other.get_weights(), strict=True))
    with pytest.raises(DataError, match="nowhere"):
        emotion_training.emotion_network({**config, "start_from": "nowhere"})


def test_batches_carry_each_samples_weight():
    images, targets, weights = face_batches(weights=np.array([1, 2, 4], np.float32), mixup_alpha=0.3)[0]
    assert images.shape == (4, 48, 48, 1) and images.dtype == targets.dtype == np.float32
    np.testing.assert_allclose(weights, targets @ [1, 2, 4], rtol=1e-6)


# A network that trains in seconds, on faces that the project draws itself.
DRAWN_FACES = {
    "labels": sorted(EXPRESSIONS),
    "face": FaceSpec().as_dict(),
    "stem": 4,
    "widths": (8,),
    "dropout": 0.0,
    "l2": 0.0,
    "middle": 0,
    "validation_fraction": 0.2,
    "vote_share": 0.0,
    "seed": 3,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "batch": 64,
    "epochs": 1,
    "small_epochs": 0,
    "small_side": 32,
    "small_rate": 0.01,
    "label_smoothing": 0.0,
    "focal_gamma": 0.0,
    "mixup_alpha": 0.2,
    "class_weight_cap": 0.5,
}


def test_a_students_answers_come_from_the_teachers_that_were_trained(folders, tmp_path, monkeypatch):
    """Two teachers that differ in their start and order alone, on synthetic faces; a student's data hold their mean."""
    monkeypatch.setenv("HAR_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("HAR_PROFILE", "full")
    config = DRAWN_FACES
    run = training.fit_or_load(
        "teachers",
        {**config, "members": 2, "views": 2, "view_alpha": 1.0, "stretch": 0.2},
        emotion_training.train_teachers,
    )
    seen = {"mixup_alpha": 1.0, "stretch": 0.2}
    for other in ({}, {**seen, "mixup_alpha": 0.5}, {**seen, "stretch": 0.0}):
        with pytest.raises(DataError, match="'mixup_alpha': 1.0, 'stretch': 0.2}; a student must see the same"):
            emotion_training.fer_data({**config, "teacher": "teachers", **other})
    data = emotion_training.fer_data({**config, "teacher": "teachers", **seen})
    assert data["answers"].shape == (2, len(data["train"]), 7)
    assert len(run.history["loss"]) == 1 and run.provenance["machine"] == training.machine()
    with np.load(run.folder / "validation.npz") as said:
        assert (
            said["probabilities"].shape == (2, len(data["val"]), 7)
            and np.ptp(said["probabilities"], axis=0).max() > 1e-3
        )
        np.testing.assert_array_equal(said["targets"], data["val_targets"])
    first = emotion_classifier.EmotionClassifier.load(run.folder)
    probabilities = first.predict(data["preprocessor"].normalise(data["val"]))
    with np.load(run.folder / "validation.npz") as said:
        np.testing.assert_array_equal(probabilities.argmax(axis=1), said["probabilities"][0].argmax(axis=1))
    alone, untaught, config = [], emotion_training.fer_data(config), {**config, "stretch": 0.2}
    for seed in (3, 4):
        model, _ = emotion_training.train_face_model({**config, "seed": seed}, untaught, tmp_path / str(seed))
        alone.append(emotion_training.teach(model, data["train"], data["preprocessor"], 2, 1.0, 0.2))
    np.testing.assert_allclose(data["answers"], np.mean(alone, axis=0), atol=0.01)
    assert np.abs(alone[0] - alone[1]).max() > 0.02


@pytest.mark.parametrize("even", [False, True])
def test_a_network_trained_on_fer_knows_for_which_mixture_it_answers(folders, tmp_path, monkeypatch, even):
    """On drawn faces, all classes equally often: the shares are one seventh each; predictions are the saved model's."""
    monkeypatch.setenv("HAR_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("HAR_PROFILE", "full")
    config = {**DRAWN_FACES, "noise": 4.0, "blur": 0.6, "even_mixture": even}
    run = training.fit_or_load("student", config, emotion_training.train_on_fer)
    classifier = emotion_classifier.EmotionClassifier.load(run.folder)
    if even:
        assert sum(classifier.frequencies) == pytest.approx(1, abs=1e-5) and classifier.frequencies == pytest.approx(
            [1 / 7] * 7, rel=0.1
        )
    else:
        assert classifier.frequencies is None
    kept = Predictions.load(run.folder / "predictions.npz")
    again, _ = predict_emotions(emotion_training.fer_samples("test"), classifier)
    assert kept.files == again.files
    np.testing.assert_allclose(kept.probabilities, again.probabilities, atol=1e-3)


def test_crops_are_computed_anew_exactly_when_something_changed(tmp_path, entries):
    source = list_split(write_emotion_samples(tmp_path / "faces", per_class=1), "train")
    labels, spec = EXPRESSIONS, FaceSpec(align=False)
    crops, targets = emotion_training.face_arrays(source, labels, spec)
    assert crops.shape == (7, 48, 48) and [labels[t] for t in targets] == [s.label for s in source]
    again, _ = emotion_training.face_arrays(source, labels, FaceSpec(align=False))
    np.testing.assert_array_equal(crops, again)
    assert entries() == 1, "the same question is answered from disk"
    moved = source[0].path.rename(tmp_path / "renamed.png")
    emotion_training.face_arrays([Sample(moved, source[0].label, "x"), *source[1:]], labels, spec)
    assert entries() == 1, "a file is its content, not its name"
    emotion_training.face_arrays(source[1:], labels, spec)
    assert entries() == 2, "a file less"
    emotion_training.face_arrays(source[1:], labels, FaceSpec(align=False, size=64))
    assert entries() == 3, "another specification"
    cv2.imwrite(str(source[1].path), 255 - cv2.imread(str(source[1].path)))
    changed, _ = emotion_training.face_arrays(source[1:], labels, spec)
    assert entries() == 4 and not np.array_equal(changed[0], crops[1]), "another content"


def test_no_face_images_are_an_error():
    with pytest.raises(DataError, match="no face images"):
        emotion_training.face_arrays([], EXPRESSIONS, FaceSpec())


def test_mini_xception_learns_drawn_expressions(tmp_path):
    """Accuracy as training reports it, on augmented faces: so short a training leaves the moving averages of batch
    normalisation behind, which inference needs."""
    labels, spec = EXPRESSIONS, FaceSpec(size=32)
    drawn = [synthetic_faces.render_expression(label, seed) for seed in range(6) for label in labels]
    crops = np.stack([cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA) for face in drawn])
    targets = np.arange(len(crops)) % 7
    keras.utils.set_random_seed(0)
    model = emotion_model.build_mini_xception(7, 32, stem=8, widths=(16, 32), dropout=0.0)
    config = {
        "optimizer": "adam",
        "learning_rate": 0.005,
        "batch": 7,
        "epochs": 20,
        "label_smoothing": 0.05,
        "focal_gamma": 1.0,
        "mixup_alpha": 0.0,
        "class_weight_cap": 3.0,
        "seed": 0,
    }
    data = {
        "train": crops,
        "train_targets": targets,
        "val": crops[:7],
        "val_targets": targets[:7],
        "preprocessor": FacePreprocessor(spec),
    }
    history = emotion_training.train_emotion(model, config, data, tmp_path)
    assert np.mean(history["loss"][-3:]) < 0.8 * history["loss"][0]
    assert np.mean(history["accuracy"][-5:]) > 0.3, f"chance is 0.14: {history['accuracy']}"
