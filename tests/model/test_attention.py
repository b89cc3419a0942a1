import torch

from piu_lora.model import training_attention
from tests.tiny import tiny_unet


def test_the_same_function_by_another_kernel_and_back() -> None:
    unet = tiny_unet()
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.tensor([5, 900]),
        torch.randn(2, 8, 32, generator=generator),
    )
    own = {name: type(processor) for name, processor in unet.attn_processors.items()}
    with torch.no_grad():
        before = unet(*inputs).sample
        with training_attention(unet):
            assert {type(p).__name__ for p in unet.attn_processors.values()} == {"AttnProcessor"}
            inside = unet(*inputs).sample
        after = unet(*inputs).sample
    assert torch.allclose(before, inside, atol=1e-5)
    assert torch.equal(before, after)
    assert {name: type(processor) for name, processor in unet.attn_processors.items()} == own
