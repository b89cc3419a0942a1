import copy
import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import (
    Adapter,
    SecondMoments,
    find_merge,
    load_adapter,
    load_adapters,
    read_adapter,
    unload,
)
from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.stacks.layer_statistics import RefitConfig, measure_second_moments
from piu_lora.jobs.stacks.members import StackMember, open_members, with_people
from piu_lora.jobs.stacks.merge import MergeSettings, merge_adapters, remaining_members, settings_of
from piu_lora.model.factors import Factors
from tests.adapter.stacks import changed, forward, write_random
from tests.tiny import tiny_pipeline

QUICK = RefitConfig(own=8, retained=16, neighbours=4)


@pytest.fixture
def three(pipe: StableDiffusionPipeline, tmp_path: Path) -> list[Adapter]:
    """Mixed ranks, mixed layers, two of them with a text-encoder part."""
    return [
        write_random(pipe, tmp_path / "a", 1, encoder=True),
        write_random(pipe, tmp_path / "b", 2, rank=3),
        write_random(pipe, tmp_path / "c", 3, encoder=True, every=3, rank=4),
    ]


def members(adapters: list[Adapter], weights: list[float]) -> list[StackMember]:
    return [StackMember(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True)]


def test_merge_at_full_rank_equals_stack_and_dense_sum(
    pipe: StableDiffusionPipeline, three: list[Adapter], tmp_path: Path
) -> None:
    weights = [1.0, 0.5, 0.25]
    merged = merge_adapters(members(three, weights), tmp_path / "m")
    name = load_adapter(pipe, merged.path)
    alone = forward(pipe)
    unload(pipe, [name])
    names = load_adapters(pipe, three, weights)
    stacked = forward(pipe)
    unload(pipe, names)
    wanted = forward(changed(pipe, [adapter.change for adapter in three], weights))
    assert merged.worst < 1e-6
    assert (alone - stacked).abs().max() < 1e-6
    assert (alone - wanted).abs().max() < 1e-6


def test_stock_diffusers_loads_a_merged_adapter(
    pipe: StableDiffusionPipeline, three: list[Adapter], tmp_path: Path
) -> None:
    merged = merge_adapters(members(three, [1.0, 1.0, 1.0]), tmp_path / "m")
    name = load_adapter(pipe, merged.path)
    ours = forward(pipe)
    unload(pipe, [name])
    pipe.load_lora_weights(str(merged.path), adapter_name="stock")
    stock = forward(pipe)
    unload(pipe, ["stock"])
    assert torch.allclose(ours, stock, atol=1e-6)


def test_receipt_and_card_say_what_was_merged(three: list[Adapter], tmp_path: Path) -> None:
    merged = merge_adapters(
        members(three, [1.0, 0.5, 1.0]), tmp_path / "m", MergeSettings(rank=2, dtype="fp16")
    )
    receipt = read_adapter(tmp_path / "m").receipt
    assert [(m["adapter_id"], m["weight"]) for m in receipt.members] == [
        (a.id, w) for a, w in zip(three, [1.0, 0.5, 1.0], strict=True)
    ]
    assert receipt.method == "sum"
    assert max(error.rank for error in merged.errors.values()) == 2
    assert receipt.evaluation["compression"]["worst_relative"] == pytest.approx(merged.worst, rel=1e-2)
    card = (tmp_path / "m" / "README.md").read_text()
    assert "the embeddings of 3 people" in card
    assert all(adapter.id in card for adapter in three)


def test_error_is_that_of_what_is_stored(three: list[Adapter], tmp_path: Path) -> None:
    """Also the rounding to half precision counts, and the figure is the spectral norm of the difference."""
    merged = merge_adapters(
        members(three, [1.0, 1.0, 1.0]), tmp_path / "m", MergeSettings(rank=3, dtype="fp16")
    )
    stored = read_adapter(merged.path).change
    exact = find_merge("sum").combine([a.change for a in three], [1.0] * 3, None)
    for module, error in merged.errors.items():
        difference = exact[module].dense().double() - stored[module].dense().double()
        assert error.absolute == pytest.approx(
            float(torch.linalg.matrix_norm(difference, ord=2)), rel=1e-3, abs=1e-6
        )


