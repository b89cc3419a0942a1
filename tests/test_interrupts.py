"""Ctrl-C and SIGTERM on a program of the same frame as the commands, which needs no model to be tried."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from piu_lora import interrupts

FRAME = """
import sys, time
import typer
from piu_lora import interrupts
from piu_lora.cli.terminal import run

interrupts.listen()
app = typer.Typer(add_completion=False)

@app.callback(invoke_without_command=True)
def work():
    {work}

run(app)
"""
# What a library may do with the exception.
SWALLOWED = {
    "not at all": "print('ready', flush=True); time.sleep(20)",
    "a destructor": """
    class Handle:
        def __del__(self):
            print('ready', flush=True); time.sleep(20)
    Handle()
    time.sleep(20)
    """,
    "a broad except": """
    try:
        print('ready', flush=True); time.sleep(20)
    except BaseException:
        pass
    time.sleep(20)
    """,
    "another error": """
    try:
        print('ready', flush=True); time.sleep(20)
    except BaseException:
        raise ImportError('cannot load module more than once')
    """,
    "an end": """
    try:
        print('ready', flush=True); time.sleep(20)
    except BaseException:
        pass
    """,
    "slow tidying up": """
    try:
        print('ready', flush=True); time.sleep(20)
    finally:
        time.sleep(2.5); print('tidy', file=sys.stderr)
    """,
    "advice": """
    try:
        print('ready', flush=True); time.sleep(20)
    except KeyboardInterrupt:
        interrupts.advise('repeat the command'); raise
    """,
}


CASES = [(how, signal.SIGINT) for how in SWALLOWED] + [
    ("not at all", signal.SIGTERM),
    ("another error", signal.SIGTERM),
    ("advice", signal.SIGTERM),
]


@pytest.mark.parametrize(("how", "number"), CASES)
def test_a_signal_is_never_lost(how: str, number: signal.Signals) -> None:
    code, word = (130, "interrupted") if number == signal.SIGINT else (143, "terminated")
    program = FRAME.format(work=textwrap.indent(textwrap.dedent(SWALLOWED[how]), "    ").strip())
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    sent = time.monotonic()
    process.send_signal(number)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == code, talk
    assert time.monotonic() - sent < 15
    last = f"{word}; repeat the command" if how == "advice" else word
    assert talk.splitlines()[-1] == last
    assert how == "a destructor" or "Traceback" not in talk
    assert (how == "slow tidying up") == ("tidy" in talk)


def test_a_signal_that_is_ignored_stays_so() -> None:
    program = FRAME.format(work="import os, signal; os.kill(os.getpid(), signal.SIGINT); print('done')")
    ignoring = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); exec({program!r})"
    run = subprocess.run([sys.executable, "-c", ignoring], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_stops_by_itself(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts._State, "is_program", True)
    before = signal.getsignal(number)
    try:
        with interrupts.deferred() as asked:
            assert not asked()
            signal.raise_signal(number)
            assert asked()
            interrupts.check()  # silent while the work may still stop by itself
            assert signal.getsignal(number) is before
        assert signal.getsignal(number) is before
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    finally:
        interrupts._State.number = 0


def test_who_calls_the_library_may_go_on_after_an_interruption() -> None:
    with interrupts.deferred() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked()
    assert not interrupts.was_asked()
    interrupts.check()
