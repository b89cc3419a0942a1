import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Factors, relative_changes, stacks_of
from piu_lora.cli.output import as_text
from piu_lora.cli.stack import check_parts
from piu_lora.identity import IdentityBank
from piu_lora.jobs.stacks.check import check_picture, check_stack
from piu_lora.jobs.stacks.layer_statistics import bystanders
from piu_lora.jobs.stacks.members import StackMember, open_members, with_people
from piu_lora.model import encode_embeddings, layer_inputs, layer_weight, second_moments, sees_condition
from piu_lora.model.condition import identity_position
from tests.adapter.stacks import layers, write_random


@pytest.fixture
def members(pipe: StableDiffusionPipeline, bank: IdentityBank, tmp_path: Path) -> list[StackMember]:
    adapters = [write_random(pipe, tmp_path / str(seed), seed, encoder=seed == 1) for seed in (1, 2, 3)]
    return with_people(open_members(adapters), ["person-001", "person-002", ""], pipe, bank)


def test_relative_changes_are_norm_ratios() -> None:
    """Root mean square over two layers, against dense matrices."""
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(4, 6, generator=generator) for name in ("unet.a", "unet.b")}
    changes = [
        {"unet.a": Factors(torch.randn(2, 6, generator=generator), torch.randn(4, 2, generator=generator))}
        for _ in range(2)
    ]
    inputs = {name: torch.randn(3, 5, 6, generator=generator) for name in base}
    found = relative_changes(changes, [1.0, 0.5], [(0,), (0, 1)], [inputs], base)
    x = inputs["unet.a"]
    for row, delta in enumerate(
        [changes[0]["unet.a"].dense(), changes[0]["unet.a"].dense() + 0.5 * changes[1]["unet.a"].dense()]
    ):
        for person in range(3):
            ratio = torch.linalg.norm(x[person] @ delta.T) / torch.linalg.norm(x[person] @ base["unet.a"].T)
            assert found[row, person] == pytest.approx(float(ratio) / 2**0.5, rel=1e-5)


def test_stacks_of() -> None:
    assert stacks_of(1) == ((0,),)
    assert stacks_of(2) == ((0,), (1,), (0, 1))
    assert stacks_of(3) == ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    assert stacks_of(8)[-1] == tuple(range(8))
    assert len(stacks_of(8)) == 9


def test_keys_of_a_person_against_the_condition_itself(
    pipe: StableDiffusionPipeline, bank: IdentityBank, members: list[StackMember]
) -> None:
    """For one adapter on one person, worked out from the condition by hand, over keys, values and the text
    encoder's layers.
    """
    only = [StackMember(members[1].adapter, 1.0, members[1].embeddings)]
    found = check_stack(only, pipe, bank, people=3, activations=0)
    assert members[1].embeddings is not None
    condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, members[1].embeddings[:1]).detach()[
        0, identity_position(pipe.tokenizer) :
    ]
    squares = []
    for module, factors in only[0].adapter.change.items():
        if sees_condition(module):
            weight = layer_weight(pipe, module)
            squares.append(
                float(
                    torch.linalg.norm(condition @ factors.dense().T) / torch.linalg.norm(condition @ weight.T)
                )
                ** 2
            )
    assert found.interference.condition[0, 0] == pytest.approx(np.mean(squares) ** 0.5, rel=1e-4)


def test_whom_it_disturbs_and_when_it_exceeds(
    pipe: StableDiffusionPipeline, bank: IdentityBank, members: list[StackMember]
) -> None:
    found = check_stack(members, pipe, bank, people=10, activations=4)
    assert found.interference.condition.shape == (7, 12)
    assert found.interference.activations is not None
    assert list(found.bystanders) == list(range(2, 12))
    first, second = found.ids[:2]
    pair = found.interference.stacks.index((0, 1))
    share = found.disturbed(pair)
    assert set(share) == {first, second}
    assert share[first] == pytest.approx(
        found.interference.condition[1, 0] / found.interference.condition[0, 0]
    )
    assert found.disturbed(0) == {}
    assert found.exceeded
    calm = check_stack(members, pipe, bank, people=10, activations=4, limit=1e9, own_limit=1e9)
    assert calm.exceeded == []
    assert {
        stack for stack in found.interference.stacks if found.over(found.interference.stacks.index(stack))
    } == set(found.exceeded)
    harmless = check_stack(
        [StackMember(member.adapter, 1e-6, member.embeddings) for member in members[:1]],
        pipe,
        bank,
        people=10,
    )
    assert harmless.exceeded == []


def test_it_names_nobody_and_changes_nothing(
    pipe: StableDiffusionPipeline, bank: IdentityBank, members: list[StackMember]
) -> None:
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    found = check_stack(members, pipe, bank, people=10)
    text = as_text(check_parts(found)) + json.dumps(found.facts())
    assert "person-0" not in text
    assert "Whom some adapters forget is not known" in as_text(check_parts(found))
    assert check_picture(found).startswith(b"\x89PNG")
    after = pipe.unet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert found.facts() == check_stack(members, pipe, bank, people=10).facts()


def test_bystanders_leave_the_forgotten_out(bank: IdentityBank) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = bystanders(bank, [bank.of("person-003")], 1000, generator)
    assert len(rows) == len(bank) - 1
    assert bank.ids.index("person-003") not in rows


def test_inputs_are_what_the_layers_get(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    modules = sorted(layers(pipe, encoder=True))
    people = bank.centroids[:5]
    batches = list(layer_inputs(pipe, modules, people, torch.Generator().manual_seed(0), batch=2))
    assert [len(batch[modules[0]]) for batch in batches] == [2, 2, 1]
    condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, people).detach()
    key = next(module for module in modules if module.endswith("to_k"))
    assert torch.allclose(torch.cat([batch[key] for batch in batches]), condition, atol=1e-6)
    query = next(module for module in modules if module.endswith("to_q"))
    assert batches[0][query].shape[-1] == layer_weight(pipe, query).shape[1]
    # Keys alone need no pass through the UNet, and see the same.
    alone = next(iter(layer_inputs(pipe, [key], people, torch.Generator().manual_seed(0))))
    assert torch.allclose(alone[key], condition, atol=1e-6)
    moments = second_moments(batches)[key]
    rows = condition.flatten(0, 1).double()
    assert torch.allclose(moments, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-8)


def test_adapters_on_the_same_neurons_are_named(
    pipe: StableDiffusionPipeline, bank: IdentityBank, members: list[StackMember]
) -> None:
    gates = (["0.1", "1.2"], ["0.3", "1.2"], ["0.4"])
    members = [
        replace(
            member,
            adapter=replace(
                member.adapter, receipt=replace(member.adapter.receipt, solution={"gates": taken})
            ),
        )
        for member, taken in zip(members, gates, strict=True)
    ]
    checked = check_stack(members, pipe, bank, people=4, activations=0, limit=1e9, own_limit=1e9)
    assert checked.shared_neurons == {"1.2": [0, 1]}
    assert checked.exceeded == [(0, 1), (0, 1, 2)]
    assert checked.facts()["stacks"][checked.interference.stacks.index((0, 1))]["collisions"] == ["1.2"]
    text = as_text(check_parts(checked))
    assert "same gate neurons (1.2)" in text
    assert checked.ids[2] not in text.split("use the same gate neurons")[0].splitlines()[-1]
