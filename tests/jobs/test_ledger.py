"""The ledger and the adapter folders: never out of step, whatever is killed and when."""

import multiprocessing
import os
import shutil
import signal
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from piu_lora.adapter import Adapter, Entry, Ledger, read_adapter
from piu_lora.errors import BadInput
from piu_lora.jobs.ledger import check_ledger, entry_for, export_ledger, registered

FORK = multiprocessing.get_context("fork")  # a new interpreter would spend seconds on imports


def test_registering_confirms_or_takes_back(ledger_path: Path, adapter_folder: Path) -> None:
    adapter = read_adapter(adapter_folder)
    with Ledger(ledger_path) as ledger:
        with registered(ledger, adapter.receipt, adapter.path, "person-001", "mini") as confirm:
            entry = ledger.entry(adapter.id)
            assert entry is not None
            assert entry.state == "pending"
            assert check_ledger(ledger) == []  # its writer is alive
            confirm(adapter.receipt)
        entry = ledger.entry(adapter.id)
        assert entry is not None
        assert (entry.state, entry.identity, entry.bank, entry.path) == (
            "active",
            "person-001",
            "mini",
            str(adapter_folder),
        )
        other = replace(adapter.receipt, adapter_id="b" * 16)
        with pytest.raises(ZeroDivisionError), registered(ledger, other, adapter.path):
            raise ZeroDivisionError
        assert ledger.entries() == [entry]
    assert not [each for each in ledger_path.parent.iterdir() if each.name.endswith(".lock")]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(ledger_path: Path, adapter: Adapter, target: Path, moment: str) -> None:
    with Ledger(ledger_path) as entries:
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


@pytest.mark.parametrize(
    ("moment", "left"),
    [("before", "nothing"), ("after", "both"), ("never", "both"), ("transaction", "nothing")],
)
def test_killed_at_any_moment(
    ledger_path: Path, adapter_folder: Path, tmp_path: Path, moment: str, left: str
) -> None:
    """After ``check_ledger`` there is never an adapter without an entry, nor an entry without its adapter."""
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("other", state="withdrawn"))
    adapter, target = read_adapter(adapter_folder), tmp_path / "made"
    process = FORK.Process(target=killed, args=(ledger_path, adapter, target, moment))
    process.start()
    process.join(60)
    assert process.exitcode == (0 if moment == "never" else -signal.SIGKILL)
    with Ledger(ledger_path) as ledger:
        problems = check_ledger(ledger, [target] if target.exists() else [])
        assert all(problem.mended for problem in problems)
        assert check_ledger(ledger, [target] if target.exists() else []) == []
        entry = ledger.entry(adapter.id)
        assert ledger.entry("other") is not None
        assert (entry is not None, target.exists()) == ((True, True) if left == "both" else (False, False))
        if entry is not None:
            assert (entry.state, entry.identity, entry.weights_sha256 != "") == ("active", "person-001", True)


def test_check_finds_what_is_out_of_step(ledger_path: Path, adapter_folder: Path, tmp_path: Path) -> None:
    adapter = read_adapter(adapter_folder)
    with Ledger(ledger_path) as ledger:
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


def test_export(ledger_path: Path, tmp_path: Path, adapter_folder: Path) -> None:
    with Ledger(ledger_path) as ledger:
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


def test_an_error_after_the_folder_is_in_place_keeps_the_entry(
    ledger_path: Path, adapter_folder: Path
) -> None:
    """For example Ctrl-C while the replaced folder is being deleted."""
    receipt = read_adapter(adapter_folder).receipt
    with Ledger(ledger_path) as ledger:
        with pytest.raises(KeyboardInterrupt), registered(ledger, receipt, adapter_folder, "person-001"):
            raise KeyboardInterrupt
        assert [problem.mended for problem in check_ledger(ledger, [adapter_folder])] == [True]
        assert [(entry.state, entry.identity) for entry in ledger.entries()] == [("active", "person-001")]


def test_check_settles_a_killed_merge_with_its_members(ledger_path: Path, adapter_folder: Path) -> None:
    receipt = read_adapter(adapter_folder).receipt
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa"))
        merged = replace(entry_for(receipt, adapter_folder), members=("aaaa",))
        with ledger.pending(merged):
            pass
        ledger.add(merged)
        assert [(entry.adapter_id, entry.state, entry.merged_into) for entry in ledger.entries("merged")] == [
            ("aaaa", "merged", receipt.adapter_id)
        ]
