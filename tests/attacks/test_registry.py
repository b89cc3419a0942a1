import copy
import json

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import active
from piu_lora.attacks import ATTACKS, AttackContext, AuditConfig, attack, find_attacks, run_attacks
from piu_lora.attacks.registry import Outcome
from piu_lora.attacks.relearn import RelearnSettings
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.model import find_family
from tests.adapter.stacks import random_change
from tests.attacks.contexts import QUICK, context_of


@pytest.fixture
def context(pipe: StableDiffusionPipeline, bank: IdentityBank) -> AttackContext:
    return context_of(pipe, bank, random_change(pipe, 3, encoder=True))


def test_attacks_are_found_by_name() -> None:
    assert set(ATTACKS) == {"bypass", "cone", "hosts", "inversion", "reidentify", "relearn", "template"}
    assert [each.name for each in find_attacks(["reidentify", "cone"])] == ["cone", "reidentify"]
    assert find_attacks([]) == list(ATTACKS.values())
    with pytest.raises(BadInput, match="'wish'; known: bypass, cone"):
        find_attacks(["wish"])


def test_an_attack_registers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("piu_lora.attacks.registry.ATTACKS", {})

    @attack("new", "New", "?")
    def run(context: AttackContext, config: AuditConfig) -> Outcome:
        return Outcome(None, "", "", "")

    from piu_lora.attacks import registry

    assert registry.ATTACKS["new"].run is run


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_fills_its_entry_and_leaves_the_base_as_it_was(
    context: AttackContext, name: str
) -> None:
    before = {
        part: copy.deepcopy(getattr(context.pipe, part).state_dict())
        for part in ("unet", "text_encoder", "vae")
    }
    brief = QUICK.updated(
        {
            "images": 1,
            "steps": 1,
            "bypass_photos": 1,
            "inversion_steps": 1,
            "relearn_photos": (1,),
            "relearn_steps": (1,),
        }
    )
    section = run_attacks(context, brief, find_attacks([name]))
    (entry,) = json.loads(json.dumps(section, allow_nan=False))["attacks"]
    told = {"name", "label", "question", "budget", "seed", "seconds", "succeeded", "criterion", "finding"}
    assert set(entry) == told | {"figures", "columns", "rows", "curves"}
    assert entry["rows"]
    assert all(len(row) == len(entry["columns"]) for row in entry["rows"])
    assert all(len(line["x"]) == len(line["y"]) for curve in entry["curves"] for line in curve["series"])
    assert not any(each in json.dumps(entry) for each in context.bank.ids)
    assert {"control", "forgotten"} <= {row[1] for row in entry["rows"]}
    _same(context.pipe, before)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "reidentify"])
def test_an_interrupted_attack_leaves_the_base_as_it_was(context: AttackContext, name: str) -> None:
    before = {
        part: copy.deepcopy(getattr(context.pipe, part).state_dict())
        for part in ("unet", "text_encoder", "vae")
    }
    unet, interrupted = context.pipe.unet, []

    def stop(module: torch.nn.Module, inputs: object) -> None:
        # With the adapter in place; these work on a copy, which this hook is copied to as well.
        interrupted.append(bool(active(context.pipe)))
        if len(interrupted) > 4 and interrupted[-1] == (name not in {"hosts", "relearn", "template"}):
            raise KeyboardInterrupt

    handle = unet.register_forward_pre_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            ATTACKS[name].run(context, QUICK)
    finally:
        handle.remove()
    _same(context.pipe, before)


def _same(pipe: StableDiffusionPipeline, before: dict[str, dict[str, torch.Tensor]]) -> None:
    assert not active(pipe)
    for part, state in before.items():
        now = getattr(pipe, part).state_dict()
        assert now.keys() == state.keys()
        assert all(torch.equal(value, now[key]) for key, value in state.items())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    change = random_change(pipe, 3, encoder=True)

    def figures(seed: int) -> dict[str, object]:
        config = QUICK.updated(
            {
                "images": 1,
                "cone_cosines": (1.0,),
                "cone_shares": (),
                "relearn_photos": (1,),
                "relearn_steps": (1,),
            }
        )
        section = run_attacks(
            context_of(pipe, bank, change, seed=seed), config, find_attacks(["cone", "reidentify", "relearn"])
        )
        return {each["name"]: (each["figures"], each["rows"]) for each in section["attacks"]}

    assert figures(0) == figures(0)
    assert not torch.equal(
        context_of(pipe, bank, change).generator("a").get_state(),
        context_of(pipe, bank, change).generator("b").get_state(),
    )


def test_budgets() -> None:
    assert AuditConfig.preset().budget == "default"
    assert AuditConfig.preset("default", find_family("arc2face")).batch < AuditConfig.preset().batch
    assert AuditConfig.preset().updated_from_pairs(["relearn_steps=[1, 2]", "far=0.01"]).section_of(
        RelearnSettings
    ).steps == (1, 2)
    with pytest.raises(BadInput, match="unknown budget 'endless'; known: default, quick"):
        AuditConfig.preset("endless")
    for pair, message in (
        ("images=0", r"audit.images = 0 is out of range"),
        ("relearn_steps=[5, 2]", "ascending"),
        ("cone_cosines=[0.3, 0.9]", "falling"),
        ("cone_shares=[1.0]", "0 < value < 1 each"),
        ("bypass_strengths=[0.0]", "0 < value <= 1 each"),
        ("imags=3", r"did you mean audit\.images"),
    ):
        with pytest.raises(BadInput, match=message):
            AuditConfig().updated_from_pairs([pair])
