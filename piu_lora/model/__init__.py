"""What: bases, conditions, sampling and LoRA."""

from piu_lora.model.attention import training_attention
from piu_lora.model.base import BaseInfo, attention_digest, describe, load_base
from piu_lora.model.condition import encode_embeddings, encode_empty
from piu_lora.model.lora import adapters_off, attach, detach, read_weights, trainable, write_weights
from piu_lora.model.sample import generate

__all__ = [
    "BaseInfo",
    "adapters_off",
    "attach",
    "attention_digest",
    "describe",
    "detach",
    "encode_embeddings",
    "encode_empty",
    "generate",
    "load_base",
    "read_weights",
    "trainable",
    "training_attention",
    "write_weights",
]
