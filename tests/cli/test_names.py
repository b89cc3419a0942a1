"""Whom an adapter forgets is neither in what an audit says and writes, nor in what --debug shows."""

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest

from piu_lora.adapter.scan import Secrets, scan_files
from piu_lora.model import mini
from tests.cli.test_cli import piu

pytestmark = pytest.mark.slow
ADAPTER = next((Path(__file__).parents[2] / "adapters").glob("mini-piu-*"))
SMALL = (
    "--attacks",
    "reidentify",
    "--set",
    "audit.reidentify.people=64",
    "--set",
    "audit.reidentify.random=1",
)


@pytest.fixture
def photographed(tmp_path: Path) -> Path:
    """Somebody known by a file of embeddings in a folder with their name."""
    path = tmp_path / "Joanna Unforgettable" / "joanna-unforgettable.npy"
    path.parent.mkdir()
    np.save(path, mini.conditioning_bank().of("mini-0007").numpy())
    return path


@pytest.mark.parametrize("public", [False, True])
def test_an_audit_names_nobody(photographed: Path, tmp_path: Path, public: bool) -> None:
    out = tmp_path / "report"
    options = ("--json", "--debug", *(["--public"] if public else []))
    done = piu(
        "audit", ADAPTER, "--identity", photographed, "--out", out, "--budget", "quick", *SMALL, *options
    )
    assert done.returncode == 0, done.stderr
    said = tmp_path / "said.txt"
    said.write_text(done.stdout + done.stderr)
    secrets = Secrets.of(str(photographed), mini.conditioning_bank().of("mini-0007"))
    files = [path.relative_to(tmp_path).as_posix() for path in out.rglob("*") if path.is_file()]
    assert {"report/report.json", "report/report.md", "report/report.html"} <= set(files)
    assert scan_files(tmp_path, [*files, said.name], secrets) == []
    assert "reidentify" in said.read_text()


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("evaluate", "piu_lora.jobs.evaluation.evaluate._before_and_after"),
        ("audit", "piu_lora.jobs.auditing.audit.run_attacks"),
        ("verify", "piu_lora.jobs.evaluation.verify._measured"),
    ],
)
def test_a_traceback_names_nobody(
    photographed: Path, monkeypatch: pytest.MonkeyPatch, command: str, where: str
) -> None:
    """Python's own traceback shows lines of code; one with local variables would show everything."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the library")

    monkeypatch.setattr(where, fail)
    whom = ("--base", "mini") if command == "verify" else ("--identity", photographed)
    with pytest.raises(RuntimeError) as caught:
        piu(command, ADAPTER, *whom, "--debug")
    text = io.StringIO()
    with redirect_stderr(text):
        sys.excepthook(caught.type, caught.value, caught.tb)
    assert "a fault of the library" in text.getvalue()
    assert "Traceback" in text.getvalue()
    for secret in ("joanna", "unforgettable", "mini-0007", "tensor("):
        assert secret not in text.getvalue().casefold()
