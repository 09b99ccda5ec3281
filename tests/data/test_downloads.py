"""Downloads are checked by hash or size and mended; from a real web server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from helpers.data import downloads, folders, paths
from helpers.errors import DataError
from tests.data.builders import write_classes, zip_folder


@pytest.fixture
def server(tmp_path):
    """A real web server on this machine that serves `tmp_path/served`."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            """Keep the test output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


@pytest.fixture
def registry(tmp_path, monkeypatch, server):
    """Called with file=hash or file=size: what `fetch` knows, all of it on the test's own server."""
    _, url = server

    def write(**known: str | int) -> None:
        files = {
            f"{name.split('__')[0]}/{name.split('__')[1]}.{name.split('__')[2]}": value for name, value in known.items()
        }
        address = {file: url + file.split("/")[1] for file in files}
        lines = [f"{file} {value} {address[file]}" for file, value in files.items() if isinstance(value, str)]
        (tmp_path / "registry.txt").write_text("\n".join(lines))
        monkeypatch.setattr(downloads, "REGISTRY", tmp_path / "registry.txt")
        sizes = {file: (address[file], value) for file, value in files.items() if isinstance(value, int)}
        monkeypatch.setattr(downloads, "UNHASHED", sizes)

    return write


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_fetch_checks_a_published_hash(tmp_path, server, registry, capfd):
    folder, _ = server
    path = zip_folder(write_classes(tmp_path / "walk", {"": ["person01_walking_d1.avi"]}), folder / "walking.zip")
    registry(kth__walking__zip=sha256(path))
    fetched = downloads.fetch("kth")
    assert fetched == paths.find_dataset("kth")
    assert [(s.label, s.group) for s in folders.list_samples(fetched)] == [("walking", "person01")]
    (fetched / path.name).write_bytes(b"damaged on disk")
    downloads.fetch("kth")
    assert (fetched / path.name).read_bytes() == path.read_bytes(), "mended on the next call"
    assert capfd.readouterr() == ("", ""), "silent where nobody watches"


def test_fetch_refuses_a_wrong_file(tmp_path, server, registry):
    folder, _ = server
    (folder / "walking.zip").write_bytes(b"something else")
    registry(kth__walking__zip="sha1:" + "0" * 40)
    with pytest.raises(DataError, match=r"walking\.zip.*not the expected file"):
        downloads.fetch("kth")
    assert not (tmp_path / "data/downloads/kth/walking.zip").exists()


def test_fetch_without_published_hash_checks_the_size(server, registry):
    folder, _ = server
    (folder / "UCF50.rar").write_bytes(b"Rar! content")
    registry(ucf50__UCF50__rar=12)
    fetched = downloads.fetch("ucf50")
    assert (fetched / "UCF50.rar").read_bytes() == b"Rar! content"
    with pytest.raises(DataError, match=r"unrar x"):
        folders.class_folders(fetched)
    registry(ucf50__UCF50__rar=99)
    with pytest.raises(DataError, match=r"UCF50\.rar: 12 bytes instead of 99"):
        downloads.fetch("ucf50")


def test_fetch_says_what_to_do_without_the_file(registry):
    registry(ucf50__UCF50__rar=12)
    with pytest.raises(DataError, match=r"UCF50\.rar: download.*404.*with a browser"):
        downloads.fetch("ucf50")


def test_fetch_sorts_ut_interaction(tmp_path, server, registry):
    folder, _ = server
    clips = write_classes(tmp_path / "ut", {"segmented_set1": ["0_1_4.avi", "17_3_0.avi"]})
    path = zip_folder(clips, folder / "set1.zip")
    registry(ut_interaction__set1__zip=path.stat().st_size)
    for _ in range(2):
        samples = folders.list_samples(downloads.fetch("ut_interaction"))
        assert [(s.label, s.group) for s in samples] == [("handshake", "sequence_03"), ("punch", "sequence_01")]
    assert paths.find_dataset("ut_interaction") == tmp_path / "data/ut_interaction"


def test_fetch_refers_to_the_card_for_the_rest():
    with pytest.raises(DataError, match=r"fer2013.*by hand.*data/README\.md.*kth, ucf101, ucf50, ut_interaction"):
        downloads.fetch("fer2013")


def test_the_registry_holds_every_file_of_every_set():
    store = downloads._store()
    assert sorted(file.split("/")[0] for file in store.registry) == ["kth"] * 6 + ["ucf101"] * 2 + [
        "ucf50",
        "ut_interaction",
    ]
    assert all(store.registry[file] or file in downloads.UNHASHED for file in store.registry)
    assert all(store.get_url(file).endswith(file.split("/")[1]) for file in store.registry)
