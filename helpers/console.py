"""What every command line needs: a console that is closed, broken or short of characters, tidy ends, numbers."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command line and end the process with its exit code.

    SIGTERM (`kill`) and SIGHUP (a closed terminal) end it as Ctrl-C does: by KeyboardInterrupt, so that files are
    finished; 130 where nobody caught it. A console that is closed or breaks changes neither the work nor the code.
    """
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(getattr(signal, name), signal.default_int_handler)
    _make_consoles_safe()
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def positive(text: str) -> int:
    """A number of at least 1, as argparse's `type`."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr past Python: TensorFlow on import, LiteRT about its CPU delegate."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _make_consoles_safe() -> None:
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:  # a closed standard stream: the next file to be opened would get its number and its messages
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        setattr(sys, name, _Console(getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115


class _Console:
    """A text stream that drops what nobody can read any more and writes "?" for what its encoding lacks."""

    def __init__(self, stream):
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        self._or_nowhere(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._or_nowhere(self._stream.flush)

    def _or_nowhere(self, action: Callable) -> None:
        try:
            action()
        except (OSError, ValueError):  # broken pipe, terminal gone, closed
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            with suppress(OSError, ValueError):  # also what is still in the buffer when the process ends
                os.dup2(nowhere.fileno(), self._stream.fileno())
            self._stream = nowhere

    def __getattr__(self, name: str):
        return getattr(self._stream, name)
