"""The ledger: private, whole after any crash, and never out of step with the adapter folders."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from piu_lora.adapter import Adapter, Entry, Ledger, default_ledger, read_adapter
from piu_lora.errors import BadInput, Busy, EnvironmentProblem
from piu_lora.jobs.ledger import check_ledger, entry_for, export_ledger, registered

FORK = multiprocessing.get_context("fork")  # a new interpreter would spend seconds on imports


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "ledger.sqlite"


def many(path: Path, start: int, together: Barrier) -> None:
    together.wait(60)
    with Ledger(path) as ledger:
        for i in range(start, start + 50):
            ledger.add(Entry(f"{i:016x}", identity=f"person-{i}", figures={"conditioning": {"forget": i / 100}}))


def test_only_the_owner_may_read_it(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(Entry("a" * 16))
        files = list(path.parent.iterdir())
        assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"} <= {each.name for each in files}
        assert all(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in files)


def test_a_ledger_open_to_others_is_closed_to_them(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Ledger(path).close()
    path.chmod(0o644)
    Ledger(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "readable by others" in caplog.text


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIU_LORA_LEDGER", str(tmp_path / "mine"))
    assert default_ledger() == tmp_path / "mine"
    monkeypatch.delenv("PIU_LORA_LEDGER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_ledger() == tmp_path / "data" / "piu-lora" / "ledger.sqlite"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_ledger() == tmp_path / "home" / ".local" / "share" / "piu-lora" / "ledger.sqlite"


def test_entries_come_back_as_they_were(path: Path) -> None:
    entry = Entry(
        "a" * 16, identity="Ärzte/photo 1", members=("b", "c"), figures={"conditioning": {"forget": 0.25, "anchor": None}}, note='"'
    )
    with Ledger(path) as ledger:
        stored = ledger.add(entry)
        assert stored.created == stored.changed != ""
        again = ledger.add(Entry("a" * 16, state="withdrawn", created=stored.created))
        assert again.created == stored.created
    with Ledger(path) as ledger:
        assert ledger.entries("active") == []
        assert ledger.entries() == [again]
        ledger.add(entry)
        found = ledger.entry("a" * 16)
        assert found is not None
        assert (found.identity, found.members, found.figures, found.note) == (entry.identity, entry.members, entry.figures, entry.note)


def test_two_processes_at_once(path: Path) -> None:
    together = FORK.Barrier(2)  # both create the file at once
    processes = [FORK.Process(target=many, args=(path, start, together)) for start in (0, 1000)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with Ledger(path) as ledger:
        found = ledger.entries()
    assert len(found) == 100
    assert all(entry.identity == f"person-{int(entry.adapter_id, 16)}" for entry in found)


def test_a_lock_that_never_goes_is_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(path).close()
    monkeypatch.setattr("piu_lora.adapter.ledger._WAIT_SECONDS", 0.05)
    with Ledger(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="in use by another process"):
            ledger.add(Entry("a" * 16))
        other.close()
        ledger.add(Entry("a" * 16))


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at" * 50, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_ledger_is_a_clear_error(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises((BadInput, EnvironmentProblem), match=r"ledger\.sqlite.*(restore a backup|check disk|pass another)"):
        Ledger(path)
    assert path.read_bytes() == content


def test_another_database_and_a_newer_version(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE things (x)")
    with pytest.raises(BadInput, match="is no ledger"):
        Ledger(path)
    path.unlink()
    Ledger(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version=9")
    with pytest.raises(BadInput, match="update piu-lora"):
        Ledger(path)


def test_unusable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="cannot open the ledger"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(EnvironmentProblem, match="cannot open the ledger"):
        Ledger(tmp_path)


def test_ids_may_be_shortened(path: Path) -> None:
    with Ledger(path) as ledger:
        for name in ("abcd1111", "abcd2222"):
            ledger.add(Entry(name))
        assert ledger.find("abcd1").adapter_id == "abcd1111"
        with pytest.raises(BadInput, match="2 adapters begin with 'abcd'; the nearest: abcd1111, abcd2222"):
            ledger.find("abcd")
        with pytest.raises(BadInput, match="knows no adapter 'abdc1111'; the nearest: abcd1111"):
            ledger.find("abdc1111")
        ledger.add(Entry("abcd"))
        assert ledger.find("abcd").adapter_id == "abcd"
        with pytest.raises(BadInput, match="knows no adapter 'abc'"):
            ledger.find("abc")


def test_a_merge_marks_its_members_in_one_go(path: Path) -> None:
    with Ledger(path) as ledger:
        for name in ("aaaa", "bbbb", "cccc"):
            ledger.add(Entry(name, identity=name.upper()))
        ledger.record_merge(Entry("mmmm", members=("aaaa", "bbbb")))
        assert [(e.adapter_id, e.state, e.merged_into) for e in ledger.entries()][:2] == [
            ("aaaa", "merged", "mmmm"),
            ("bbbb", "merged", "mmmm"),
        ]
        ledger.record_merge(Entry("nnnn", members=("aaaa",)), instead_of="mmmm", withdrawn="bbbb")
        states = {entry.adapter_id: (entry.state, entry.merged_into) for entry in ledger.entries()}
    assert states == {
        "aaaa": ("merged", "nnnn"), "bbbb": ("withdrawn", "mmmm"), "cccc": ("active", ""), "mmmm": ("withdrawn", ""),
        "nnnn": ("active", ""),
    }  # fmt: skip


def test_an_error_in_a_transaction_leaves_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa"))
        broken = Entry("mmmm", members=("aaaa",), state="nonsense")  # type: ignore[arg-type]
        with pytest.raises((BadInput, EnvironmentProblem)):
            ledger.record_merge(broken)
        assert [(entry.adapter_id, entry.state) for entry in ledger.entries()] == [("aaaa", "active")]


def test_registering_confirms_or_takes_back(path: Path, adapter_folder: Path) -> None:
    adapter = read_adapter(adapter_folder)
    with Ledger(path) as ledger:
        with registered(ledger, adapter.receipt, adapter.path, "person-001", "mini") as confirm:
            entry = ledger.entry(adapter.id)
            assert entry is not None
            assert entry.state == "pending"
            assert check_ledger(ledger) == []  # its writer is alive
            confirm(adapter.receipt)
        entry = ledger.entry(adapter.id)
        assert entry is not None
        assert (entry.state, entry.identity, entry.bank, entry.path) == ("active", "person-001", "mini", str(adapter_folder))
        other = replace(adapter.receipt, adapter_id="b" * 16)
        with pytest.raises(ZeroDivisionError), registered(ledger, other, adapter.path):
            raise ZeroDivisionError
        assert ledger.entries() == [entry]
    assert not [each for each in path.parent.iterdir() if each.name.endswith(".lock")]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(path: Path, adapter: Adapter, target: Path, moment: str) -> None:
    with Ledger(path) as entries:
        if moment == "transaction":
            with entries._writing() as database:
                database.execute("DELETE FROM adapters")
                die()
        with registered(entries, adapter.receipt, target, "person-001") as confirm:
            if moment == "before":
                die()
            adapter.path.rename(target)
            if moment == "after":
                die()
            confirm(adapter.receipt)


@pytest.mark.parametrize(("moment", "left"), [("before", "nothing"), ("after", "both"), ("never", "both"), ("transaction", "nothing")])
def test_killed_at_any_moment(path: Path, adapter_folder: Path, tmp_path: Path, moment: str, left: str) -> None:
    """After ``check_ledger`` there is never an adapter without an entry, nor an entry without its adapter."""
    with Ledger(path) as ledger:
        ledger.add(Entry("other", state="withdrawn"))
    adapter, target = read_adapter(adapter_folder), tmp_path / "made"
    process = FORK.Process(target=killed, args=(path, adapter, target, moment))
    process.start()
    process.join(60)
    assert process.exitcode == (0 if moment == "never" else -signal.SIGKILL)
    with Ledger(path) as ledger:
        problems = check_ledger(ledger, [target] if target.exists() else [])
        assert all(problem.mended for problem in problems)
        assert check_ledger(ledger, [target] if target.exists() else []) == []
        entry = ledger.entry(adapter.id)
        assert ledger.entry("other") is not None
        assert (entry is not None, target.exists()) == ((True, True) if left == "both" else (False, False))
        if entry is not None:
            assert (entry.state, entry.identity, entry.weights_sha256 != "") == ("active", "person-001", True)


def test_check_finds_what_is_out_of_step(path: Path, adapter_folder: Path, tmp_path: Path) -> None:
    adapter = read_adapter(adapter_folder)
    with Ledger(path) as ledger:
        found = check_ledger(ledger, [tmp_path])
        assert [(problem.adapter_id, problem.mended) for problem in found] == [(adapter.id, False)]
        assert [problem.mended for problem in check_ledger(ledger, [tmp_path], mend=True)] == [True]
        assert check_ledger(ledger, [tmp_path]) == []
        ledger.add(Entry(adapter.id, path=str(adapter_folder), weights_sha256="0" * 64))
        assert "are not those that were entered" in check_ledger(ledger)[0].what
        shutil.rmtree(adapter_folder)
        assert "is gone" in check_ledger(ledger)[0].what
        ledger.withdraw(adapter.id)
        assert check_ledger(ledger) == []
        (tmp_path / "torn").mkdir()
        (tmp_path / "torn" / "forget.json").write_text("{")
        assert "no readable adapter" in check_ledger(ledger, [tmp_path])[0].what


def test_export(path: Path, tmp_path: Path, adapter_folder: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(entry_for(read_adapter(adapter_folder).receipt, adapter_folder, "person-001", "mini"))
        assert export_ledger(ledger, tmp_path / "all.json") == 1
        export_ledger(ledger, tmp_path / "public.csv", public=True)
        export_ledger(ledger, tmp_path / "all.csv")
        with pytest.raises(BadInput, match="neither"):
            export_ledger(ledger, tmp_path / "all.txt")
        with pytest.raises(BadInput, match="exists already"):
            export_ledger(ledger, tmp_path / "all.csv")
    for name in ("all.json", "all.csv"):
        assert "person-001" in (tmp_path / name).read_text()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    public = (tmp_path / "public.csv").read_text()
    assert "person-001" not in public
    assert str(tmp_path) not in public


def test_waiting_for_another_writer(path: Path) -> None:
    """A short lock is waited for, not reported."""
    Ledger(path).close()
    hold = "import sqlite3, sys, time; d = sqlite3.connect(sys.argv[1], isolation_level=None); d.execute('BEGIN IMMEDIATE'); "
    wait = "print('held', flush=True); time.sleep(0.5)"
    held = subprocess.Popen([sys.executable, "-c", hold + wait, str(path)], stdout=subprocess.PIPE)
    assert held.stdout is not None
    held.stdout.readline()
    begun = time.monotonic()
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa"))
    assert time.monotonic() - begun < 8
    assert held.wait(10) == 0


def test_many_openers_of_a_new_ledger(path: Path) -> None:
    """Creating the file and turning it to WAL is where SQLite itself does not wait."""
    together, failures = threading.Barrier(12), []

    def work(number: int) -> None:
        together.wait(30)
        try:
            with Ledger(path) as ledger:
                ledger.add(Entry(f"{number:016x}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with Ledger(path) as ledger:
        assert len(ledger.entries()) == 12


def test_opening_it_again_keeps_this_process_locks(path: Path) -> None:
    """POSIX drops a file's locks when any descriptor of it is closed; SQLite would then delete a WAL that is in use."""
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa"))
        Ledger(path).close()
        look = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('SELECT * FROM adapters'); d.close()"
        done = subprocess.run([sys.executable, "-c", look, str(path)], check=False)
        assert done.returncode == 0
        assert path.with_name(path.name + "-wal").exists()
        ledger.add(Entry("bbbb"))
    with Ledger(path) as ledger:
        assert len(ledger.entries()) == 2


