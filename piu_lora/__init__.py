"""piu-lora: adapters that make the face generator Arc2Face forget people."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from piu_lora.adapter import active, hotswap, load_adapter, load_adapters, prepare_hotswap, read_adapter, without
    from piu_lora.config import ForgetConfig
    from piu_lora.errors import PiuLoraError
    from piu_lora.identity import IdentityBank
    from piu_lora.jobs.evaluate import evaluate
    from piu_lora.jobs.forget import ForgetResult, forget
    from piu_lora.model import encode_embeddings, generate, load_base

__all__ = [
    "ForgetConfig",
    "ForgetResult",
    "IdentityBank",
    "PiuLoraError",
    "__version__",
    "active",
    "encode_embeddings",
    "evaluate",
    "forget",
    "generate",
    "hotswap",
    "load_adapter",
    "load_adapters",
    "load_base",
    "prepare_hotswap",
    "read_adapter",
    "without",
]

_HOMES = {
    "ForgetConfig": "piu_lora.config", "ForgetResult": "piu_lora.jobs.forget", "IdentityBank": "piu_lora.identity",
    "PiuLoraError": "piu_lora.errors", "encode_embeddings": "piu_lora.model", "evaluate": "piu_lora.jobs.evaluate",
    "forget": "piu_lora.jobs.forget", "generate": "piu_lora.model", "load_adapter": "piu_lora.adapter",
    "load_base": "piu_lora.model", "read_adapter": "piu_lora.adapter",
    **dict.fromkeys(("active", "hotswap", "load_adapters", "prepare_hotswap", "without"), "piu_lora.adapter"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import piu_lora`` and ``--help`` stay fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'piu_lora' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
