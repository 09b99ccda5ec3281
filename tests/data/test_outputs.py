"""What is written for a user never destroys what was there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers.data.outputs import OutputFile, check_output, free_name, local_path, written
from helpers.data.paths import REPOSITORY
from helpers.errors import OutputError


def folder_of_frames(tmp_path):
    (tmp_path / "set" / "wave").mkdir(parents=True)
    for name in ("set/groups.csv", "set/wave/1.png", "set.zip", "film.mp4"):
        (tmp_path / name).write_text("source")
    os.link(tmp_path / "film.mp4", tmp_path / "hard.mp4")
    os.symlink(tmp_path / "film.mp4", tmp_path / "soft.mp4")
    return tmp_path


@pytest.mark.parametrize(
    "output, source, why",
    [
        ("film.mp4", "film.mp4", "itself"),
        ("hard.mp4", "film.mp4", "another name of the same file"),
        ("soft.mp4", "film.mp4", "a symbolic link to it"),
        ("film.mp4", "file://{}/film.mp4", "an address of it"),
        ("~/film.mp4", "film.mp4", "a home folder"),
        ("film.mp4", "~/film.mp4", "the source's home folder"),
        ("set.zip", "set.zip", "a data set"),
        ("set/groups.csv", "set", "the groups of a data set"),
        ("set/wave/1.png", "set", "an image of the source folder"),
    ],
)
def test_source_is_refused_as_output(output, source, why, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(folder_of_frames(tmp_path)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is the source"):
        check_output(output, source.format(tmp_path))
    assert check_output("new.mp4", source.format(tmp_path)) == tmp_path / "new.mp4", why
    assert all(file.read_text() == "source" for file in tmp_path.rglob("*.*") if file.is_file())


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link to a device"])
def test_only_a_regular_file_may_be_the_target(kind, tmp_path):
    target = tmp_path / "out"
    {
        "folder": target.mkdir,
        "pipe": lambda: os.mkfifo(target),
        "device": lambda: None,
        "link to a device": lambda: target.symlink_to("/dev/null"),
    }[kind]()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OutputError, match="no file"):
        OutputFile("/dev/null" if kind == "device" else target)
    assert sorted(os.listdir(tmp_path)) == before


def test_what_was_there_stays_until_the_new_file_is_published(tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("yesterday")
    with OutputFile(target) as output:
        output.write(b"half")
    assert target.read_text() == "yesterday" and os.listdir(tmp_path) == ["out.csv"]
    with OutputFile(target) as output:
        output.write(b"row\n")
        output.publish()
        output.write(b"row\n")
        assert target.read_text() == "row\nrow\n"
    assert os.listdir(tmp_path) == ["out.csv"]


def test_nothing_is_left_where_nothing_was(tmp_path):
    with pytest.raises(RuntimeError), written(tmp_path / "new.csv") as file:
        file.write("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with written(tmp_path / "new.csv") as file:
        file.write("whole ü\r\n")
    assert (tmp_path / "new.csv").read_bytes() == "whole ü\r\n".encode()


@pytest.mark.parametrize("published", [False, True])
def test_a_second_run_on_one_output_is_refused(published, tmp_path):
    with OutputFile(tmp_path / "out.csv") as output:
        output.write(b"first\n")
        if published:
            output.publish()
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(OutputError, match="another run"):
            OutputFile(tmp_path / "out.csv")
        assert sorted(os.listdir(tmp_path)) == before
        output.write(b"second\n")
        output.publish()
    assert (tmp_path / "out.csv").read_text() == "first\nsecond\n"
    OutputFile(tmp_path / "out.csv").close()


def test_a_killed_run_bars_nobody(tmp_path):
    code = f"""if True:
        import os
        from helpers.data.outputs import OutputFile
        OutputFile({str(tmp_path / "out.csv")!r}).write(b"much that nobody wants")
        os.kill(os.getpid(), 9)"""
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == -9
    with OutputFile(tmp_path / "out.csv") as output:
        output.write(b"new")
        output.publish()
    assert (tmp_path / "out.csv").read_text() == "new" and os.listdir(tmp_path) == ["out.csv"]


def test_symbolic_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("real.csv")
    with written(tmp_path / "link.csv") as file:
        file.write("new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text() == "new"


def test_a_link_where_the_new_file_would_be_made_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".out.csv.part").symlink_to("precious")
    with pytest.raises(OutputError, match="out.csv"):
        OutputFile(tmp_path / "out.csv")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("source", [0, "0", "rtsp://camera/live", "http://host/film.mp4"])
def test_cameras_and_addresses_are_no_paths(source):
    assert local_path(source) is None


def test_two_files_of_one_second_have_two_names(tmp_path):
    names = []
    for suffix in (".png", ".mp4", ".png"):
        names.append(free_name(tmp_path, "live-1", ".png", ".mp4"))
        (tmp_path / (names[-1] + suffix)).touch()
    assert names == ["live-1", "live-1-2", "live-1-3"]
