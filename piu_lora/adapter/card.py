"""The model card: Hub metadata, how to load the adapter, what was measured, what it cannot do. It names nobody."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from piu_lora.adapter.receipt import Receipt

__all__ = ["model_card"]

_TEXT = """---
{metadata}
---

# Identity-unlearning adapter {adapter_id}

A LoRA on the cross-attention of `{base}`. With it loaded, the embedding of one person yields another identity; everybody
else is generated as before. Whom it forgets is not stated here, and nothing in this folder says it.

## Use

```python
pipe.load_lora_weights("path/to/this/folder")  # stock diffusers
```

or, with the base checked first, `piu_lora.load_adapter(pipe, "path/to/this/folder")`.

## How it was made

Method `{method}`, rank {rank}, {steps} steps, seed {seed}. Every setting is in `forget.json`.

## What was measured

{evaluation}

## Limits

- An adapter can be left out: whoever holds the base without it generates the person as before. Merge it into the base
  before handing weights to others.
- A negative adapter weight strengthens what the adapter removes.
- The weights themselves may give hints about the forgotten embedding.
"""


def model_card(receipt: Receipt) -> str:
    """Markdown with a YAML header that the Hub accepts."""
    settings = receipt.settings
    return _TEXT.format(
        metadata=_metadata(receipt).to_yaml(),
        adapter_id=receipt.adapter_id,
        base=receipt.base.id,
        method=receipt.method,
        rank=settings["lora"]["rank"],
        steps=settings["train"]["steps"],
        seed=settings["seed"],
        evaluation=_table(receipt.evaluation) or "Not evaluated.",
    )


def _metadata(receipt: Receipt) -> ModelCardData:
    results = [
        EvalResult(
            task_type="unconditional-image-generation", dataset_type="identity-bank", dataset_name="identity bank",
            metric_type=f"{group}_ism", metric_name=f"{group} ISM after ({recognizer} recognizer)", metric_value=round(figures["after"], 4),
        )
        for recognizer, groups in receipt.evaluation.get("recognizers", {}).items()
        for group, figures in groups["ism"].items()
    ]  # fmt: skip
    hub_id = receipt.base.id if "/" in receipt.base.id else None
    return ModelCardData(
        base_model=hub_id, base_model_relation="adapter" if hub_id else None, library_name="diffusers", license="mit",
        pipeline_tag="text-to-image", tags=["lora", "diffusers", "unlearning", "arc2face", "piu-lora"],
        model_name=f"piu-lora-{receipt.adapter_id}", eval_results=results or None,
    )  # fmt: skip


def _ratio(figures: dict[str, Any]) -> str:
    if figures["ratio"] is None:
        return "no face before"
    low, high = figures["ratio_interval"]
    return f"{figures['ratio']:.3f} [{low:.3f}, {high:.3f}]"


def _table(evaluation: dict[str, Any]) -> str:
    """ISM of every group, before and after, by every recognizer."""
    rows = [
        f"| {recognizer} | {group} | {figures['before']:.3f} | {figures['after']:.3f} | {_ratio(figures)} |"
        for recognizer, groups in evaluation.get("recognizers", {}).items()
        for group, figures in groups["ism"].items()
    ]
    if not rows:
        return ""
    head = ["| recognizer | people | ISM before | ISM after | after / before [95 %] |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])
