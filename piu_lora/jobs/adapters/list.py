"""The adapters of a folder, as a list."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from piu_lora.adapter import read_adapter, refuse_existing, write_file
from piu_lora.errors import BadInput
from piu_lora.groups import FORGET, RANDOM
from piu_lora.markdown import as_words

__all__ = ["HEAD", "index_adapters", "index_row", "write_index"]

HEAD = ("folder", "base", "method", "people", "rank", "kB", "forget ISM", "retain ISM")


def index_adapters(folder: Path) -> list[dict[str, Any]]:
    """Facts about every adapter folder directly inside ``folder``, by name.

    Raises:
        BadInput: there is none, or one is damaged.
    """
    folders = sorted(path.parent for path in folder.glob("*/forget.json"))
    if not folders:
        raise BadInput(f"{str(folder)!r} holds no adapter folders; pass the folder around them")
    return [_facts(path) for path in folders]


def _facts(path: Path) -> dict[str, Any]:
    adapter = read_adapter(path)
    receipt = adapter.receipt
    ratios: dict[str, list[float]] = {}
    for figure in receipt.figures():
        if figure.group in (FORGET, RANDOM) and figure.ratio is not None:
            ratios.setdefault(figure.group, []).append(round(figure.ratio, 3))
    return {
        "folder": path.name,
        "adapter_id": adapter.id,
        "base": receipt.base.id,
        "method": receipt.method,
        "people": receipt.people,
        "ranks": sorted({factors.rank for factors in adapter.change.values()}),
        "bytes": (path / "pytorch_lora_weights.safetensors").stat().st_size,
        "forget": ratios.get(FORGET, []),
        "retain": ratios.get(RANDOM, []),
        "others": sorted(file.name for file in path.glob("*.safetensors") if file.name not in receipt.files),
    }


def index_row(entry: dict[str, Any]) -> tuple[str, ...]:
    """The cells of an adapter below ``HEAD``; ISM after / before by each recognizer."""
    ranks = entry["ranks"]
    span = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
    figures = (
        " / ".join(f"x {ratio:.3f}" for ratio in entry[group]) or "-" for group in ("forget", "retain")
    )
    size = f"{entry['bytes'] / 1e3:.0f}"
    return (entry["folder"], entry["base"], entry["method"], str(entry["people"]), span, size, *figures)


def write_index(adapters: Sequence[dict[str, Any]], out: Path, *, force: bool = False) -> None:
    """The list as a file: JSON, or a Markdown table.

    Raises:
        BadInput: the file exists, or has another suffix.
    """
    refuse_existing(out, force=force)
    if out.suffix == ".json":
        text = json.dumps({"adapters": list(adapters)}, indent=2) + "\n"
    elif out.suffix == ".md":
        rows = [HEAD, ["---"] * len(HEAD), *(map(as_words, index_row(adapter)) for adapter in adapters)]
        text = "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    else:
        raise BadInput(f"out = {str(out)!r} ends in neither .json nor .md; the suffix chooses the format")
    write_file(out, text.encode())
