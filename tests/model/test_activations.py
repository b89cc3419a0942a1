import torch
from diffusers import StableDiffusionPipeline

from piu_lora.identity import normalize
from piu_lora.model import TokenSample, add_second_moments, empty_inputs, layer_inputs, second_moments

CONDITION = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
ENCODER = "text_encoder.encoder.layers.0.mlp.fc2"


def rows(pipe: StableDiffusionPipeline, count: int) -> torch.Tensor:
    return normalize(
        torch.randn(
            count, pipe.text_encoder.config.hidden_size // 2, generator=torch.Generator().manual_seed(1)
        )
    )


def seen(
    pipe: StableDiffusionPipeline, modules: list[str], count: int = 5, **how: object
) -> list[dict[str, torch.Tensor]]:
    return list(
        layer_inputs(pipe, modules, rows(pipe, count), torch.Generator().manual_seed(0), batch=2, **how)
    )  # type: ignore[arg-type]


def test_only_the_tokens_asked_for_are_kept(pipe: StableDiffusionPipeline) -> None:
    """In layers that see the condition; the cross-attention's queries see latents."""
    query = CONDITION.replace("to_k", "to_q")
    modules = [ENCODER, CONDITION, query]
    for whole, some in zip(
        seen(pipe, modules), seen(pipe, modules, tokens=TokenSample((4, 6), (0.5, 0.5))), strict=True
    ):
        for module in modules:
            assert torch.equal(some[module], whole[module] if module == query else whole[module][:, [4, 6]])


def test_second_moments_are_means_over_samples_and_tokens(pipe: StableDiffusionPipeline) -> None:
    """The last batch is smaller than the others, and counts for as much less."""
    batches = seen(pipe, [ENCODER])
    everything = torch.cat([batch[ENCODER] for batch in batches]).flatten(0, 1).double()
    found = second_moments(batches)[ENCODER]
    assert found.dtype == torch.float64
    assert torch.allclose(found, everything.T @ everything / len(everything), rtol=1e-12)


def test_moments_are_blended_in_place(pipe: StableDiffusionPipeline) -> None:
    """0.6 of what is there, 0.4 of the mean over some people, 0.1 of the empty prompt; a weight of -1 takes
    people out again.
    """
    generator, batches = torch.Generator().manual_seed(0), seen(pipe, [ENCODER])
    base, own, empty = (
        second_moments(seen(pipe, [ENCODER], 3)),
        second_moments(batches),
        second_moments(empty_inputs(pipe, [ENCODER], generator)),
    )
    blend = {ENCODER: 0.6 * base[ENCODER]}
    place = blend[ENCODER].data_ptr()
    add_second_moments(blend, batches, 0.4 / 5)
    add_second_moments(blend, empty_inputs(pipe, [ENCODER], generator), 0.1)
    assert blend[ENCODER].data_ptr() == place
    assert torch.allclose(
        blend[ENCODER], 0.6 * base[ENCODER] + 0.4 * own[ENCODER] + 0.1 * empty[ENCODER], rtol=1e-10
    )
    sums: dict[str, torch.Tensor] = {}
    add_second_moments(sums, batches)
    add_second_moments(sums, batches[:2], -1)
    left = second_moments(batches[2:])[ENCODER] * len(batches[2][ENCODER])
    assert torch.allclose(sums[ENCODER], left, atol=1e-9 * float(left.abs().max()) + 1e-12)


def test_moments_of_a_sample_of_tokens_stand_for_all() -> None:
    """Padding that is the same at every position: a few of them give the mean over all, the prompt's own
    tokens among them.
    """
    tokens = TokenSample((0, 1, 2, 3, 9), (0.1, 0.1, 0.1, 0.35, 0.35))  # ten positions, seven of padding
    values = torch.randn(4, 10, 5, generator=torch.Generator().manual_seed(0))
    values[:, 3:] = values[:, 3:4]
    sums: dict[str, torch.Tensor] = {}
    add_second_moments(sums, [{ENCODER: tokens.of_tokens(values)}], 1 / 4, tokens)
    rows = values.flatten(0, 1).double()
    assert torch.allclose(sums[ENCODER], rows.T @ rows / len(rows))
