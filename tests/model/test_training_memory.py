"""Savings that change nothing but time and memory."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch._dynamo.utils import counters

from piu_lora.config import ForgetConfig
from piu_lora.identity import IdentityBank
from piu_lora.model import attach, checkpointed, compiled, parked, read_weights, trainable, write_weights
from piu_lora.unlearn.piu import PiuObjective
from tests.unlearn.test_piu import make_problem, make_student
from tests.unlearn.test_piu import objective as objective


def gradients(objective: PiuObjective) -> list[torch.Tensor]:
    unet = objective.model.unet
    unet.zero_grad()
    objective.loss(objective.draw(3, torch.Generator().manual_seed(1)))[0].backward()
    found = [parameter.grad.clone() for parameter in trainable(unet)]
    unet.zero_grad()
    return found


def test_gradient_checkpointing_keeps_less_and_gives_the_same(
    objective: PiuObjective, pipe: StableDiffusionPipeline
) -> None:
    def kept() -> int:
        count = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            objective.loss(objective.draw(3, torch.Generator().manual_seed(1)))
        return count

    plain, all_kept = gradients(objective), kept()
    with checkpointed(pipe.unet):
        lean, few_kept = gradients(objective), kept()
    assert few_kept < 0.7 * all_kept
    for mine, theirs in zip(lean, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=1e-4)
    assert not pipe.unet.is_gradient_checkpointing


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_blocks_give_the_same_and_are_given_back(
    objective: PiuObjective, pipe: StableDiffusionPipeline, backend: str
) -> None:
    torch.compiler.reset()
    plain = gradients(objective)
    with compiled(pipe.unet, backend=backend):
        assert pipe.unet.mid_block._compiled_call_impl is not None
        found = gradients(objective)
    for mine, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=1e-3)
    assert all(
        block._compiled_call_impl is None
        for block in (*pipe.unet.down_blocks, pipe.unet.mid_block, *pipe.unet.up_blocks)
    )


@pytest.mark.slow
def test_other_sizes_of_a_micro_batch_are_compiled_too(
    objective: PiuObjective, pipe: StableDiffusionPipeline
) -> None:
    torch.compiler.reset()
    counters.clear()
    graphs = []

    def backend(module: torch.fx.GraphModule, _inputs: object) -> object:
        graphs.append(module)
        return module.forward

    limit, compilations = torch._dynamo.config.cache_size_limit, []
    with compiled(pipe.unet, backend=backend):
        for size in (4, 4, 3, 2):
            objective.loss(objective.draw(size, torch.Generator().manual_seed(1)))[0].backward()
            pipe.unet.zero_grad()
            compilations.append(len(graphs))
    first, again, smaller, smallest = compilations
    assert 0 < first == again < smaller == smallest  # the second size serves all further ones
    # Beyond its limit torch says so and leaves the block uncompiled.
    assert not counters["unimplemented"]
    assert torch._dynamo.config.cache_size_limit == limit


def test_unwanted_savings_leave_everything_alone(pipe: StableDiffusionPipeline) -> None:
    with checkpointed(pipe.unet, False), compiled(pipe.unet, False):
        assert not pipe.unet.is_gradient_checkpointing
        assert pipe.unet.mid_block._compiled_call_impl is None


class Traveller(torch.nn.Module):
    """Notes where it is sent: this machine has no second device."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []

    def to(self, device: object) -> "Traveller":  # type: ignore[override]
        self.path.append(str(device))
        return self


def test_what_is_not_needed_waits_on_the_cpu() -> None:
    module = Traveller()
    with parked(module, torch.device("meta")):
        assert module.path == ["cpu"]
    assert module.path == ["cpu", "meta"]
    with parked(module, torch.device("cpu")):
        pass
    assert module.path == ["cpu", "meta"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close_and_keeps_the_adapter_whole(
    objective: PiuObjective, bank: IdentityBank, fast: ForgetConfig, precision: str
) -> None:
    from tests.tiny import tiny_pipeline

    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    other = tiny_pipeline().to(dtype=half)
    config = fast.updated({"train": {"precision": precision}})
    attach(other.unet, config.lora, "x", seed=0)
    write_weights(other.unet, "x", read_weights(objective.model.unet, "x"))
    assert {parameter.dtype for parameter in trainable(other.unet)} == {torch.float32}
    assert other.unet.conv_in.weight.dtype == half
    lean = gradients(PiuObjective(make_problem(bank), make_student(other), config))
    plain = gradients(objective)
    for mine, theirs in zip(lean, plain, strict=True):
        assert mine.dtype == torch.float32
        # bfloat16 has 8 bits, and processors add up differently: the worst layer was seen at 0.88.
        assert float(theirs.norm()) < 1e-7 or cosine(mine, theirs) > (0.85 if precision == "bf16" else 0.99)
    everything = [torch.cat([gradient.flatten() for gradient in computed]) for computed in (lean, plain)]
    assert cosine(*everything) > (0.97 if precision == "bf16" else 0.999)


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))
