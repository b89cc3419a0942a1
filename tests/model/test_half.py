"""Half precision where the processor has no instructions for it."""

import pytest
import torch
from torch.nn import functional

from piu_lora.model.half import products_in_float32
from piu_lora.model.sample import generate
from tests.tiny import tiny_pipeline


def products(kind: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(torch.bfloat16).to(kind)

    query, key, value = (rows(2, 4, 16, 8) for _ in range(3))
    return [
        functional.linear(rows(3, 64), rows(5, 64), bias=rows(5)),
        functional.conv2d(rows(2, 4, 6, 6), rows(3, 4, 3, 3), rows(3), padding=1),
        functional.scaled_dot_product_attention(query, key, value),
        rows(3, 64) @ rows(64, 5),
        torch.bmm(rows(2, 3, 64), rows(2, 64, 5)),
    ]


def test_products_are_rounded_once() -> None:
    with products_in_float32("AVX2"):
        widened = products(torch.bfloat16)
    for result, exact in zip(widened, products(torch.float32), strict=True):
        assert result.dtype == torch.bfloat16
        assert torch.equal(result, exact.to(torch.bfloat16))


def test_gradients_pass() -> None:
    weight = torch.randn(5, 64, dtype=torch.bfloat16, requires_grad=True)
    with products_in_float32("AVX2"):
        functional.linear(torch.ones(3, 64, dtype=torch.bfloat16), weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full_like(weight, 3))


@pytest.mark.parametrize(
    ("capability", "kind", "modes"),
    [("AVX2", torch.bfloat16, 1), ("AVX512", torch.bfloat16, 0), ("AVX2", torch.float32, 0)],
)
def test_pictures_are_drawn_so(
    capability: str, kind: torch.dtype, modes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    pipe, depths = tiny_pipeline().to(dtype=kind), []
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.register_forward_hook(lambda *_: depths.append(torch._C._len_torch_function_stack()))
    embedding = functional.normalize(torch.ones(1, 16), dim=1)
    pictures = generate(pipe, embedding, [0], steps=1)
    assert depths == [modes]
    assert pictures.isfinite().all()
