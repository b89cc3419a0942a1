"""A release on the embedded base whose adapters take a moment, and whose evaluation is a stored report."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from piu_lora.adapter import Ledger
from piu_lora.config import ForgetConfig
from piu_lora.evidence import Policy, verdict_of
from piu_lora.evidence.report import Report
from piu_lora.jobs.releases import apply
from piu_lora.jobs.releases.release import Release, create_release
from piu_lora.model import find_family
from tests.evidence.report.example import report

QUICK = (
    "gate.rank=4",
    "gate.retained=64",
    "gate.checked=64",
    "gate.variations=32",
    "gate.near=16",
    "gate.written=64",
    "gate.prompts=20",
)


@pytest.fixture
def quick() -> ForgetConfig:
    return ForgetConfig.preset(find_family("mini"), "gate-encoder").updated_from_pairs(QUICK)


@pytest.fixture
def stored_report() -> Report:
    return report()


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch, stored_report: Report) -> list[list[str]]:
    """Whom each version was evaluated on; every evaluation gives the stored report, judged anew."""
    asked: list[list[str]] = []

    def evaluate(_adapter: Path, identity: list[str], *_: object, policy: Policy, **__: object) -> object:
        asked.append(identity)
        verdict = verdict_of(stored_report, policy)
        return SimpleNamespace(report=stored_report.model_copy(update={"verdict": verdict}))

    monkeypatch.setattr(apply, "evaluate", evaluate)
    return asked


@pytest.fixture
def begun(tmp_path: Path, quick: ForgetConfig) -> Callable[..., Release]:
    """Begins a release."""

    def begin(name: str = "release", **options: object) -> Release:
        return create_release(tmp_path / name, "mini", **{"config": quick, **options})  # type: ignore[arg-type]

    return begin


@pytest.fixture
def ledger(own_ledger: Path) -> Ledger:
    return Ledger(own_ledger)
