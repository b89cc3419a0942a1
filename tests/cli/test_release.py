"""``piu-lora release``: a release from the command line, with stored evaluations."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from piu_lora.cli.app import app
from piu_lora.evidence.policy import EvaluationLimits
from tests.hub import LoopbackHub
from tests.jobs.releases.conftest import QUICK, evaluated, stored_report  # noqa: F401

Piu = Callable[..., Result]


@pytest.fixture
def piu() -> Piu:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["release", *map(str, arguments)])

    return run


@pytest.fixture
def folder(tmp_path: Path, piu: Piu) -> Path:
    settings = [part for pair in QUICK for part in ("--set", pair)]
    made = piu("init", "--out", tmp_path / "release", *settings)
    assert made.exit_code == 0, made.output
    assert "add people with `piu-lora release add`" in made.stdout
    return tmp_path / "release"


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    path = tmp_path / "lenient.toml"
    limits = [name for name in EvaluationLimits.model_fields if name != "forget_ism"]
    path.write_text("[evaluation]\nforget_ism = 1.0\n" + "".join(f'{name} = "off"\n' for name in limits))
    return path


@pytest.mark.usefixtures("evaluated")
def test_from_requests_to_the_hub(
    folder: Path, piu: Piu, lenient: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = piu("add", folder, "--identity", "mini-0007", "--until", "2099-01-01", "--json")
    (request,) = json.loads(added.stdout)["requests"]
    assert (request["state"], request["until"]) == ("pending", "2099-01-01")
    applied = piu("apply", folder, "--policy", lenient)
    assert applied.exit_code == 0, applied.output
    assert "version 1 stands, for 1 person, in" in applied.stdout
    status = piu("status", folder)
    assert "version 1 stands" in status.stdout
    assert "gate neurons are taken" in status.stdout
    assert "mini-0007" not in status.stdout + applied.stdout + piu("log", folder).stdout

    hub.add_token("hf_writes", "tester")
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    pushed = piu("push", folder, "tester/forgotten")
    assert pushed.exit_code == 0, pushed.output
    assert hub.read("tester/forgotten", "forget.json", "v1")
    assert piu("push", folder, "tester/forgotten").exit_code == 0  # again, the same


@pytest.mark.usefixtures("evaluated")
def test_a_version_that_does_not_stand_exits_with_1(folder: Path, piu: Piu) -> None:
    piu("add", folder, "--identity", "mini-0007")
    failed = piu("apply", folder)
    assert failed.exit_code == 1
    assert "version 1 does not stand" in failed.stdout
    assert "FAILED" in failed.stdout
    assert piu("push", folder, "tester/forgotten").exception is not None
    log = json.loads(piu("log", folder, "--json").stdout)
    assert [version["state"] for version in log["versions"]] == ["failed"]


def test_nothing_to_do(folder: Path, piu: Piu) -> None:
    assert "nothing to do" in piu("apply", folder).stdout
    assert "no versions yet" in piu("log", folder).stdout
    added = json.loads(piu("add", folder, "--identity", "mini-0007", "--json").stdout)
    gone = piu("withdraw", folder, added["requests"][0]["id"])
    assert "is withdrawn" in gone.stdout
    assert "1 withdrawn" in piu("status", folder).stdout
