"""``piu-lora audit``."""

from pathlib import Path
from typing import Annotated

import typer

from piu_lora.cli.options import (
    AdapterArgument,
    Bank,
    Base,
    Device,
    Dtype,
    Force,
    Identities,
    Json,
    Junit,
    Pack,
    PolicyFile,
    Public,
    Settings,
)
from piu_lora.cli.terminal import bars, check_junit, judged, print_result

__all__ = ["command"]


def command(
    adapter: AdapterArgument,
    identity: Identities,
    out: Annotated[
        Path | None, typer.Option(help="folder for report.json, report.md and report.html")
    ] = None,
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    attacks: Annotated[
        str | None,
        typer.Option(
            help="names with commas between: cone, inversion, bypass, relearn, reidentify; all by default"
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="default or quick; single settings by --set audit.key=value")
    ] = "default",
    settings: Settings = [],
    policy: PolicyFile = None,
    junit: Junit = None,
    public: Public = False,
    device: Device = "auto",
    dtype: Dtype = "fp32",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Attack an adapter: can the forgotten person be brought back, and at what price? Exit 1 when a policy is
    missed.
    """
    from piu_lora.errors import BadInput
    from piu_lora.evidence import Policy
    from piu_lora.jobs.auditing.audit import audit, audit_table

    chosen = Policy.load(policy) if policy else Policy()
    if policy is not None and not chosen.audit:
        raise BadInput(
            f'the policy {str(policy)!r} has no limits on an audit; add [audit] and lines such as "cone.radius" = {{min = 0.3}}'
        )
    names = None if attacks is None else [name.strip() for name in attacks.split(",")]
    check_junit(junit)
    found = audit(
        adapter, identity, base, out, bank=bank, pack=pack, attacks=names, budget=budget, settings=settings,
        policy=chosen, public=public, device=device, dtype=dtype, force=force, progress=bars,
    )  # fmt: skip
    print_result(
        found.document,
        "\n".join([audit_table(found.section), *(f"wrote {path}" for path in found.files)]),
        as_json,
    )
    judged(found.report, junit, binding=policy is not None)
