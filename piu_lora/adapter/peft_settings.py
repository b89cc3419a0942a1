"""The settings of a LoRA by PEFT's rules: what they scale a layer by, and what is no plain LoRA."""

from collections.abc import Mapping
from typing import Any

import regex

from piu_lora.errors import BadInput

__all__ = ["require_plain", "scale_of"]

# PEFT's own defaults, for files that leave them out.
_RANK = _ALPHA = 8
_SECONDS = 1.0  # a pattern that takes longer is an attack or an accident
# What makes PEFT do something else than add ``scale * B @ A`` to the weight.
_OTHERS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "aLoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "LoRA with replicated layers",
    "trainable_token_indices": "LoRA with trained tokens",
    "target_parameters": "LoRA on parameters",
    "lora_bias": "LoRA with biases",
}
# The beginnings of init_lora_weights under which PEFT changes the base, when it makes and when it loads one.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LEAVES_BASE = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")


def require_plain(config: Mapping[str, Any], where: str) -> None:
    """Raise ``BadInput`` unless these settings are of a LoRA that is ``W + scale * B @ A``.

    Args:
        where: names the source in messages.
    """
    kind = str(config.get("peft_type") or "LORA")
    if kind.rpartition(".")[2].upper() != "LORA":
        raise BadInput(f"{where} is a {kind[:30]} of PEFT; only plain LoRA is read")
    for option, name in _OTHERS.items():
        if config.get(option):
            raise BadInput(f"{where} is a {name} of PEFT; only plain LoRA is read")
    init = str(config.get("init_lora_weights"))
    if init.lower() not in _LEAVES_BASE and not init.lower().startswith(_CHANGES_BASE):
        raise BadInput(
            f"{where} was initialised with {init[:30]!r}, which may change the base as well and is not known "
            "here; save it again as a plain LoRA"
        )
    if init.lower().startswith(_CHANGES_BASE):
        raise BadInput(
            f"{where} was initialised with {init[:30]!r}, which changes the base as well; save it again with "
            "PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )


def scale_of(config: Mapping[str, Any], module: str, rank: int, where: str) -> float:
    """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA, by PEFT's own rules.

    Args:
        module: the layer's name as the file has it, which PEFT's patterns match.
        rank: of the layer's factors.

    Raises:
        BadInput: an alpha that is no number, a rank that the factors do not have, an unusable pattern.
    """
    alpha = _by_pattern(config, "alpha_pattern", module, config.get("lora_alpha", _ALPHA), where)
    stated = _by_pattern(config, "rank_pattern", module, config.get("r", _RANK), where)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e6:
        raise BadInput(f"{where}: the alpha of {module!r} is {alpha!r:.40}, no usable number; make it again")
    if stated != rank:
        raise BadInput(
            f"{where}: {module!r} is of rank {rank}, but its settings say {stated!r:.40}; make it again"
        )
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _by_pattern(config: Mapping[str, Any], option: str, module: str, default: Any, where: str) -> Any:
    """The value of the first pattern that matches the end of the name, as in PEFT's get_pattern_key."""
    patterns = config.get(option) or {}
    if not isinstance(patterns, dict):
        raise BadInput(f"{where}: {option} is {patterns!r:.40}, not an object; make it again")
    for pattern, value in patterns.items():
        try:
            matches = regex.match(rf"(.*\.)?({pattern})$", module, timeout=_SECONDS)
        except (regex.error, TimeoutError, RecursionError) as error:
            raise BadInput(
                f"{where}: the {option} {pattern[:60]!r} is no usable regular expression; make it again"
            ) from error
        if matches:
            return value
    return default
