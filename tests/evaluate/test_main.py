"""python -m helpers.evaluate: the deployed path on real files."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.action.classifier import ActionClassifier, save_action
from helpers.action.clips import ClipSpec, video_steps
from helpers.data.images import read_image
from helpers.data.videos import read_frames
from helpers.emotion.classifier import EmotionClassifier, save_emotion
from helpers.emotion.faces import FaceFinder, FaceSpec
from helpers.evaluate import __main__ as evaluate_main
from helpers.evaluate import predict
from helpers.live.pipeline import Pipeline
from helpers.live.results import UNSURE
from helpers.live.run import Summary
from tests.data.builders import damage_frame

CLASSES = ("bend", "jump", "walk")


EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


STEPS = 8


RATE = 20  # frames a second


@pytest.fixture(scope="module")
def action_model(tmp_path_factory) -> Path:
    """A saved action model of the real structure: one small layer as backbone, random weights."""
    import keras
    from keras import layers

    from helpers.action.model import build_action_head, join_action_model

    keras.utils.set_random_seed(1)
    picture = keras.Input((32, 32, 3))
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, strides=4, activation="relu")(picture))
    model = join_action_model(keras.Model(picture, features), build_action_head(3, STEPS, features=8, units=4))
    folder = tmp_path_factory.mktemp("action")
    save_action(folder, model, CLASSES, spec=ClipSpec(length=STEPS, window_s=1.0, size=32))
    return folder


@pytest.fixture(scope="module")
def emotion_model(tmp_path_factory) -> Path:
    """A saved Mini-Xception of one block with random weights."""
    import keras

    from helpers.emotion.model import NetworkSpec, build_mini_xception

    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("emotion")
    save_emotion(folder, build_mini_xception(7, 48, NetworkSpec(4, (8,), middle=0)), EMOTIONS, spec=FaceSpec())
    return folder


def write_image(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def write_video(path: Path, frames: int, speed: int = 3) -> Path:
    """A bright square that moves to the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (160, 120))
    for number in range(frames):
        frame = np.full((120, 160, 3), 40, dtype=np.uint8)
        frame[40:80, (10 + number * speed) % 120 :][:, :30] = 220
        writer.write(frame)
    writer.release()
    return path


def run(capfd, *arguments) -> tuple[int, list[str], list[str]]:
    """(exit code, lines of stdout, lines of stderr that the package itself wrote)."""
    code = evaluate_main.main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return (
        code,
        out.splitlines(),
        [line for line in err.splitlines() if line.startswith(("skipped", "incomplete", "error", "warning"))],
    )


@pytest.fixture
def faces(tmp_path, photo) -> Path:
    """Two usable face crops, and one of everything that is not."""
    face = cv2.resize(photo[50:230, 170:350], (48, 48), interpolation=cv2.INTER_AREA)
    write_image(tmp_path / "faces" / "happy" / "good.png", face)
    whole = write_image(tmp_path / "faces" / "sad" / "good.jpg", face).read_bytes()
    (tmp_path / "faces" / "sad" / "cut_off.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "faces" / "sad" / "zero.jpg").write_bytes(b"")
    (tmp_path / "faces" / "sad" / "text.png").write_text("not an image")
    (tmp_path / "faces" / "sad" / "notes.txt").write_text("a file of another kind")
    (tmp_path / "faces" / "fear").mkdir()
    return tmp_path / "faces"


def test_emotion_scores_what_it_can_and_names_the_rest(capfd, tmp_path, faces, emotion_model):
    code, out, err = run(capfd, "emotion", faces, "--model", emotion_model, "--csv", tmp_path / "out.csv")
    assert code == 0
    assert out[0].startswith("accuracy=") and out[0].endswith("n=2 skipped=5")
    assert [line.split()[0] for line in out[1:5] if line] == ["precision", "happy", "sad"]
    for name in ("cut_off.jpg", "zero.jpg", "text.png", "notes.txt", "fear"):
        assert sum(f"{name}: " in line for line in err) == 1, f"{name} is not named once"
    assert len(err) == 5

    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "file",
        "label",
        "predicted",
        "confidence",
        *(f"p_{name}" for name in EMOTIONS),
    ]
    assert [(row["file"], row["label"]) for row in rows] == [
        ("happy/good.png", "happy"),
        ("sad/good.jpg", "sad"),
    ]
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in EMOTIONS}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert row["predicted"] == max(shares, key=shares.get)
        assert float(row["confidence"]) == pytest.approx(max(shares.values()))


