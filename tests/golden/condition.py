"""The condition of Arc2Face (arXiv 2403.11641, section 3.2), from the weights alone: no model class, one
person at a time.

``python -m tests.golden.condition`` writes the values that test_condition compares with; it needs to run only
when the encoder below is changed on purpose.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig

FILE = Path(__file__).with_name("condition.safetensors")
HIDDEN, HEADS, LAYERS, LENGTH, WORDS, WIDTH = 64, 4, 3, 77, 100, 48
# <start> photo of a id person <end>, and the end again up to the full length.
PROMPT = (98, 11, 12, 13, 14, 15, *(99,) * 71)
PLACE, WORD = 4, 14
Weights = Mapping[str, torch.Tensor]


def config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
    )


def weights() -> dict[str, torch.Tensor]:
    """Seeded weights under the names of CLIPTextModel."""
    generator = torch.Generator().manual_seed(2403)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (WORDS, HIDDEN),
        "embeddings.position_embedding.weight": (LENGTH, HIDDEN),
        "final_layer_norm": (HIDDEN,),
    }
    for layer in range(LAYERS):
        prefix = f"encoder.layers.{layer}"
        shapes |= {f"{prefix}.layer_norm{i}": (HIDDEN,) for i in (1, 2)}
        shapes |= {f"{prefix}.self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "out")}
        shapes |= {f"{prefix}.mlp.fc1": (2 * HIDDEN, HIDDEN), f"{prefix}.mlp.fc2": (HIDDEN, 2 * HIDDEN)}
    state = {}
    for name, shape in shapes.items():
        if name.startswith("embeddings"):
            state[name] = 0.3 * torch.randn(shape, generator=generator)
        else:
            offset = 1.0 if "norm" in name else 0.0
            state[f"{name}.weight"] = offset + 0.2 * torch.randn(shape, generator=generator)
            state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def people(count: int = 3) -> torch.Tensor:
    """(count, 48) unit rows."""
    return torch.nn.functional.normalize(
        torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(7)), dim=1
    )


def condition(state: Weights, person: torch.Tensor) -> torch.Tensor:
    """(77, 64) condition of one person, (48,)."""
    rows = state["embeddings.token_embedding.weight"][torch.tensor(PROMPT)].clone()
    rows[PLACE] = torch.cat([person, torch.zeros(HIDDEN - WIDTH)])
    rows = (rows + state["embeddings.position_embedding.weight"])[None]
    for layer in range(LAYERS):
        rows = _layer(state, f"encoder.layers.{layer}", rows)
    return _norm(state, "final_layer_norm", rows)[0]


def _layer(state: Weights, name: str, rows: torch.Tensor) -> torch.Tensor:
    rows = rows + _attention(state, f"{name}.self_attn", _norm(state, f"{name}.layer_norm1", rows))
    inner = _linear(state, f"{name}.mlp.fc1", _norm(state, f"{name}.layer_norm2", rows))
    return rows + _linear(state, f"{name}.mlp.fc2", inner * torch.sigmoid(1.702 * inner))


def _attention(state: Weights, name: str, rows: torch.Tensor) -> torch.Tensor:
    # A head's width is a power of four, so its scale is exact wherever it is multiplied in.
    width = HIDDEN // HEADS
    query, key, value = (
        _linear(state, f"{name}.{part}_proj", rows).view(1, LENGTH, HEADS, width).transpose(1, 2)
        for part in "qkv"
    )
    future = torch.full((LENGTH, LENGTH), torch.finfo(torch.float32).min).triu(1)
    scores = torch.matmul(query, key.transpose(2, 3)) * width**-0.5 + future
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return _linear(state, f"{name}.out_proj", mixed.transpose(1, 2).reshape(1, LENGTH, HIDDEN))


def _linear(state: Weights, name: str, rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(rows, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(state: Weights, name: str, rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(
        rows, (HIDDEN,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5
    )


def golden() -> torch.Tensor:
    """(3, 77, 64), as it was made once."""
    return load_file(FILE)["conditions"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    save_file({"conditions": torch.stack([condition(weights(), person) for person in people()])}, FILE)
