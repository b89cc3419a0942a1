"""piu-lora: adapters that make the face generator Arc2Face forget people."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from piu_lora.adapter import (
        Ledger,
        active,
        adapters_disabled,
        assert_active,
        hotswap,
        load_adapter,
        load_adapters,
        pinned,
        prepare_hotswap,
        read_adapter,
        unpin,
    )
    from piu_lora.config import ForgetConfig
    from piu_lora.errors import PiuLoraError
    from piu_lora.evidence import Policy
    from piu_lora.identity import IdentityBank
    from piu_lora.jobs.adapters.convert import convert_adapter, extract_adapter, resize_adapter
    from piu_lora.jobs.adapters.publish import pull, push
    from piu_lora.jobs.arena.audit import audit_artefact
    from piu_lora.jobs.arena.compare import compare
    from piu_lora.jobs.arena.tune import tune
    from piu_lora.jobs.auditing.audit import Audited, audit
    from piu_lora.jobs.evaluation.evaluate import Assessment, Judges, evaluate
    from piu_lora.jobs.evaluation.verify import verify_adapter
    from piu_lora.jobs.forget import ForgetResult, forget
    from piu_lora.jobs.releases.apply import apply_requests
    from piu_lora.jobs.releases.release import create_release, open_release
    from piu_lora.jobs.releases.requests import add_requests, withdraw_request
    from piu_lora.jobs.stacks.check import check_stack
    from piu_lora.jobs.stacks.fuse import fuse_adapters
    from piu_lora.jobs.stacks.members import open_members, with_people
    from piu_lora.jobs.stacks.merge import MergeSettings, merge_adapters
    from piu_lora.model import declare_family, encode_embeddings, find_family, generate, load_base

__all__ = [
    "Assessment",
    "Audited",
    "ForgetConfig",
    "ForgetResult",
    "IdentityBank",
    "Judges",
    "Ledger",
    "MergeSettings",
    "PiuLoraError",
    "Policy",
    "__version__",
    "active",
    "adapters_disabled",
    "add_requests",
    "apply_requests",
    "assert_active",
    "audit",
    "audit_artefact",
    "check_stack",
    "compare",
    "convert_adapter",
    "create_release",
    "declare_family",
    "encode_embeddings",
    "evaluate",
    "extract_adapter",
    "find_family",
    "forget",
    "fuse_adapters",
    "generate",
    "hotswap",
    "load_adapter",
    "load_adapters",
    "load_base",
    "merge_adapters",
    "open_members",
    "open_release",
    "pinned",
    "prepare_hotswap",
    "pull",
    "push",
    "read_adapter",
    "resize_adapter",
    "tune",
    "unpin",
    "verify_adapter",
    "with_people",
    "withdraw_request",
]

_HOMES = {
    name: home
    for home, names in {
        "piu_lora.adapter": (
            "Ledger",
            "active",
            "assert_active",
            "hotswap",
            "load_adapter",
            "load_adapters",
            "pinned",
            "prepare_hotswap",
            "read_adapter",
            "adapters_disabled",
            "unpin",
        ),
        "piu_lora.config": ("ForgetConfig",),
        "piu_lora.errors": ("PiuLoraError",),
        "piu_lora.evidence": ("Policy",),
        "piu_lora.identity": ("IdentityBank",),
        "piu_lora.jobs.arena.audit": ("audit_artefact",),
        "piu_lora.jobs.arena.compare": ("compare",),
        "piu_lora.jobs.arena.tune": ("tune",),
        "piu_lora.jobs.auditing.audit": ("Audited", "audit"),
        "piu_lora.jobs.adapters.convert": ("convert_adapter", "extract_adapter", "resize_adapter"),
        "piu_lora.jobs.evaluation.evaluate": ("Assessment", "Judges", "evaluate"),
        "piu_lora.jobs.forget": ("ForgetResult", "forget"),
        "piu_lora.jobs.releases.apply": ("apply_requests",),
        "piu_lora.jobs.releases.release": ("create_release", "open_release"),
        "piu_lora.jobs.releases.requests": ("add_requests", "withdraw_request"),
        "piu_lora.jobs.stacks.fuse": ("fuse_adapters",),
        "piu_lora.jobs.stacks.members": ("open_members", "with_people"),
        "piu_lora.jobs.stacks.merge": ("MergeSettings", "merge_adapters"),
        "piu_lora.jobs.adapters.publish": ("pull", "push"),
        "piu_lora.jobs.stacks.check": ("check_stack",),
        "piu_lora.jobs.evaluation.verify": ("verify_adapter",),
        "piu_lora.model": ("declare_family", "encode_embeddings", "find_family", "generate", "load_base"),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import piu_lora`` and ``--help`` stay fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'piu_lora' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
