"""``piu-lora ledger``: names on request only, and exit codes that scripts can trust."""

import contextlib
import io
import json
import stat
import sys
from pathlib import Path
from unittest import mock

import pytest

from piu_lora.adapter import Entry, Ledger, read_adapter
from piu_lora.cli.app import main
from piu_lora.jobs.ledger import entry_for

WHO, NOTE = "jane-doe", "request 17"


def piu(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the console script's entry point."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    line = mock.patch.object(sys, "argv", ["piu-lora", "ledger", *map(str, arguments)])
    with line, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def filled(own_ledger: Path) -> Path:
    with Ledger(own_ledger) as ledger:
        ledger.add(
            Entry(
                "aaaa1111",
                identity=WHO,
                bank="people.bank",
                bank_digest="d" * 64,
                base="mini",
                method="piu",
                path="photos/jane-doe-adapter",
                figures={"conditioning": {"forget": 0.25}},
            )
        )
        ledger.add(Entry("bbbb2222", base="mini", method="piu"))
        ledger.record_merge(Entry("mmmm3333", base="mini", method="sum", members=("aaaa1111", "bbbb2222")))
    return own_ledger


def test_list_says_nothing_of_persons(filled: Path) -> None:
    for arguments in (["list"], ["list", "--json"], ["list", "--state", "merged"]):
        code, out, err = piu(*arguments)
        assert code == 0
        assert "aaaa1111" in out
        for secret in (WHO, "people.bank", "d" * 64):
            assert secret not in out + err
    assert "0.250" in piu("list")[1]
    assert WHO in piu("list", "--names")[1]
    assert WHO in piu("list", "--names", "--json")[1]
    assert "mmmm3333" not in piu("list", "--state", "merged")[1]


def test_an_empty_ledger_says_where_it_is(own_ledger: Path) -> None:
    assert piu("list") == (0, f"no adapters in {own_ledger}\n", "")
    assert json.loads(piu("list", "--json")[1]) == {"adapters": []}


def test_show(filled: Path) -> None:
    code, out, _ = piu("show", "aaaa")
    assert code == 0
    assert WHO in out
    assert '{"conditioning": {"forget": 0.25}}' in out
    assert json.loads(piu("show", "mmmm", "--json")[1])["members"] == ["aaaa1111", "bbbb2222"]


@pytest.mark.parametrize("command", [("show",), ("withdraw",)])
def test_an_unknown_id_names_the_nearest(filled: Path, command: tuple[str]) -> None:
    code, out, err = piu(*command, "aaaa1112")
    assert (code, out) == (2, "")
    assert "aaaa1111" in err
    assert "Traceback" not in err


def test_withdraw_says_where_the_person_still_is(filled: Path) -> None:
    code, out, _ = piu("withdraw", "aaaa", "--note", NOTE)
    assert code == 0
    assert "mmmm3333" in out
    assert "stack withdraw" in out
    assert WHO not in out.replace("photos/jane-doe-adapter", "")
    with Ledger(filled) as ledger:
        entry = ledger.entry("aaaa1111")
    assert entry is not None
    assert (entry.state, entry.note) == ("withdrawn", NOTE)
    piu("withdraw", "mmmm")
    assert json.loads(piu("withdraw", "bbbb", "--json")[1])["still_part_of"] == []


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_export(filled: Path, tmp_path: Path, suffix: str) -> None:
    everything, public = tmp_path / f"all.{suffix}", tmp_path / f"public.{suffix}"
    assert piu("export", "--out", everything)[0] == 0
    assert piu("export", "--out", public, "--public")[0] == 0
    for path in (everything, public):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "aaaa1111" in path.read_text()
    assert WHO in everything.read_text()
    for secret in (WHO, "people.bank", "d" * 64):
        assert secret not in public.read_text()
    assert piu("export", "--out", everything)[0] == 2
    assert piu("export", "--out", everything, "--force")[0] == 0


def test_check(own_ledger: Path, adapter_folder: Path) -> None:
    code, out, _ = piu("check", adapter_folder.parent)
    assert code == 1
    assert "has no entry" in out
    assert piu("check", adapter_folder.parent, "--mend")[0] == 0
    assert piu("check", adapter_folder.parent) == (0, "ledger and folders agree\n", "")
    with Ledger(own_ledger) as ledger:
        (entry,) = ledger.entries()
        assert entry.identity == ""
        ledger.add(entry_for(read_adapter(adapter_folder).receipt, adapter_folder.parent / "moved", WHO))
    code, out, _ = piu("check")
    assert code == 1
    assert WHO not in out


@pytest.mark.parametrize(
    "command", [["list"], ["show", "aaaa"], ["withdraw", "aaaa"], ["check"], ["export", "--out", "x.json"]]
)
def test_no_ledger_is_refused(command: list[str]) -> None:
    code, out, err = piu(*command, "--ledger", "none")
    assert (code, out) == (2, "")
    assert "--ledger 'none'" in err


def test_a_broken_ledger_stops_forget_before_anything_expensive(own_ledger: Path, tmp_path: Path) -> None:
    own_ledger.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with mock.patch.object(
        sys, "argv", ["piu-lora", "forget", "--identity", "mini-0007", "--out", str(tmp_path / "out")]
    ):
        err = io.StringIO()
        with (
            mock.patch("piu_lora.jobs.forget.open_request") as request,
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stop,
        ):
            main()
    assert stop.value.code == 2
    assert "restore a backup" in err.getvalue()
    request.assert_not_called()
    assert not (tmp_path / "out").exists()
