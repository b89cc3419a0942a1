"""Several processes and threads share a ledger: everybody waits, and nothing is lost."""

import multiprocessing
import sqlite3
import subprocess
import sys
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from piu_lora.adapter import Entry, Ledger
from piu_lora.errors import Busy

FORK = multiprocessing.get_context("fork")  # a new interpreter would spend seconds on imports


def many(ledger_path: Path, start: int, together: Barrier) -> None:
    together.wait(60)
    with Ledger(ledger_path) as ledger:
        for i in range(start, start + 50):
            ledger.add(
                Entry(f"{i:016x}", identity=f"person-{i}", figures={"conditioning": {"forget": i / 100}})
            )


def test_two_processes_at_once(ledger_path: Path) -> None:
    together = FORK.Barrier(2)  # both create the file at once
    processes = [FORK.Process(target=many, args=(ledger_path, start, together)) for start in (0, 1000)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with Ledger(ledger_path) as ledger:
        found = ledger.entries()
    assert len(found) == 100
    assert all(entry.identity == f"person-{int(entry.adapter_id, 16)}" for entry in found)


def test_a_lock_that_never_goes_is_busy(ledger_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(ledger_path).close()
    monkeypatch.setattr("piu_lora.adapter.ledger_file._WAIT_SECONDS", 0.05)
    with Ledger(ledger_path) as ledger:
        other = sqlite3.connect(ledger_path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="in use by another process"):
            ledger.add(Entry("a" * 16))
        other.close()
        ledger.add(Entry("a" * 16))


def test_waiting_for_another_writer(ledger_path: Path) -> None:
    """A short lock is waited for, not reported."""
    Ledger(ledger_path).close()
    hold = (
        "import sqlite3, sys, time; d = sqlite3.connect(sys.argv[1], isolation_level=None); d.execute('BEGIN"
        " IMMEDIATE'); "
    )
    wait = "print('held', flush=True); time.sleep(0.5)"
    held = subprocess.Popen([sys.executable, "-c", hold + wait, str(ledger_path)], stdout=subprocess.PIPE)
    assert held.stdout is not None
    held.stdout.readline()
    begun = time.monotonic()
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa"))
    assert time.monotonic() - begun < 8
    assert held.wait(10) == 0


def test_many_openers_of_a_new_ledger(ledger_path: Path) -> None:
    """Creating the file and turning it to WAL is where SQLite itself does not wait."""
    together, failures = threading.Barrier(12), []

    def work(number: int) -> None:
        together.wait(30)
        try:
            with Ledger(ledger_path) as ledger:
                ledger.add(Entry(f"{number:016x}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with Ledger(ledger_path) as ledger:
        assert len(ledger.entries()) == 12


def test_opening_it_again_keeps_this_process_locks(ledger_path: Path) -> None:
    """POSIX drops a file's locks when any descriptor of it is closed; SQLite would then delete a WAL that is
    in use.
    """
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa"))
        Ledger(ledger_path).close()
        look = (
            "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('SELECT * FROM adapters');"
            " d.close()"
        )
        done = subprocess.run([sys.executable, "-c", look, str(ledger_path)], check=False)
        assert done.returncode == 0
        assert ledger_path.with_name(ledger_path.name + "-wal").exists()
        ledger.add(Entry("bbbb"))
    with Ledger(ledger_path) as ledger:
        assert len(ledger.entries()) == 2


def test_threads_share_it(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        threads = [threading.Thread(target=ledger.add, args=(Entry(f"{i:016x}"),)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(ledger.entries()) == 20


def test_a_withdrawal_in_between_is_not_lost(
    ledger_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process withdraws a member just before the merge takes the lock."""
    with Ledger(ledger_path) as ledger, Ledger(ledger_path) as other:
        ledger.add(Entry("aaaa"))
        writing = ledger._writing

        def late() -> object:
            monkeypatch.undo()
            other.withdraw("aaaa", "request 17")
            return writing()

        monkeypatch.setattr(ledger, "_writing", late)
        ledger.record_merge(Entry("mmmm", members=("aaaa",)))
        entry = ledger.entry("aaaa")
    assert entry is not None
    assert (entry.state, entry.note) == ("withdrawn", "request 17")
    assert "mmmm contains aaaa, which is withdrawn" in caplog.text
