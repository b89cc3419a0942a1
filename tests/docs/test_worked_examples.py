"""The worked examples of the pages for contributors run, from the page as it is."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from piu_lora.attacks import ATTACKS, AuditConfig, run_attacks
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.identity import IdentityBank
from piu_lora.plugins import import_entry_points
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES
from tests.adapter.stacks import random_change
from tests.attacks.contexts import context_of

PAGES = Path(__file__).parents[2] / "docs" / "contributing"


@pytest.fixture(autouse=True)
def _registries_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an example registers is gone after its test."""
    registries: list[dict[str, Any]] = [
        METHODS,
        BASELINES,
        ATTACKS,
        ForgetConfig._registered,
        ForgetConfig._methods,
        AuditConfig._registered,
        AuditConfig._budgets["quick"],
    ]
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def blocks_of(page: str) -> list[str]:
    """The Python blocks of a page, in order."""
    return re.findall(r"^```python[^\n]*\n(.*?)^```$", (PAGES / page).read_text(), flags=re.M | re.S)


def run(page: str) -> dict[str, Any]:
    """Run all of a page's Python in one namespace."""
    names: dict[str, Any] = {"__name__": "worked_example"}
    blocks = blocks_of(page)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return names


def test_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    names = run("add-a-method.md")
    assert capsys.readouterr().out.strip() == "{'strength': 1.5}"
    assert names["result"].receipt.method == "mean-kv"
    assert names["config"].anchor.rule == "synthetic"
    assert (tmp_path / "adapters" / "mean" / "pytorch_lora_weights.safetensors").exists()
    # Whoever does not use the method does not store its settings.
    assert "mean" not in ForgetConfig().to_dict()
    with pytest.raises(BadInput, match=r"mean\.strength = 3\.0 is out of range: expected 0 <= value <= 2"):
        ForgetConfig().updated({"mean": {"strength": 3.0}})


def test_a_baseline() -> None:
    import torch

    from piu_lora import load_base

    names = run("add-a-baseline.md")
    before, after = load_base("mini", device="cpu").unet.state_dict(), names["pipe"].unet.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for key in changed)


def test_an_attack(pipe: StableDiffusionPipeline, bank: IdentityBank, capsys: pytest.CaptureFixture) -> None:
    names = run("add-an-attack.md")
    assert "(0.25, 0.75)" in capsys.readouterr().out
    context = context_of(pipe, bank, random_change(pipe, 3, encoder=True))
    (entry,) = run_attacks(context, names["config"], [names["chosen"]])["attacks"]
    assert [row[0] for row in entry["rows"][::2]] == ["weight 0.25", "weight 0.75"] * 2
    assert {row[1] for row in entry["rows"]} == {"forgotten", "control"}
    assert entry["succeeded"] == (entry["figures"]["verified"] >= 0.5)


def test_a_package_announces_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "announced_method.py").write_text(blocks_of("add-a-method.md")[0])
    info = tmp_path / "announced-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: announced\nVersion: 1.0\n")
    entries = info / "entry_points.txt"
    entries.write_text("[piu_lora.methods]\nmean-kv = announced_method\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        import_entry_points("piu_lora.methods")
        assert METHODS["mean-kv"].solve is sys.modules["announced_method"].mean_kv
    finally:
        sys.modules.pop("announced_method", None)
    entries.write_text("[piu_lora.methods]\nmean-kv = not_there\n")
    with pytest.raises(EnvironmentProblem, match=r"the plugin mean-kv = 'not_there' \(piu_lora\.methods\)"):
        import_entry_points("piu_lora.methods")
