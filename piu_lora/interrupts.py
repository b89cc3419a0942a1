"""Ctrl-C and SIGTERM, which schedulers send: both raise ``KeyboardInterrupt``, and neither gets lost where a
library swallows it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = ["advise", "check", "deferred", "leave", "listen", "was_asked"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = 1.0  # seconds after which a swallowed interruption is raised once more


class _State:
    """Of the process: the signal that asked it to stop (0 for none), and what the user may do next."""

    number = 0
    is_deferred = False
    is_program = False  # whose end a signal means; a caller of the library may go on after KeyboardInterrupt
    advice = ""


def listen() -> None:
    """From now on, Ctrl-C and SIGTERM stop the program; what ignores a signal already goes on ignoring it."""
    _State.is_program = True
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _stop_again)


def check() -> None:
    """Raise ``KeyboardInterrupt`` where an interruption was asked for, and the exception got lost."""
    if _State.number and not _State.is_deferred:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """While open, the first signal only makes the answer of the yielded function true, for work that stops by
    itself at the next good moment; a second signal stops at once.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        _State.number = number
        asked.set()
        _restore(previous)

    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    _State.is_deferred = True
    try:
        yield asked.is_set
    finally:
        _State.is_deferred = False
        if not _State.is_program:
            _State.number = 0
        _restore(previous)


def advise(text: str) -> None:
    """What the user may do next, to be said when the program stops."""
    _State.advice = text


def was_asked() -> bool:
    """Whether a signal asked to stop."""
    return _State.number > 0


def leave() -> NoReturn:
    """End the program as one that a signal stopped: with a line that says so, and the exit code of shells."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    # Of several processes of one launch, the first one talks.
    if os.environ.get("RANK", "0") == "0":
        word = "terminated" if _State.number == signal.SIGTERM else "interrupted"
        sys.stderr.write("; ".join(filter(None, (word, _State.advice))) + "\n")
    if not _State.number:
        raise SystemExit(128 + signal.SIGINT) from None
    # At once: Python ends by SIGINT, whatever exit is asked for, when the exception passed through exec().
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + _State.number)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    _State.number = number
    _wait_for_it()
    raise KeyboardInterrupt


def _stop_again(number: int, frame: FrameType | None) -> None:
    """The program still runs: either it tidies up, or the exception died in a destructor, in an import or in
    somebody's ``except``.
    """
    _wait_for_it()
    error = sys.exception()
    for _ in range(100):  # contexts may form a circle
        if error is None:
            raise KeyboardInterrupt
        if isinstance(error, KeyboardInterrupt):
            return
        error = error.__context__


def _wait_for_it() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