def test_emotion_uses_the_deployed_classifier_and_preprocessing(faces, emotion_model):
    found = predict.evaluate_emotion(faces, emotion_model)
    predictions = found.predictions
    classifier, finder = EmotionClassifier.load(emotion_model), FaceFinder()
    crops = [classifier.preprocessor.from_thumbnail(read_image(faces / name), finder) for name in predictions.files]
    expected = classifier.predict(classifier.preprocessor.normalise(np.array(crops)))
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)
    assert predictions.classes == EMOTIONS and len(found.skipped) == 5


def test_detection_takes_the_largest_face_and_names_photos_without_one(capfd, tmp_path, photo, emotion_model):
    small = cv2.resize(photo, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    two = np.full((600, 900, 3), 90, dtype=np.uint8)
    two[: small.shape[0], : small.shape[1]] = small
    two[:, 380 : 380 + photo.shape[1]] = photo[:600]
    write_image(tmp_path / "photos" / "neutral" / "one.png", photo)
    write_image(tmp_path / "photos" / "neutral" / "two.png", two)
    write_image(tmp_path / "photos" / "neutral" / "wall.png", np.full((200, 200, 3), 90, dtype=np.uint8))

    code, out, err = run(capfd, "emotion", tmp_path / "photos", "--model", emotion_model, "--detect")
    assert code == 0 and out[0].endswith("n=2 skipped=1")
    assert len(err) == 1 and "wall.png: no face" in err[0]
    predictions = predict.evaluate_emotion(tmp_path / "photos", emotion_model, detect=True).predictions
    np.testing.assert_allclose(
        predictions.probabilities[0],
        predictions.probabilities[1],
        atol=0.02,
        err_msg="the large face of `two` is the face of `one`",
    )


def test_whole_photographs_without_detection_are_warned_of(capfd, tmp_path, photo, emotion_model):
    write_image(tmp_path / "photos" / "neutral" / "one.png", photo)
    code, out, err = run(capfd, "emotion", tmp_path / "photos", "--model", emotion_model)
    assert code == 0 and out[0].endswith("n=1 skipped=0")
    assert len(err) == 1 and "whole photographs" in err[0] and "--detect" in err[0]


def test_fer2013_layout_is_scored_on_its_test_part(capfd, tmp_path, faces, emotion_model):
    for part, label in (("train", "happy"), ("train", "sad"), ("test", "happy")):
        target = tmp_path / "fer" / part / label
        target.mkdir(parents=True)
        shutil.copy(faces / "happy" / "good.png", target / f"{part}.png")
    with zipfile.ZipFile(tmp_path / "fer.zip", "w") as archive:
        for path in sorted((tmp_path / "fer").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "fer"))
    for source in (tmp_path / "fer", tmp_path / "fer.zip"):
        code, out, _ = run(capfd, "emotion", source, "--model", emotion_model, "--csv", tmp_path / "out.csv")
        assert code == 0 and out[0].endswith("n=1 skipped=0")
        assert "happy/test.png,happy," in (tmp_path / "out.csv").read_text()


