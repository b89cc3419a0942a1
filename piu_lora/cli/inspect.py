"""``piu-lora inspect`` and ``piu-lora list``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from piu_lora.cli.options import AdapterArgument, Force, Json
from piu_lora.cli.output import Facts, Part, Table, print_result
from piu_lora.groups import group_label

__all__ = ["command", "list_command", "screen"]

_BARS = "▏▎▍▌▋▊▉█"
_BAR_WIDTH = 28


def command(adapter: AdapterArgument, as_json: Json = False) -> None:
    """Show what a LoRA is: an adapter of piu-lora with its receipt, any other with what it lacks."""
    from piu_lora.adapter import adapter_folder, describe_lora

    facts = describe_lora(adapter_folder(adapter))
    print_result(facts, screen(facts), as_json)


def list_command(
    folder: Annotated[Path, typer.Argument(help="Folder that holds adapter folders.")],
    out: Annotated[Path | None, typer.Option(help="Write the list to this file: .json or .md.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the adapters of a folder: how each was made, from what, and what it was measured to do."""
    from piu_lora.jobs.adapters.list import HEAD, index_adapters, index_row, write_index

    adapters = index_adapters(folder)
    if out is not None:
        write_index(adapters, out, force=force)
    print_result({"adapters": adapters}, Table(HEAD, [index_row(entry) for entry in adapters]), as_json)


def screen(facts: dict[str, Any]) -> list[Part]:
    """What ``describe_lora`` found out, on one screen.

    Whatever comes from the files is stripped of control characters.
    """
    receipt = facts["receipt"]
    parts: list[Part] = [Facts([(label, _printable(value)) for label, value in _labelled(facts)])]
    parts += ["", "norm of the change, by block", *map(_printable, _bars(facts["norms"]))]
    if receipt is not None and receipt["figures"]:
        parts += ["", "ISM after / before [95 %]"]
        parts += [
            _printable(f"  {figure['recognizer']:13} {group_label(figure['group']):17} {_ratio(figure)}")
            for figure in receipt["figures"][:12]
        ]
    if facts["lacks"]:
        parts += ["", *(_printable(f"lacks: {line}") for line in facts["lacks"])]
    return parts


def _labelled(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    receipt, sizes = facts["receipt"], facts["bytes"]
    if receipt is not None:
        yield "adapter", receipt["adapter_id"]
    size = f"{sum(sizes.values()) / 1e6:.2f} MB in {len(sizes)} files"
    yield "format", f"{facts['format']}, {', '.join(facts['dtypes'])}, {size}"
    if receipt is not None:
        base = receipt["base"]
        yield "base", f"{base['id']} {base['revision'][:12]} (cross-attention {base['attn2_sha256'][:12]})"
        yield "method", f"{receipt['method']}, seed {receipt['seed']}, anchor {_flat(receipt['anchor'])}"
        yield "people", f"{receipt['people']}"
        if receipt["members"]:
            yield "members", ", ".join(member["adapter_id"] for member in receipt["members"][:8])
        yield "digests", f"all {len(receipt['files'])} files are what the receipt says"
    yield "layers", f"{facts['layers']}: {_flat(facts['projections'])}; {facts['parameters']:,} parameters"
    yield "rank", _ranks(facts["ranks"])


def _flat(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())[:90]


def _ranks(ranks: dict[int, int]) -> str:
    if len(ranks) == 1:
        return str(next(iter(ranks)))
    return f"{min(ranks)} to {max(ranks)} (parameters are spread over {len(ranks)} different ranks)"


def _bars(norms: dict[str, float]) -> Iterator[str]:
    top = max(norms.values()) or 1.0
    for block, norm in list(norms.items())[:24]:
        yield f"  {block:32.32} {_bar(norm / top):{_BAR_WIDTH}} {norm:.3g}"


def _bar(share: float) -> str:
    eighths = round(share * _BAR_WIDTH * 8)
    return _BARS[-1] * (eighths // 8) + (_BARS[eighths % 8 - 1] if eighths % 8 else "")


def _ratio(figure: dict[str, Any]) -> str:
    if figure["ratio"] is None or figure["interval"] is None:
        return "no face before"
    return f"{figure['ratio']:.3f} [{figure['interval'][0]:.3f}, {figure['interval'][1]:.3f}]"


def _printable(line: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in line)[:160]
