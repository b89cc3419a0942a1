"""What: bases, conditions, sampling and LoRA."""

from piu_lora.model import families  # fills the registry
from piu_lora.model.activations import (
    add_second_moments,
    empty_inputs,
    layer_inputs,
    layer_weight,
    second_moments,
    sees_condition,
)
from piu_lora.model.attention import training_attention
from piu_lora.model.base import DTYPES, Precision, as_pipeline, load_base, without_bars
from piu_lora.model.condition import (
    TokenSample,
    encode_embeddings,
    encode_empty,
    encode_tokens,
    identity_position,
    prompt_of,
)
from piu_lora.model.describe import BaseInfo, declare_family, describe, family_of
from piu_lora.model.digest import attention_digest, encoder_digest
from piu_lora.model.family import (
    FAMILIES,
    BaseFamily,
    Companions,
    Prompt,
    Source,
    companions_of,
    find_family,
    register,
)
from piu_lora.model.lora import (
    adapter_layers,
    adapters_disabled,
    attach,
    detach,
    encoder_adapter,
    read_weights,
    start_from,
    trainable,
    write_weights,
)
from piu_lora.model.sample import generate
from piu_lora.model.training_memory import checkpointed, compiled, parked

__all__ = [
    "DTYPES",
    "FAMILIES",
    "BaseFamily",
    "BaseInfo",
    "Companions",
    "Precision",
    "Prompt",
    "Source",
    "TokenSample",
    "adapter_layers",
    "adapters_disabled",
    "add_second_moments",
    "as_pipeline",
    "attach",
    "attention_digest",
    "checkpointed",
    "companions_of",
    "compiled",
    "declare_family",
    "describe",
    "detach",
    "empty_inputs",
    "encode_embeddings",
    "encode_empty",
    "encode_tokens",
    "encoder_adapter",
    "encoder_digest",
    "family_of",
    "find_family",
    "generate",
    "identity_position",
    "layer_inputs",
    "layer_weight",
    "load_base",
    "parked",
    "prompt_of",
    "read_weights",
    "register",
    "second_moments",
    "sees_condition",
    "start_from",
    "trainable",
    "training_attention",
    "without_bars",
    "write_weights",
]