@pytest.fixture
def videos(tmp_path) -> Path:
    """Three usable videos, one of them a single frame, and one of everything that is not."""
    folder = tmp_path / "videos"
    write_video(folder / "bend" / "long.avi", frames=5 * RATE)
    write_video(folder / "bend" / "one_frame.avi", frames=1)
    write_video(folder / "walk" / "short.avi", frames=RATE // 2)
    (folder / "walk" / "zero.mp4").write_bytes(b"")
    (folder / "walk" / "text.avi").write_text("not a video")
    (folder / "jump").mkdir()
    return folder


def test_action_scores_what_it_can_and_names_the_rest(capfd, tmp_path, videos, action_model):
    code, out, err = run(capfd, "action", videos, "--model", action_model, "--csv", tmp_path / "out.csv")
    assert code == 0 and out[0].endswith("n=3 skipped=3")
    for name in ("zero.mp4", "text.avi", "jump"):
        assert sum(f"{name}: " in line for line in err) == 1, f"{name} is not named once"
    assert len(err) == 3
    assert "classes of the model without a file here: 1" in out[-2]
    files = [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()]
    assert files == ["file", "bend/long.avi", "bend/one_frame.avi", "walk/short.avi"]


def test_action_averages_half_overlapping_windows(videos, action_model):
    predictions = predict.evaluate_action(videos, action_model).predictions
    classifier = ActionClassifier.load(action_model)
    features = classifier.encode(video_steps(videos / "bend" / "long.avi", classifier.spec))
    assert len(features) == 40  # 5 s with 8 steps a second
    by_hand = [classifier.classify(features[None, start : start + STEPS])[0] for start in range(0, 33, STEPS // 2)]
    np.testing.assert_allclose(predictions.probabilities[0], np.mean(by_hand, axis=0), atol=1e-5)


def test_two_processes_print_and_write_what_one_does(capfd, tmp_path, videos, action_model, faces, emotion_model):
    write_video(videos / "none" / "still.avi", frames=RATE)
    damage_frame(videos / "bend" / "long.avi", 7)
    for task, source, model, options in (
        ("action", videos, action_model, ["--reject"]),
        ("emotion", faces, emotion_model, []),
    ):
        found = []
        for jobs in ("1", "2"):
            rows = tmp_path / f"{task}{jobs}.csv"
            answer = run(capfd, task, source, "--model", model, "--csv", rows, "--jobs", jobs, *options)
            found.append((*answer, rows.read_bytes()))
        assert found[0] == found[1] and found[0][1]


def shown_by_the_live_system(path: Path, model: Path) -> str | None:
    """The action that the pipeline shows for the longest time, frame after frame."""
    pipeline, summary = Pipeline(ActionClassifier.load(model), None, None), Summary()
    for frame, time_s in read_frames(path):
        summary.add(pipeline.step(frame, time_s), {})
    seconds = {label: value for label, value in summary.action_seconds.items() if label != UNSURE}
    return max(seconds, key=seconds.get) if seconds else None


@pytest.mark.parametrize("threshold", [0.2, 0.345, 0.99])
def test_rejection_is_what_the_live_system_shows(capfd, tmp_path, action_model, threshold):
    """Videos that move at different speeds, of which a random network makes different things."""
    model = tmp_path / "model"
    shutil.copytree(action_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "threshold": threshold}))
    for number, label in enumerate(("bend", "bend", "walk", "none", "none", "none")):
        write_video(tmp_path / "videos" / label / f"{number}.avi", frames=(5 if number % 3 else 2) * RATE, speed=number)
    write_video(tmp_path / "videos" / "walk" / "too_short.avi", frames=4)

    shown = {path: shown_by_the_live_system(path, model) for path in sorted((tmp_path / "videos").rglob("*.avi"))}
    actions = {path: answer for path, answer in shown.items() if path.parent.name != "none"}
    answered = [path.parent.name == answer for path, answer in actions.items() if answer]
    alarms = [answer is not None for path, answer in shown.items() if path.parent.name == "none"]
    right = f"{np.mean(answered):.2f}" if answered else "nan"
    expected = f"answered={len(answered) / 4:.2f} right={right} false_alarms={np.mean(alarms):.2f} negatives=3"
    code, out, _ = run(capfd, "action", tmp_path / "videos", "--model", model, "--reject")
    assert code == 0 and out[1] == expected
    assert out[0].endswith("n=4 skipped=0"), "clips without an action are not part of the first line"
    assert (len(answered) == 0) == (threshold == 0.99), "too short to fill a window, or below the threshold"
    _, plain, _ = run(capfd, "action", tmp_path / "videos", "--model", model, "--csv", tmp_path / "out.csv")
    assert plain == [out[0], *out[2:]] and "none/" not in (tmp_path / "out.csv").read_text()


def test_an_unknown_class_folder_is_an_error_that_lists_both(capfd, videos, action_model):
    write_video(videos / "dance" / "one.avi", frames=5)
    code, out, err = run(capfd, "action", videos, "--model", action_model)
    assert code == 2 and out == [] and len(err) == 1
    assert "dance" in err[0] and all(name in err[0] for name in CLASSES)


def make_bad_source(folder: Path, kind: str) -> Path:
    source = folder / kind
    if kind == "empty folder":
        source.mkdir()
    elif kind == "empty class folder":
        (source / "bend").mkdir(parents=True)
    elif kind == "only unusable files":
        (source / "bend").mkdir(parents=True)
        (source / "bend" / "zero.mp4").write_bytes(b"")
    elif kind == "text.zip":
        source.write_text("not a zip")
    return source


@pytest.mark.parametrize(
    "kind, message",
    [
        ("empty folder", "no class folder"),
        ("empty class folder", "bend"),
        ("only unusable files", "nothing to score: no file could be used (1 skipped)"),
        ("text.zip", "not a usable zip"),
        ("missing folder", "no such file or folder"),
    ],
)
def test_a_bad_source_is_one_line_and_exit_code_2(capfd, tmp_path, action_model, kind, message):
    code, out, err = run(capfd, "action", make_bad_source(tmp_path, kind), "--model", action_model)
    errors = [line for line in err if line.startswith("error")]
    assert code == 2 and out == [] and len(errors) == 1 and message in errors[0]
    assert kind in errors[0] or "zero.mp4" in err[0], "the message does not name the file"


def damage(model: Path, kind: str) -> None:
    if kind == "labels.json missing":
        (model / "labels.json").unlink()
    elif kind == "labels.json of another model":
        (model / "labels.json").write_text('["bend", "jump"]')
    elif kind == "model cut off":
        file = model / "emotion_model.tflite"
        file.write_bytes(file.read_bytes()[:1000])
    elif kind == "folder missing":
        shutil.rmtree(model)


@pytest.mark.parametrize(
    "kind, named",
    [
        ("labels.json missing", "labels.json"),
        ("labels.json of another model", "labels.json"),
        ("model cut off", "emotion_model.tflite"),
        ("folder missing", "broken"),
    ],
)
def test_a_bad_model_is_one_line_and_exit_code_2(capfd, tmp_path, faces, emotion_model, kind, named):
    shutil.copytree(emotion_model, tmp_path / "broken")
    damage(tmp_path / "broken", kind)
    code, out, err = run(capfd, "emotion", faces, "--model", tmp_path / "broken")
    assert code == 2 and out == [] and len(err) == 1 and named in err[0]


def test_a_model_that_gives_no_numbers_is_named_as_such(capfd, tmp_path, faces):
    import keras
    from keras import layers

    face = keras.Input((48, 48, 1))
    model = keras.Model(face, layers.Dense(7, activation="softmax")(layers.Flatten()(face)))
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    save_emotion(tmp_path, model, EMOTIONS, spec=FaceSpec())
    code, out, err = run(capfd, "emotion", faces, "--model", tmp_path)
    assert code == 2 and out == [] and "not finite" in err[-1]


@pytest.mark.parametrize(
    "csv_file, reason",
    [
        ("faces/happy/good.png", "an image of the source"),
        ("linked.csv", "a hard link to one"),
        ("faces", "a folder"),
        ("model/config.json", "a file of the model"),
    ],
)
def test_a_csv_that_would_destroy_something_is_refused_before_the_work(
    capfd, tmp_path, faces, emotion_model, csv_file, reason
):
    model = tmp_path / "model"
    shutil.copytree(emotion_model, model)
    (tmp_path / "linked.csv").hardlink_to(faces / "happy" / "good.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, err = run(capfd, "emotion", faces, "--model", model, "--csv", tmp_path / csv_file)
    assert code == 2 and out == [] and len(err) == 1 and csv_file in err[0], reason
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_yesterdays_csv_stays_when_there_is_nothing_to_score(capfd, tmp_path, emotion_model):
    (tmp_path / "out.csv").write_text("yesterday")
    (tmp_path / "faces" / "happy").mkdir(parents=True)
    (tmp_path / "faces" / "happy" / "text.png").write_text("not an image")
    code, _, _ = run(capfd, "emotion", tmp_path / "faces", "--model", emotion_model, "--csv", tmp_path / "out.csv")
    assert code == 2 and (tmp_path / "out.csv").read_text() == "yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "out.csv"]


def test_a_video_with_a_damaged_frame_is_named_and_ends_with_1(capfd, tmp_path, action_model):
    path = write_video(tmp_path / "videos" / "bend" / "hole.avi", frames=40)
    content = bytearray(path.read_bytes())
    starts = [place for place in range(len(content) - 1) if content[place : place + 3] == b"\xff\xd8\xff"]
    content[starts[17] : starts[17] + 600] = bytes(600)  # of Motion JPEG every frame begins so
    path.write_bytes(content)
    code, out, err = run(capfd, "action", tmp_path / "videos", "--model", action_model)
    assert code == 1 and out[0].endswith("n=1 skipped=0")
    assert len(err) == 1 and err[0].startswith("incomplete") and "hole.avi" in err[0] and "17" in err[0]


@pytest.mark.parametrize("arguments", [[], ["gesture", "folder"], ["action"], ["action", "folder", "--detect"]])
def test_wrong_arguments_exit_with_code_2(arguments):
    with pytest.raises(SystemExit) as exit_code:
        evaluate_main.main(arguments)
    assert exit_code.value.code == 2


def test_the_command_itself(faces, emotion_model):
    """As a user types it, with what libraries print on stderr."""
    command = [sys.executable, "-m", "helpers.evaluate", "emotion", faces, "--model", emotion_model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[0].endswith("n=2 skipped=5")
    assert "Traceback" not in done.stderr and "|" not in done.stderr, "no progress bar without a terminal"
