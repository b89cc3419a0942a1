"""The model card: Hub metadata, how to load the adapter, what was measured, what it cannot do. It names
nobody.
"""

import json
import shlex

from huggingface_hub import EvalResult, ModelCardData

from piu_lora.adapter.receipt import BaseRef, Figure, Receipt
from piu_lora.groups import group_label
from piu_lora.markdown import as_code, as_words
from piu_lora.model import FAMILIES
from piu_lora.model.factors import Change, component

__all__ = ["model_card"]

_PLACES = {"unet": "the cross-attention of the UNet", "text_encoder": "the text encoder"}
_TEXT = """---
{metadata}
---

# Identity-unlearning adapter {adapter_id}

A LoRA on {places} of `{base}`. With it loaded, {whom} another identity; everybody
else is generated as before. Whom it forgets is not stated here, and nothing in this folder says it.

## Use

With stock diffusers, from this folder or from the Hub:

```python
pipe.load_lora_weights("path/or/hub-id")
```

With the base checked first:

```python
from piu_lora import load_adapter, load_base

pipe = load_base({literal})
load_adapter(pipe, "path/or/hub-id")
```

`piu-lora verify path/or/hub-id --base {load}` checks the files, the base and the effect against the receipt.

## How it was made

{made} Every setting is in `forget.json`.

## What was measured

{evaluation}

## Limits

- An adapter can be left out: whoever holds the base without it generates the {forgotten} as before.
- With stock diffusers it is switched off, without a word, by any second LoRA, by `disable_lora()` and by
  `set_adapters()`. `load_adapter` of piu-lora keeps it active; a public host fuses it into the base:
  `piu-lora stack fuse`.
- A negative adapter weight strengthens what the adapter removes. piu-lora refuses one unless told
  otherwise; other software does not.
- Beside other adapters the changes add up: `piu-lora stack check` says how much they disturb each other.
- The weights themselves may give hints about the {embedding}.
"""


def model_card(receipt: Receipt, change: Change) -> str:
    """Markdown with a YAML header that the Hub accepts."""
    places = sorted({component(module) for module in change}, reverse=True)
    return _TEXT.format(
        metadata=_metadata(receipt).to_yaml(),
        adapter_id=receipt.adapter_id,
        places=" and ".join(_PLACES[part] for part in places),
        base=as_code(receipt.base.id),
        literal=json.dumps(_loads(receipt.base)),
        load=as_code(shlex.quote(_loads(receipt.base))),
        whom="the embedding of one person yields"
        if receipt.people == 1
        else f"the embeddings of {receipt.people} people yield, each,",
        forgotten="person" if receipt.people == 1 else "people",
        embedding="forgotten embedding" if receipt.people == 1 else "forgotten embeddings",
        made=_made(receipt, change),
        evaluation=_table(receipt.figures()) or "Not evaluated.",
    )


def _made(receipt: Receipt, change: Change) -> str:
    ranks = sorted({factors.rank for factors in change.values()})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    facts = [f"Method `{as_code(receipt.method)}`", f"{len(change)} layers", rank]
    if receipt.members:
        facts.append(
            "from the adapters "
            + ", ".join(
                f"`{as_code(member['adapter_id'])}` (weight {member['weight']:g})"
                for member in receipt.members
            )
        )
    train = receipt.settings.get("train")
    if isinstance(train, dict) and "steps" in train:
        facts.append(f"{as_words(str(train['steps']))} steps")
    if "seed" in receipt.settings:
        facts.append(f"seed {as_words(str(receipt.settings['seed']))}")
    return ", ".join(facts) + "."


def _loads(base: BaseRef) -> str:
    """What ``load_base`` takes for this base: the family's name where its weights come with the package."""
    family = FAMILIES.get(base.family)
    return base.family if family is not None and family.folder is not None else base.id


def _hub_id(base: BaseRef) -> str | None:
    """The repository of the base on the Hub, where it has one."""
    if "/" in base.id:
        return base.id
    family = FAMILIES.get(base.id)
    return family.source.repository if family is not None and family.source is not None else None


def _metadata(receipt: Receipt) -> ModelCardData:
    results = [
        EvalResult(
            task_type="unconditional-image-generation",
            dataset_type="identity-bank",
            dataset_name="identity bank",
            metric_type=f"{figure.group}_ism",
            metric_value=round(figure.after, 4),
            metric_name=f"{group_label(figure.group)} ISM after ({figure.recognizer} recognizer), "
            f"{_interval(figure.after_interval)}",
        )
        for figure in receipt.figures()
    ]
    family, hub_id = FAMILIES.get(receipt.base.family), _hub_id(receipt.base)
    return ModelCardData(
        base_model=hub_id,
        base_model_relation="adapter" if hub_id else None,
        library_name="diffusers",
        license="mit",
        pipeline_tag="text-to-image",
        tags=["lora", "diffusers", "unlearning", *(family.tags if family else ()), "piu-lora"],
        model_name=f"piu-lora-{receipt.adapter_id}",
        eval_results=results or None,
    )


def _interval(pair: tuple[float, float]) -> str:
    return f"95 % interval {pair[0]:.3f} to {pair[1]:.3f}"


def _table(figures: list[Figure]) -> str:
    """ISM of every group, before and after, by every recognizer."""
    rows = [
        f"| {as_words(figure.recognizer)} | {group_label(figure.group)} "
        f"| {figure.before:.3f} | {figure.after:.3f} | {_ratio(figure)} |"
        for figure in figures
    ]
    if not rows:
        return ""
    head = [
        "| recognizer | people | ISM before | ISM after | after / before [95 %] |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def _ratio(figure: Figure) -> str:
    if figure.ratio is None or figure.interval is None:
        return "no face before"
    return f"{figure.ratio:.3f} [{figure.interval[0]:.3f}, {figure.interval[1]:.3f}]"
