"""Names, order and tables: what cannot be used is named with its file and line; nothing is written half."""

from __future__ import annotations

import os

import pytest

from helpers.data import files
from helpers.errors import DataError
from tests.data.builders import BAD_NAME


@pytest.mark.parametrize(
    "names, reason",
    [
        ([f"frame{n}.png" for n in range(1, 13)], "the numbers of a camera, without leading zeros"),
        (["a.png", "a1.png", "a01b2.png", "a1b10.png", "B.png"], "digits at several places, any case"),
        (["1.png", "2a.png", "10.png", "x.png"], "names that begin with a digit beside those that do not"),
        (["٣.png", "12.png"], "digits of another script count as numbers, too"),
    ],
)
def test_natural_order(tmp_path, names, reason):
    paths = [tmp_path / name for name in names]
    assert sorted(reversed(paths), key=files.natural_key) == paths, reason


def test_what_must_not_be_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.avi")
    (tmp_path / BAD_NAME).write_bytes(b"x")
    (tmp_path / "video.avi").write_bytes(b"x")
    (tmp_path / "link.avi").symlink_to(tmp_path / "gone.avi")
    assert files.why_unreadable(tmp_path / "video.avi") == ""
    assert "regular" in files.why_unreadable(tmp_path / "pipe.avi")
    assert "UTF-8" in files.why_unreadable(tmp_path / BAD_NAME)
    assert "folder" in files.why_unreadable(tmp_path)
    assert "no such" in files.why_unreadable(tmp_path / "link.avi")
    assert files.printable(tmp_path / BAD_NAME).endswith("caf\\xe9.avi")
    assert files.printable("a\nb\x1b[2J_ä.avi") == "a\\nb\\x1b[2J_ä.avi", "a name cannot command a terminal"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("yesterday")
    with pytest.raises(ZeroDivisionError), files.whole_file(target) as part:
        part.write_text("half of")
        raise ZeroDivisionError
    assert target.read_text() == "yesterday"
    with files.whole_file(target) as part:
        part.write_text("today")
        assert target.read_text() == "yesterday"
    assert target.read_text() == "today" and list(tmp_path.iterdir()) == [target]


BAD_TABLES = [
    (b"file,group\na.avi\n", r"line 2 has 1 cells, but the first line names 2", "a row that stops early"),
    (b"file,group\na.avi,p,q\n", r"line 2 has 3 cells", "a comma in a name that is not quoted"),
    (b'file,group\na.avi,p\n"b.avi,p\nc.avi,p\n', r"begins in line 3", "a quote that is never closed"),
    (b"file,group\na.avi,p\0\n", r"NUL", "a table that was cut out of a binary file"),
    (b"file;group\n", r"must have file,group", "another separator"),
    (b"", r"must have file,group", "an empty file"),
    (b"\xff\xfef\0i\0", r"cannot be read as a table", "UTF-16, as Notepad calls Unicode"),
    (b"file,group\n" + b"a" * 200_000 + b",p\n", r"begins in line 2", "a field that no table has"),
]


@pytest.mark.parametrize("data, message, reason", BAD_TABLES, ids=[row[2] for row in BAD_TABLES])
def test_a_bad_table_is_named_with_its_line(tmp_path, data, message, reason):
    (tmp_path / "table.csv").write_bytes(data)
    with pytest.raises(DataError, match=rf"table\.csv.*{message}"):
        files.read_csv(tmp_path / "table.csv", ("file", "group"))


def test_a_table_of_excel_is_read(tmp_path):
    (tmp_path / "table.csv").write_bytes(b'\xef\xbb\xbffile,group\r\n\r\n"a, b.avi",p\r\n')
    assert files.read_csv(tmp_path / "table.csv", ("file", "group")) == [(3, {"file": "a, b.avi", "group": "p"})]


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(DataError, match="not a regular file"):
        files.read_csv(tmp_path / "table.csv", ())