def test_withdrawing_a_member_is_exact(three: list[Adapter], tmp_path: Path) -> None:
    weights = [1.0, 0.5, 0.25]
    merged = read_adapter(merge_adapters(members(three, weights), tmp_path / "m").path)
    stay = remaining_members(merged, three[1].id, three)
    again = merge_adapters(stay, tmp_path / "again", settings_of(merged))
    never = merge_adapters(members([three[0], three[2]], [1.0, 0.25]), tmp_path / "never")
    assert (
        again.receipt.files["pytorch_lora_weights.safetensors"]
        == never.receipt.files["pytorch_lora_weights.safetensors"]
    )


def test_withdrawing_needs_the_original_members(
    three: list[Adapter], tmp_path: Path, pipe: StableDiffusionPipeline
) -> None:
    merged = read_adapter(merge_adapters(members(three, [1.0] * 3), tmp_path / "m").path)
    with pytest.raises(BadInput, match="'nobody' is no member of"):
        remaining_members(merged, "nobody", three)
    with pytest.raises(BadInput, match=f"member {three[2].id} of .* is not at hand"):
        remaining_members(merged, three[0].id, three[:2])
    other = write_random(pipe, tmp_path / "x", 3)  # the id of the third, other weights
    with pytest.raises(BadInput, match="its weights differ"):
        remaining_members(merged, three[0].id, [three[1], other])
    with pytest.raises(BadInput, match="was not merged"):
        settings_of(three[0])


def test_refit_solves_its_least_squares_problem(pipe: StableDiffusionPipeline, three: list[Adapter]) -> None:
    """Against an explicit, stacked least-squares problem in float64."""
    generator = torch.Generator().manual_seed(0)
    change = {
        "unet.x": Factors(torch.randn(2, 6, generator=generator), torch.randn(5, 2, generator=generator))
    }
    other = {
        "unet.x": Factors(torch.randn(1, 6, generator=generator), torch.randn(5, 1, generator=generator))
    }
    own = [torch.randn(20, 6, generator=generator).double() for _ in range(2)]
    retained = torch.randn(30, 6, generator=generator).double()
    moments = SecondMoments(
        [{"unet.x": x.T @ x / len(x)} for x in own],
        {"unet.x": retained.T @ retained / len(retained)},
        retain_weight=2.0,
        ridge=0.01,
    )
    found = find_merge("refit").combine([change, other], [1.0, 0.5], moments)["unet.x"].dense().double()
    total = sum(x.T @ x / len(x) for x in own) + 2.0 * retained.T @ retained / len(retained)
    ridge = 0.01 * total.diagonal().mean()
    inputs = torch.cat(
        [
            own[0] / 20**0.5,
            own[1] / 20**0.5,
            retained * (2.0 / 30) ** 0.5,
            ridge.sqrt() * torch.eye(6, dtype=torch.float64),
        ]
    )
    first, second = change["unet.x"].dense().double(), 0.5 * other["unet.x"].dense().double()
    targets = torch.cat([own[0] @ first.T / 20**0.5, own[1] @ second.T / 20**0.5, torch.zeros(36, 5)])
    wanted = torch.linalg.lstsq(inputs, targets).solution.T
    assert torch.allclose(found, wanted, atol=1e-6)


