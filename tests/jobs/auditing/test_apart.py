"""Attacks side by side: the same figures, in the same order."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from piu_lora.attacks import AuditConfig, find_attacks
from piu_lora.jobs.auditing import apart
from piu_lora.jobs.auditing.apart import processes_for, run_apart
from piu_lora.jobs.auditing.audit import audit
from piu_lora.progress import silent
from tests.tiny import tiny_pipeline

ADAPTER = next((Path(__file__).parents[3] / "adapters").glob("mini-piu-*"))
DEFAULT = AuditConfig.preset()


def test_processes_are_started_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "idle", lambda: 3)
    everything = find_attacks()
    assert processes_for("mini", "cpu", DEFAULT, everything) == 3
    assert processes_for("mini", "cpu", DEFAULT, everything[:1]) == 1
    assert processes_for("mini", "cpu", AuditConfig.preset("quick"), everything) == 1
    assert processes_for("arc2face", "cpu", DEFAULT, everything) == 1
    own = replace(everything[0], run=lambda context, config: None)  # type: ignore[arg-type,return-value]
    assert processes_for("mini", "cpu", DEFAULT, [*everything, own]) == 1
    assert processes_for(tiny_pipeline(levels=2), "cpu", DEFAULT, everything) == 1
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3 * 2**30))
    assert processes_for("mini", "cpu", DEFAULT, everything) == 1


class Job:
    """Stands in for the attacks."""

    audit = DEFAULT

    def __init__(self) -> None:
        self.begun: list[str] = []

    def open(self) -> Callable[[str], dict[str, Any]]:
        def run(name: str) -> dict[str, Any]:
            self.begun.append(name)
            return {"name": name}

        return run


def test_long_attacks_are_begun_first_and_the_report_keeps_its_order() -> None:
    job, attacks = Job(), find_attacks()
    section = run_apart(job, attacks, 1, silent)  # type: ignore[arg-type]
    assert [entry["name"] for entry in section["attacks"]] == [entry.name for entry in attacks]
    assert sorted(job.begun[:3]) == ["hosts", "inversion", "relearn"]
    assert section["budget"] == "default"


@pytest.mark.slow
def test_two_processes_find_what_one_finds() -> None:
    settings = ["audit.images=1", "audit.cone.cosines=[1.0]", "audit.cone.shares=[]", "audit.cone.images=1"]
    settings += ["audit.cone.deviations=false", "audit.reidentify.people=32"]
    attacks = ["cone", "reidentify"]
    one, two = (
        audit(
            ADAPTER,
            "mini-0007",
            "mini",
            attacks=attacks,
            budget="quick",
            settings=settings,
            device="cpu",
            processes=processes,
        ).document["audit"]["attacks"]
        for processes in (1, 2)
    )
    for first, second in zip(one, two, strict=True):
        assert first["figures"] == pytest.approx(second["figures"], abs=1e-5)
        assert first["name"] == second["name"]