def test_threads_share_it(path: Path) -> None:
    with Ledger(path) as ledger:
        threads = [threading.Thread(target=ledger.add, args=(Entry(f"{i:016x}"),)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(ledger.entries()) == 20


def test_a_device_or_a_pipe_is_left_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    pipe.chmod(0o644)
    with pytest.raises(EnvironmentProblem, match=r"no regular file.*or none"):
        Ledger(pipe)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o644


def test_another_program_s_database_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE things (x)")
    other.close()
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(BadInput, match="is no ledger"):
        Ledger(path)
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("harm", ["DROP TABLE adapters", "UPDATE adapters SET members = '{'", "ALTER TABLE adapters DROP COLUMN note"])
def test_damage_inside_is_a_clear_error(path: Path, harm: str) -> None:
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa"))
    with sqlite3.connect(path) as other:
        other.execute(harm)
    other.close()
    with pytest.raises(BadInput, match=r"is no ledger.*(restore a backup|pass another)"), Ledger(path) as ledger:
        ledger.entries()


def test_a_truncated_ledger_is_refused_when_it_is_opened(path: Path) -> None:
    with Ledger(path) as ledger:
        for i in range(60):
            ledger.add(Entry(f"{i:016x}", note="x" * 300))
    os.truncate(path, path.stat().st_size // 8192 * 4096)
    with pytest.raises(BadInput, match=r"damaged.*restore a backup"):
        Ledger(path)


def test_what_is_known_of_a_person_is_not_lost(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa", identity="person-001", bank="mini", bank_digest="d", created="2020-01-01T00:00:00+00:00"))
        again = ledger.add(Entry("aaaa"))
    assert (again.identity, again.bank, again.bank_digest, again.created) == ("person-001", "mini", "d", "2020-01-01T00:00:00+00:00")
    assert again.changed > again.created


def test_a_withdrawal_in_between_is_not_lost(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Another process withdraws a member just before the merge takes the lock."""
    with Ledger(path) as ledger, Ledger(path) as other:
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


def test_notes_stay(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa"))
        ledger.withdraw("aaaa", "request 17")
        assert ledger.withdraw("aaaa").note == "request 17"
        ledger.record_merge(Entry("nnnn"), withdrawn="aaaa")
        entry = ledger.entry("aaaa")
    assert entry is not None
    assert entry.note == "request 17; taken out of a merged adapter"


def test_what_still_contains_an_adapter(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa"))
        ledger.record_merge(Entry("mmmm", members=("aaaa", "bbbb")))
        ledger.record_merge(Entry("nnnn", members=("mmmm", "cccc")))
        ledger.add(Entry("oooo", members=("cccc",)))
        assert {entry.adapter_id for entry in ledger.containing("aaaa")} == {"mmmm", "nnnn"}
        ledger.withdraw("mmmm")
        assert {entry.adapter_id for entry in ledger.containing("aaaa")} == {"nnnn"}


def test_a_replaced_folder_retires_its_adapter(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa", path="somewhere"))
        ledger.add(Entry("bbbb", path="elsewhere"))
        ledger.add(Entry("cccc", path="somewhere"))
        assert [(entry.adapter_id, entry.state) for entry in ledger.entries()] == [
            ("aaaa", "withdrawn"), ("bbbb", "active"), ("cccc", "active"),
        ]  # fmt: skip


def test_what_is_being_written_is_not_withdrawn_nor_what_is_written_taken_back(path: Path) -> None:
    with Ledger(path) as ledger:
        with ledger.pending(Entry("aaaa")):
            with pytest.raises(BadInput, match="is being written"):
                ledger.withdraw("aaaa")
            with Ledger(path) as other:
                assert not other.abandoned(Entry("aaaa"))
        assert ledger.abandoned(Entry("aaaa"))
        ledger.add(Entry("aaaa"))
        assert not ledger.abandoned(Entry("aaaa"))
        ledger.remove("aaaa")
        assert ledger.entry("aaaa") is not None


def test_an_error_after_the_folder_is_in_place_keeps_the_entry(path: Path, adapter_folder: Path) -> None:
    """For example Ctrl-C while the replaced folder is being deleted."""
    receipt = read_adapter(adapter_folder).receipt
    with Ledger(path) as ledger:
        with pytest.raises(KeyboardInterrupt), registered(ledger, receipt, adapter_folder, "person-001"):
            raise KeyboardInterrupt
        assert [problem.mended for problem in check_ledger(ledger, [adapter_folder])] == [True]
        assert [(entry.state, entry.identity) for entry in ledger.entries()] == [("active", "person-001")]


def test_check_settles_a_killed_merge_with_its_members(path: Path, adapter_folder: Path) -> None:
    receipt = read_adapter(adapter_folder).receipt
    with Ledger(path) as ledger:
        ledger.add(Entry("aaaa"))
        merged = replace(entry_for(receipt, adapter_folder), members=("aaaa",))
        with ledger.pending(merged):
            pass
        ledger.add(merged)
        assert [(entry.adapter_id, entry.state, entry.merged_into) for entry in ledger.entries("merged")] == [
            ("aaaa", "merged", receipt.adapter_id)
        ]


def test_a_name_that_was_taken_back_is_not_left_in_the_file(path: Path) -> None:
    with Ledger(path) as ledger:
        for i in range(30):
            ledger.add(Entry(f"{i:016x}", note="x" * 500))
        with pytest.raises(ZeroDivisionError), ledger.pending(Entry("aaaa", identity="jane-doe")):
            raise ZeroDivisionError
    assert b"jane-doe" not in path.read_bytes()
