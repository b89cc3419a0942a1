import copy
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from piu_lora.errors import BadInput
from piu_lora.model.condition import TokenSample, encode_embeddings, encode_empty, identity_position
from piu_lora.model.family import Prompt
from tests.golden import condition as golden
from tests.tiny import WIDTH

HIDDEN, LENGTH, PLACE = 32, 8, 4


@pytest.fixture
def parts(pipe: StableDiffusionPipeline) -> Iterator[tuple[CLIPTextModel, CLIPTokenizer]]:
    """Text encoder with eager attention, where equal arithmetic gives equal bits, and tokenizer."""
    before = pipe.text_encoder.config._attn_implementation
    pipe.text_encoder.set_attn_implementation("eager")
    yield pipe.text_encoder, pipe.tokenizer
    pipe.text_encoder.set_attn_implementation(before)


def people(count: int, width: int = WIDTH) -> torch.Tensor:
    return torch.nn.functional.normalize(
        torch.randn(count, width, generator=torch.Generator().manual_seed(0)), dim=1
    )


def by_hand(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, embedding: torch.Tensor) -> torch.Tensor:
    """Arc2Face, section 3.2, for one person: look the tokens up, exchange row 4, add positions, run the
    causal layers.
    """
    words = [
        "<|startoftext|>",
        "photo</w>",
        "of</w>",
        "a</w>",
        "id</w>",
        "person</w>",
        "<|endoftext|>",
        "<|endoftext|>",
    ]
    tokens = tokenizer.convert_tokens_to_ids(words)
    rows = encoder.embeddings.token_embedding.weight[tokens].clone()
    rows[PLACE] = torch.cat([embedding, torch.zeros(HIDDEN - len(embedding))])
    rows = rows + encoder.embeddings.position_embedding.weight[: len(tokens)]
    mask = torch.full((LENGTH, LENGTH), torch.finfo(torch.float32).min).triu(1)[None, None]
    return encoder.final_layer_norm(
        encoder.encoder(inputs_embeds=rows[None], attention_mask=mask, is_causal=True).last_hidden_state
    )[0]


@torch.no_grad()
def test_one_person_is_bit_equal_to_the_formula_by_hand(parts: tuple[CLIPTextModel, CLIPTokenizer]) -> None:
    for embedding in people(5):
        assert torch.equal(encode_embeddings(*parts, embedding[None])[0], by_hand(*parts, embedding))


@torch.no_grad()
def test_every_row_of_a_batch_gets_its_own_person(parts: tuple[CLIPTextModel, CLIPTokenizer]) -> None:
    embeddings = people(6)
    conditions = encode_embeddings(*parts, embeddings)
    assert conditions.shape == (6, LENGTH, HIDDEN)
    for condition, embedding in zip(conditions, embeddings, strict=True):
        torch.testing.assert_close(condition, by_hand(*parts, embedding), atol=1e-6, rtol=0)
    assert torch.pdist(conditions[:, PLACE]).min() > 1e-2


