"""The ledger: private, whole, and it refuses what is damaged or is no ledger."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from piu_lora.adapter import Entry, Ledger, default_ledger
from piu_lora.errors import BadInput, EnvironmentProblem


def test_only_the_owner_may_read_it(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("a" * 16))
        files = list(ledger_path.parent.iterdir())
        assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"} <= {each.name for each in files}
        assert all(stat.S_IMODE(each.stat().st_mode) & 0o077 == 0 for each in files)


def test_a_ledger_open_to_others_is_closed_to_them(
    ledger_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Ledger(ledger_path).close()
    ledger_path.chmod(0o644)
    Ledger(ledger_path).close()
    assert stat.S_IMODE(ledger_path.stat().st_mode) == 0o600
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


def test_entries_come_back_as_they_were(ledger_path: Path) -> None:
    entry = Entry(
        "a" * 16,
        identity="Ärzte/photo 1",
        members=("b", "c"),
        figures={"conditioning": {"forget": 0.25, "anchor": None}},
        note='"',
    )
    with Ledger(ledger_path) as ledger:
        stored = ledger.add(entry)
        assert stored.created == stored.changed != ""
        again = ledger.add(Entry("a" * 16, state="withdrawn", created=stored.created))
        assert again.created == stored.created
    with Ledger(ledger_path) as ledger:
        assert ledger.entries("active") == []
        assert ledger.entries() == [again]
        ledger.add(entry)
        found = ledger.entry("a" * 16)
        assert found is not None
        assert (found.identity, found.members, found.figures, found.note) == (
            entry.identity,
            entry.members,
            entry.figures,
            entry.note,
        )


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be looked at" * 50, b"SQLite format 3\0" + bytes(5000)]
)
def test_a_damaged_ledger_is_a_clear_error(ledger_path: Path, content: bytes) -> None:
    ledger_path.parent.mkdir()
    ledger_path.write_bytes(content)
    with pytest.raises(
        (BadInput, EnvironmentProblem), match=r"ledger\.sqlite.*(restore a backup|check disk|pass another)"
    ):
        Ledger(ledger_path)
    assert ledger_path.read_bytes() == content


def test_another_database_and_a_newer_version(ledger_path: Path) -> None:
    ledger_path.parent.mkdir()
    with sqlite3.connect(ledger_path) as other:
        other.execute("CREATE TABLE things (x)")
    with pytest.raises(BadInput, match="is no ledger"):
        Ledger(ledger_path)
    ledger_path.unlink()
    Ledger(ledger_path).close()
    with sqlite3.connect(ledger_path) as newer:
        newer.execute("PRAGMA user_version=9")
    with pytest.raises(BadInput, match="update piu-lora"):
        Ledger(ledger_path)


def test_unusable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnvironmentProblem, match="cannot open the ledger"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(EnvironmentProblem, match="cannot open the ledger"):
        Ledger(tmp_path)


def test_ids_may_be_shortened(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
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


def test_a_merge_marks_its_members_in_one_go(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
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
        "aaaa": ("merged", "nnnn"),
        "bbbb": ("withdrawn", "mmmm"),
        "cccc": ("active", ""),
        "mmmm": ("withdrawn", ""),
        "nnnn": ("active", ""),
    }


def test_an_error_in_a_transaction_leaves_nothing(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa"))
        broken = Entry("mmmm", members=("aaaa",), state="nonsense")  # type: ignore[arg-type]
        with pytest.raises((BadInput, EnvironmentProblem)):
            ledger.record_merge(broken)
        assert [(entry.adapter_id, entry.state) for entry in ledger.entries()] == [("aaaa", "active")]


def test_a_device_or_a_pipe_is_left_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    pipe.chmod(0o644)
    with pytest.raises(EnvironmentProblem, match=r"no regular file.*or none"):
        Ledger(pipe)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o644


def test_another_program_s_database_is_left_as_it_is(ledger_path: Path) -> None:
    ledger_path.parent.mkdir()
    with sqlite3.connect(ledger_path) as other:
        other.execute("CREATE TABLE things (x)")
    other.close()
    ledger_path.chmod(0o644)
    before = ledger_path.read_bytes()
    with pytest.raises(BadInput, match="is no ledger"):
        Ledger(ledger_path)
    assert ledger_path.read_bytes() == before
    assert stat.S_IMODE(ledger_path.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "harm",
    ["DROP TABLE adapters", "UPDATE adapters SET members = '{'", "ALTER TABLE adapters DROP COLUMN note"],
)
def test_damage_inside_is_a_clear_error(ledger_path: Path, harm: str) -> None:
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa"))
    with sqlite3.connect(ledger_path) as other:
        other.execute(harm)
    other.close()
    with (
        pytest.raises(BadInput, match=r"is no ledger.*(restore a backup|pass another)"),
        Ledger(ledger_path) as ledger,
    ):
        ledger.entries()


def test_a_truncated_ledger_is_refused_when_it_is_opened(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        for i in range(60):
            ledger.add(Entry(f"{i:016x}", note="x" * 300))
    os.truncate(ledger_path, ledger_path.stat().st_size // 8192 * 4096)
    with pytest.raises(BadInput, match=r"damaged.*restore a backup"):
        Ledger(ledger_path)


def test_what_is_known_of_a_person_is_not_lost(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        ledger.add(
            Entry(
                "aaaa",
                identity="person-001",
                bank="mini",
                bank_digest="d",
                created="2020-01-01T00:00:00+00:00",
            )
        )
        again = ledger.add(Entry("aaaa"))
    assert (again.identity, again.bank, again.bank_digest, again.created) == (
        "person-001",
        "mini",
        "d",
        "2020-01-01T00:00:00+00:00",
    )
    assert again.changed > again.created


def test_notes_stay(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa"))
        ledger.withdraw("aaaa", "request 17")
        assert ledger.withdraw("aaaa").note == "request 17"
        ledger.record_merge(Entry("nnnn"), withdrawn="aaaa")
        entry = ledger.entry("aaaa")
    assert entry is not None
    assert entry.note == "request 17; taken out of a merged adapter"


def test_what_still_contains_an_adapter(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa"))
        ledger.record_merge(Entry("mmmm", members=("aaaa", "bbbb")))
        ledger.record_merge(Entry("nnnn", members=("mmmm", "cccc")))
        ledger.add(Entry("oooo", members=("cccc",)))
        assert {entry.adapter_id for entry in ledger.containing("aaaa")} == {"mmmm", "nnnn"}
        ledger.withdraw("mmmm")
        assert {entry.adapter_id for entry in ledger.containing("aaaa")} == {"nnnn"}


def test_a_replaced_folder_retires_its_adapter(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        ledger.add(Entry("aaaa", path="somewhere"))
        ledger.add(Entry("bbbb", path="elsewhere"))
        ledger.add(Entry("cccc", path="somewhere"))
        assert [(entry.adapter_id, entry.state) for entry in ledger.entries()] == [
            ("aaaa", "withdrawn"),
            ("bbbb", "active"),
            ("cccc", "active"),
        ]


def test_what_is_being_written_is_not_withdrawn_nor_what_is_written_taken_back(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        with ledger.pending(Entry("aaaa")):
            with pytest.raises(BadInput, match="is being written"):
                ledger.withdraw("aaaa")
            with Ledger(ledger_path) as other:
                assert not other.abandoned(Entry("aaaa"))
        assert ledger.abandoned(Entry("aaaa"))
        ledger.add(Entry("aaaa"))
        assert not ledger.abandoned(Entry("aaaa"))
        ledger.remove("aaaa")
        assert ledger.entry("aaaa") is not None


def test_a_name_that_was_taken_back_is_not_left_in_the_file(ledger_path: Path) -> None:
    with Ledger(ledger_path) as ledger:
        for i in range(30):
            ledger.add(Entry(f"{i:016x}", note="x" * 500))
        with pytest.raises(ZeroDivisionError), ledger.pending(Entry("aaaa", identity="jane-doe")):
            raise ZeroDivisionError
    assert b"jane-doe" not in ledger_path.read_bytes()
