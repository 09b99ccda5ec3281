"""A console that is closed, breaks or lacks characters changes neither the work of a command nor its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from helpers.console import quiet_stderr
from helpers.data.paths import REPOSITORY

PROGRAM = """
import os, sys, time
from helpers.console import run_command
def main():
    print("out –\\udcff", "x" * 100_000)
    print("err –", file=sys.stderr)
    sys.stderr.flush()
    with open(sys.argv[1], "wb") as file:  # gets the first free descriptor
        os.write(2, b"a library's warning")
        file.write(b"work")
    print("end")
    return 3
run_command(main)
"""


WAITING = """
import time
from helpers.console import run_command
run_command(lambda: print("up", flush=True) or"""


@pytest.mark.parametrize(
    "shell, why",
    [
        ('"$@"', "as usual"),
        ('"$@" >&-', "closed stdout"),
        ('"$@" 2>&-', "closed stderr"),
        ('"$@" <&- >&- 2>&-', "no console"),
        ('PYTHONIOENCODING=cp932 "$@"', "Japanese Windows"),
        ('PYTHONIOENCODING=latin-1 "$@"', "Western terminal"),
        ('PYTHONIOENCODING=ascii "$@"', "C locale"),
    ],
)
def test_console(shell, why, tmp_path):
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", PROGRAM, tmp_path / "file"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 3, why
    assert (tmp_path / "file").read_bytes() == b"work"
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_broken_pipe(stream, tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", PROGRAM, tmp_path / "file"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: write}
    done = subprocess.run(command, cwd=REPOSITORY, **streams)
    os.close(write)
    assert done.returncode == 3 and (tmp_path / "file").read_bytes() == b"work"
    assert b"Traceback" not in (done.stderr or b"") and b"Exception" not in (done.stderr or b"")


def test_without_any_streams_as_pythonw_has_none():
    code = "import sys\nsys.stdout = sys.stderr = None\n" + PROGRAM
    done = subprocess.run([sys.executable, "-c", code, os.devnull], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 3 and b"Traceback" not in done.stderr


@pytest.mark.parametrize("name, code", [("SIGTERM", 130), ("SIGHUP", 130), ("SIGINT", 130)])
def test_signals_end_as_an_interrupt_does(name, code):
    program = f"{WAITING} time.sleep(60))"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(getattr(signal, name))
        assert process.wait(30) == code and process.stderr.read() == b""


def test_nohup_keeps_its_promise():
    program = f"{WAITING} time.sleep(1) or 3)"
    with subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert process.wait(30) == 3


def test_what_libraries_write_past_python_is_dropped_and_only_while_asked_for(capfd):
    with quiet_stderr():
        os.write(2, b"a library's warning")
    os.write(2, b"an error")
    assert capfd.readouterr().err == "an error"
