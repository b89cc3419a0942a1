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
from piu_lora.model.base import (
    ARC2FACE,
    DTYPES,
    BaseInfo,
    Precision,
    as_pipeline,
    attention_digest,
    describe,
    encoder_digest,
    family_of,
    load_base,
    without_bars,
)
from piu_lora.model.condition import TokenSample, encode_embeddings, encode_empty, identity_position
from piu_lora.model.family import FAMILIES, BaseFamily, find_family
from piu_lora.model.lora import (
    adapters_disabled,
    attach,
    detach,
    encoder_adapter,
    encoder_adapters_disabled,
    read_weights,
    start_from,
    trainable,
    write_weights,
)
from piu_lora.model.sample import generate
from piu_lora.model.training_memory import checkpointed, compiled, parked

__all__ = [
    "ARC2FACE",
    "DTYPES",
    "FAMILIES",
    "BaseFamily",
    "BaseInfo",
    "Precision",
    "TokenSample",
    "adapters_disabled",
    "add_second_moments",
    "as_pipeline",
    "attach",
    "attention_digest",
    "checkpointed",
    "compiled",
    "describe",
    "detach",
    "empty_inputs",
    "encode_embeddings",
    "encode_empty",
    "encoder_adapter",
    "encoder_adapters_disabled",
    "encoder_digest",
    "family_of",
    "find_family",
    "generate",
    "identity_position",
    "layer_inputs",
    "layer_weight",
    "load_base",
    "parked",
    "read_weights",
    "second_moments",
    "sees_condition",
    "start_from",
    "trainable",
    "training_attention",
    "without_bars",
    "write_weights",
]
