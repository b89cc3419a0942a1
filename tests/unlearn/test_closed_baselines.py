"""SPEED, CURE, the embedding adapter and the gate on the condition, against their formulas."""

import copy

import pytest
import torch

from piu_lora.identity import IdentityBank
from piu_lora.model import encode_embeddings, encode_empty, generate
from piu_lora.unlearn.baselines import find_baseline
from piu_lora.unlearn.baselines.cure import expanded, soft_projector
from piu_lora.unlearn.baselines.gloce import GloceSettings, gate_parts
from piu_lora.unlearn.baselines.inserts import ConditionGate, insert_stored
from piu_lora.unlearn.baselines.speed import influential, null_space, speed_change
from piu_lora.unlearn.baselines.ume import least_similar
from tests.tiny import tiny_pipeline
from tests.unlearn.test_baselines import problem_of


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_speed_leaves_the_retain_set_and_the_invariants_alone() -> None:
    weight, forget, anchor = drawn(5, 12), drawn(3, 12, seed=1), drawn(3, 12, seed=2)
    retain, invariants = drawn(4, 12, seed=3), drawn(12, 2, seed=4)
    projector = null_space(retain, 1e-9)
    change = speed_change(
        weight, anchor.T @ forget / 3, forget.T @ forget / 3, projector, invariants, ridge=1e-6
    )
    assert float((change @ retain.T).abs().max()) < 1e-8
    assert float((change @ invariants).abs().max()) < 1e-3
    left = (forget - anchor) @ weight.T + forget @ change.T
    assert float(left.norm()) < float(((forget - anchor) @ weight.T).norm())
    # Without anybody to keep it is the ridge regression of its first equation.
    nobody, none = torch.eye(12, dtype=torch.float64), torch.zeros(12, 1, dtype=torch.float64)
    own, cross = forget.T @ forget / 3, anchor.T @ forget / 3
    plain = weight @ (cross - own) @ torch.linalg.inv(own + 0.5 * nobody)
    assert torch.allclose(speed_change(weight, cross, own, nobody, none, ridge=0.5), plain)
    moved = (retain @ plain.T).norm(dim=1)
    assert influential(retain, plain).tolist() == retain[moved > moved.mean()].tolist()


def test_cure_takes_what_is_the_persons_alone() -> None:
    energies = torch.tensor([0.7, 0.2, 0.1])
    assert torch.allclose(expanded(energies, 1.0), energies)
    assert expanded(energies, 1e9).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)
    forget = torch.eye(4, dtype=torch.float64)[:2]
    retain = torch.eye(4, dtype=torch.float64)[1:3]
    person, others = (soft_projector(rows, 1e9) for rows in (forget, retain))
    eraser = torch.eye(4) - (person - person @ others)
    assert (forget[0] @ eraser).norm() < 1e-6  # only theirs
    assert torch.allclose(retain @ eraser, retain, atol=1e-6)  # shared or other people's


def test_the_embedding_adapter_maps_the_person_and_nobody_else(bank: IdentityBank) -> None:
    pipe, problem, baseline = tiny_pipeline(), problem_of(bank), find_baseline("ume")
    target = least_similar(problem.forget, problem.centroids)
    cosines = problem.centroids @ problem.forget.mean(dim=0)
    assert torch.equal(target, problem.centroids[int(cosines.argmin())])
    plain, weights = copy.deepcopy(pipe.text_encoder), pipe.text_encoder.state_dict()

    def encoded(encoder: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return encode_embeddings(encoder, pipe.tokenizer, rows)

    wanted, before = encoded(plain, target[None]), encoded(plain, problem.forget)
    empty = encode_empty(plain, pipe.tokenizer)
    baseline.run(pipe, problem, baseline.settings(preserve=0.01, ridge=1e-6), seed=0)
    after = encoded(pipe.text_encoder, problem.forget)
    assert float((after - wanted).norm()) < 0.3 * float((before - wanted).norm())
    assert torch.equal(encode_empty(pipe.text_encoder, pipe.tokenizer), empty)
    state = pipe.text_encoder.state_dict()
    assert {key.partition(".")[0] for key in state.keys() - weights.keys()} == {"embedding_adapter"}
    # The embedding that the encoder reads is e + B A e.
    down, up = state["embedding_adapter.down"], state["embedding_adapter.up"]
    mapped = problem.forget + problem.forget @ down.T @ up.T
    assert torch.allclose(after, encoded(plain, mapped), atol=1e-5)
    # What a state dict holds of it works as well elsewhere.
    insert_stored(plain, state)
    assert torch.equal(encoded(plain, problem.forget), after)


def test_the_gate_opens_for_the_person_and_stays_shut_for_others() -> None:
    person, others = 5 + drawn(40, 8), drawn(60, 8, seed=1)
    anchor = drawn(10, 8, seed=2) - 3
    parts = gate_parts(person, anchor, others, GloceSettings(update_rank=2, degen_rank=1))
    gate = ConditionGate(**parts)
    replaced = gate(person[None].float())[0]
    assert float((replaced - anchor.mean(dim=0)).norm(dim=1).mean()) < 4
    # 2.5 standard deviations above what they read: few of the others pass.
    moved = (gate(others[None].float())[0] - others).norm(dim=1) > 1e-3
    assert float(moved.float().mean()) < 0.05


def test_the_gate_on_the_condition_stands_before_the_unet(bank: IdentityBank) -> None:
    pipe, problem, baseline = tiny_pipeline(), problem_of(bank), find_baseline("gloce")
    before = generate(pipe, problem.forget[:1], [0], steps=1)
    weights = pipe.unet.state_dict()
    baseline.run(pipe, problem, baseline.settings(threshold=-1e3), seed=0)  # always open
    state = pipe.unet.state_dict()
    assert {key.partition(".")[0] for key in state.keys() - weights.keys()} == {"condition_gate"}
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    after = generate(pipe, problem.forget[:1], [0], steps=1)
    assert not torch.equal(before, after)
    twin = tiny_pipeline()
    insert_stored(twin.unet, state)
    assert torch.equal(generate(twin, problem.forget[:1], [0], steps=1), after)
    # A copy's gate is its own.
    other = copy.deepcopy(pipe.unet)
    other.condition_gate.threshold += 1e9
    latents, times = torch.zeros(1, 4, 8, 8), torch.tensor([5])
    condition = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0))
    shut, opened = (unet(latents, times, condition).sample for unet in (other, pipe.unet))
    assert torch.allclose(shut, tiny_pipeline().unet(latents, times, condition).sample)
    assert not torch.allclose(shut, opened)
