"""``piu-lora audit``."""

from typing import Annotated

import typer

from piu_lora.cli.options import AdapterArgument, Bank, Base, Device, Dtype, Identities, Json, Pack, Settings
from piu_lora.cli.terminal import bars, print_result

__all__ = ["command"]


def command(
    adapter: AdapterArgument,
    identity: Identities,
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    attacks: Annotated[str, typer.Option(help="names with commas between: cone, inversion, bypass, relearn, poster; all by default")] = "",
    budget: Annotated[str, typer.Option(help="default or quick; single settings by --set audit.key=value")] = "default",
    settings: Settings = [],  # noqa: B006
    device: Device = "auto",
    dtype: Dtype = "fp32",
    as_json: Json = False,
) -> None:
    """Attack an adapter: can the forgotten person be brought back, and at what price?"""
    from piu_lora.jobs.audit import audit, audit_table

    names = [name.strip() for name in attacks.split(",") if name.strip()]
    section = audit(
        adapter, identity, base, bank=bank, pack=pack, attacks=names, budget=budget, settings=settings, device=device, dtype=dtype,
        progress=bars,
    )  # fmt: skip
    print_result(section, audit_table(section), as_json)
