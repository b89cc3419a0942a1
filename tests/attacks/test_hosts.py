import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.attacks import AuditConfig, find_attacks, run_attacks
from piu_lora.attacks.hosting import WAYS, Host
from piu_lora.attacks.hosts import HOST_COLUMNS, figure_name
from piu_lora.attacks.template import TEMPLATES, templates_of
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.model import find_family
from tests.adapter.stacks import random_change
from tests.attacks.contexts import QUICK, context_of

WITHOUT_WEIGHTS = [name for name, entry in WAYS.items() if not entry.needs]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_a_host_draws_through_the_edit(pipe: StableDiffusionPipeline, bank: IdentityBank, name: str) -> None:
    """Images of the right shape, others than the untouched base's; a second LoRA in the UNet switches a stock
    adapter in the UNet off.
    """
    stock = name == "second LoRA, stock adapter"
    context = context_of(pipe, bank, random_change(pipe, 3, encoder=not stock))
    config = QUICK.updated({"images": 1, "steps": 2})
    person = context.people[0]
    edited, untouched = (
        WAYS[name].draw(Host(context, config, change, person)) for change in (context.change, {})
    )
    assert edited.shape == untouched.shape == (1, 3, 64, 64)
    assert torch.equal(edited, untouched) == stock


@pytest.mark.slow
def test_a_pinned_adapter_and_a_fused_base_draw_the_same(
    pipe: StableDiffusionPipeline, bank: IdentityBank
) -> None:
    context = context_of(pipe, bank, random_change(pipe, 3, encoder=True))
    host = Host(context, QUICK, context.change, context.people[0])
    for calls in ("demo, LoRA off", "demo, LoRA on"):
        fused, pinned = (WAYS[name].draw(host) for name in (calls, f"{calls}, pinned adapter"))
        assert torch.allclose(fused, pinned, atol=1e-4)


@pytest.mark.parametrize(
    ("only", "message"),
    [("ControlNet", "no controlnet was trained for this base"), ("Winamp", "unknown host 'Winamp'")],
)
def test_a_host_that_is_not_there_is_refused(
    pipe: StableDiffusionPipeline, bank: IdentityBank, only: str, message: str
) -> None:
    context = context_of(pipe, bank, random_change(pipe, 3))
    config = AuditConfig.preset("quick").updated({"hosts": {"only": (only,)}})
    with pytest.raises(BadInput, match=message):
        run_attacks(context, config, find_attacks(["hosts"]))


def test_rows_have_intervals_and_the_control(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    context = context_of(pipe, bank, random_change(pipe, 3))
    config = QUICK.updated({"steps": 1, "hosts": {"only": ("bare",)}, "template": {"count": 2}})
    for entry in run_attacks(context, config, find_attacks(["hosts", "template"]))["attacks"]:
        assert tuple(entry["columns"]) == HOST_COLUMNS
        assert {row[1] for row in entry["rows"]} == {"forgotten", "control"}
        assert all(0 <= row[-2] <= row[-3] <= row[-1] <= 1 for row in entry["rows"])


def test_twenty_prompts_on_the_embedded_base(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    prompts = templates_of(context_of(pipe, bank, random_change(pipe, 3)))
    assert len({prompt.text for prompt in prompts}) == len(TEMPLATES) + 1 == 20
    assert all(prompt.text.split().count(prompt.token) == 1 for prompt in prompts)


def test_hosts_of_the_embedded_base_ship() -> None:
    companions = find_family("mini").companions
    assert companions is not None
    assert companions.hosts is not None
    folder = companions.hosts()
    assert all((folder / entry.needs).exists() for entry in WAYS.values() if entry.needs)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10e6


def test_figures_are_words() -> None:
    assert figure_name("morph 75 %") == "morph_75"
    assert len({figure_name(name) for name in WAYS}) == len(WAYS)