def test_refit_keeps_each_member_to_its_own_person(
    pipe: StableDiffusionPipeline, bank: IdentityBank, tmp_path: Path
) -> None:
    """Keys of the member's person change about as it wants, those of others much less than under the sum."""
    adapters = [write_random(pipe, tmp_path / str(seed), seed, rank=1) for seed in (1, 2)]
    people = with_people(open_members(adapters), ["person-001", "person-002"], pipe, bank)
    bare = forward(pipe)
    summed = merge_adapters(people, tmp_path / "sum")
    refit = merge_adapters(
        people, tmp_path / "refit", MergeSettings(method="refit", refit=QUICK), base=pipe, bank=bank
    )
    moments = measure_second_moments(Session(pipe, bank), people, QUICK)

    def response(path: Path, module: str, moment: torch.Tensor) -> float:
        change = read_adapter(path).change[module].dense().double()
        return float((change @ moment @ change.T).trace())

    modules = [module for module in refit.errors if module.endswith(("to_k", "to_v"))]
    others = [
        sum(response(path, m, moments.retained[m]) for m in modules) for path in (summed.path, refit.path)
    ]
    own = [
        sum(response(path, m, moments.members[0][m]) for m in modules) for path in (summed.path, refit.path)
    ]
    assert others[1] / others[0] < 0.5 * own[1] / own[0]
    assert torch.equal(forward(pipe), bare)


def test_refit_is_deterministic(pipe: StableDiffusionPipeline, bank: IdentityBank, tmp_path: Path) -> None:
    adapters = [write_random(pipe, tmp_path / str(seed), seed) for seed in (1, 2)]
    people = with_people(open_members(adapters), ["person-001", "person-002"], pipe, bank)
    made = [
        merge_adapters(
            people, tmp_path / name, MergeSettings(method="refit", refit=QUICK), base=pipe, bank=bank
        )
        for name in "xy"
    ]
    assert (
        made[0].receipt.files["pytorch_lora_weights.safetensors"]
        == made[1].receipt.files["pytorch_lora_weights.safetensors"]
    )


def test_refit_needs_base_and_people(
    pipe: StableDiffusionPipeline, bank: IdentityBank, three: list[Adapter], tmp_path: Path
) -> None:
    settings = MergeSettings(method="refit", refit=QUICK)
    with pytest.raises(BadInput, match="pass base=BASE"):
        merge_adapters(members(three, [1.0] * 3), tmp_path / "m", settings)
    with pytest.raises(BadInput, match=r"whom adapter .* forgets is not known"):
        merge_adapters(members(three, [1.0] * 3), tmp_path / "m", settings, base=pipe, bank=bank)
    assert not (tmp_path / "m").exists()


def test_what_cannot_be_merged(three: list[Adapter], tmp_path: Path) -> None:
    stranger = write_random(tiny_pipeline(seed=1), tmp_path / "stranger", 9)
    with pytest.raises(Incompatible, match=f"{three[0].id} .* {stranger.id}"):
        merge_adapters([StackMember(three[0]), StackMember(stranger)], tmp_path / "m")
    with pytest.raises(BadInput, match="every weight is 0"):
        merge_adapters(members(three, [0.0] * 3), tmp_path / "m")
    with pytest.raises(BadInput, match="given twice"):
        open_members([three[0], three[0]])
    with pytest.raises(BadInput, match="no adapter was given"):
        open_members([])
    with pytest.raises(BadInput, match="2 weights"):
        open_members(three, [1.0, 1.0])
    with pytest.raises(BadInput, match=r"-1\.0 is below 0"):
        open_members(three, [1.0, 1.0, -1.0])
    with pytest.raises(BadInput, match="known: refit, sum"):
        MergeSettings(method="ties")
    with pytest.raises(BadInput, match="tolerance = 2"):
        MergeSettings(tolerance=2)
    assert not (tmp_path / "m").exists()


def test_a_merged_folder_is_complete_or_absent(
    three: list[Adapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("piu_lora.jobs.stacks.merge.write_adapter", fail)
    with pytest.raises(OSError, match="disk is full"):
        merge_adapters(members(three, [1.0] * 3), tmp_path / "m")
    assert not [path for path in tmp_path.iterdir() if "m" in path.name.split(".")]


def test_merging_copies_nothing_of_the_members_but_ids(three: list[Adapter], tmp_path: Path) -> None:
    merge_adapters(members(three, [1.0] * 3), tmp_path / "m")
    values = json.loads((tmp_path / "m" / "forget.json").read_text())
    assert all(set(member) == {"adapter_id", "weight", "weights_sha256"} for member in values["members"])
    assert str(tmp_path) not in json.dumps(values)
    assert copy.copy(values["anchor"]) == {}