@torch.no_grad()
def test_the_default_attention_agrees(pipe: StableDiffusionPipeline) -> None:
    embedding = people(1)
    condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, embedding)[0]
    torch.testing.assert_close(
        condition, by_hand(pipe.text_encoder, pipe.tokenizer, embedding[0]), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_tokens_before_id_never_change_and_all_later_ones_do(
    parts: tuple[CLIPTextModel, CLIPTokenizer],
) -> None:
    place = identity_position(parts[1])
    assert place == PLACE
    first, second = encode_embeddings(*parts, people(2))
    assert torch.equal(first[:place], second[:place])
    assert ((first[place:] - second[place:]).abs().amax(dim=1) > 1e-3).all()


def test_the_gradient_reaches_the_vector(parts: tuple[CLIPTextModel, CLIPTokenizer]) -> None:
    embeddings = people(3).requires_grad_()
    probe = torch.randn(LENGTH, HIDDEN, generator=torch.Generator().manual_seed(1))
    (encode_embeddings(*parts, embeddings)[1] * probe).sum().backward()
    assert torch.equal(embeddings.grad[[0, 2]], torch.zeros(2, WIDTH))
    with torch.no_grad():
        step = 1e-2 * torch.nn.functional.normalize(embeddings.grad[1], dim=0)
        up, down = (
            (encode_embeddings(*parts, (embeddings[1] + side * step)[None])[0] * probe).sum()
            for side in (1, -1)
        )
    assert float(up - down) / 2e-2 == pytest.approx(float(embeddings.grad[1].norm()), rel=1e-2)
    parts[0].zero_grad()


@torch.no_grad()
def test_a_vector_as_wide_as_the_encoder_needs_no_padding(parts: tuple[CLIPTextModel, CLIPTokenizer]) -> None:
    embedding = people(1, HIDDEN)
    assert torch.equal(encode_embeddings(*parts, embedding)[0], by_hand(*parts, embedding[0]))


@pytest.mark.parametrize("shape", [(1, HIDDEN + 1), (WIDTH,), (1, 1, WIDTH)])
def test_a_vector_that_does_not_fit_is_refused(
    parts: tuple[CLIPTextModel, CLIPTokenizer], shape: tuple[int, ...]
) -> None:
    with pytest.raises(BadInput) as error:
        encode_embeddings(*parts, torch.ones(shape))
    assert (
        f"embeddings of shape {shape} do not fit an encoder of width {HIDDEN}; expected (n, d) with d <="
        f" {HIDDEN}" in str(error.value)
    )


@torch.no_grad()
def test_the_encoder_is_given_back_as_it_was(parts: tuple[CLIPTextModel, CLIPTokenizer]) -> None:
    encoder, tokenizer = parts
    tokens = tokenizer(Prompt().text, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    before, empty = encoder(input_ids=tokens)[0], encode_empty(encoder, tokenizer)
    encode_embeddings(encoder, tokenizer, people(2))
    assert torch.equal(encoder(input_ids=tokens)[0], before)
    assert torch.equal(encode_empty(encoder, tokenizer), empty)


@torch.no_grad()
def test_a_failure_inside_the_encoder_takes_the_hook_out(
    parts: tuple[CLIPTextModel, CLIPTokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(parts[0].encoder, "forward", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            encode_embeddings(*parts, people(1))
    assert not parts[0].get_input_embeddings()._forward_hooks


@torch.no_grad()
def test_the_empty_prompt_is_start_and_ends(parts: tuple[CLIPTextModel, CLIPTokenizer]) -> None:
    start, end = parts[1].convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"])
    assert torch.equal(
        encode_empty(*parts), parts[0](input_ids=torch.tensor([[start] + [end] * (LENGTH - 1)]))[0]
    )


class PromptTokenizer:
    """Gives the golden prompt; only what encode_embeddings asks of a tokenizer."""

    model_max_length = golden.LENGTH

    def __call__(self, _text: str, **_options: object) -> SimpleNamespace:
        return SimpleNamespace(input_ids=torch.tensor([golden.PROMPT]))

    def encode(self, _text: str, **_options: object) -> list[int]:
        return [golden.WORD]


def golden_conditions(attention: str, people: torch.Tensor) -> torch.Tensor:
    encoder = CLIPTextModel(golden.config()).eval()
    encoder.load_state_dict(golden.weights(), strict=True)
    encoder.set_attn_implementation(attention)
    assert type(encoder) is CLIPTextModel
    return encode_embeddings(encoder, PromptTokenizer(), people)  # type: ignore[arg-type]


@torch.no_grad()
def test_golden_values_made_by_independent_arithmetic() -> None:
    # The last bits belong to the machine's matrix product: at values of about 3, processors were seen to
    # differ by 2.2e-6, nine of them.
    torch.testing.assert_close(
        golden_conditions("eager", golden.people()), golden.golden(), atol=3e-6, rtol=0
    )


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 5])
def test_batches_of_different_rows_are_bit_equal_to_the_independent_arithmetic(count: int) -> None:
    people = golden.people(count)
    expected = torch.stack([golden.condition(golden.weights(), person) for person in people])
    found = golden_conditions("eager", people)
    if count == 1:
        assert torch.equal(found, expected)
    for row in range(count):
        assert torch.equal(golden_conditions("eager", people[row : row + 1])[0], expected[row])
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(golden_conditions("sdpa", people), expected, atol=5e-6, rtol=0)
    assert (found[:, : golden.PLACE] == found[:1, : golden.PLACE]).all()


def test_a_sample_of_tokens_keeps_the_prompt(pipe: StableDiffusionPipeline) -> None:
    """On the 77 positions of Stable Diffusion: start, photo, of, a, id, person and end each for itself, the
    padding by a few.
    """
    tokenizer = copy.deepcopy(pipe.tokenizer)
    tokenizer.model_max_length = 77
    sample = TokenSample.of(tokenizer, 16)
    assert identity_position(tokenizer) == 4
    assert sample.places[:8] == (0, 1, 2, 3, 4, 5, 6, 7)
    assert (len(sample.places), sample.places[-1]) == (16, 76)
    assert sum(sample.shares) == pytest.approx(1)
    assert sample.shares[:7] == (1 / 77,) * 7
    assert sample.shares[7:] == pytest.approx([70 / 9 / 77] * 9)
    carrying = TokenSample.of(tokenizer, 8, from_identity=True)
    assert carrying.places[:3] == (4, 5, 6)
    assert (len(carrying.places), carrying.places[-1]) == (8, 76)
    assert TokenSample.of(tokenizer, 3).places == (
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
    )  # never less than the prompt and some padding
    assert (
        TokenSample.of(tokenizer)
        == TokenSample.of(tokenizer, 77)
        == TokenSample(tuple(range(77)), (1 / 77,) * 77)
    )
    assert TokenSample.of(pipe.tokenizer, 16).places == tuple(range(pipe.tokenizer.model_max_length))
