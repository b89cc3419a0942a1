"""What this machine can do, and what to do about the rest. Nothing here uses the network, and of all models
only the embedded base is loaded, to measure how fast the machine is.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.errors import BadInput
from piu_lora.jobs.doctor import machine, models, packages, speed
from piu_lora.jobs.doctor.finding import Finding, Report, command_findings, first_line, guarded

if TYPE_CHECKING:
    from piu_lora.model.family import BaseFamily

__all__ = ["Finding", "Report", "examine"]


def examine(
    base: str | None = None, *, pack: Path | None = None, out: Path = Path(), clean: bool = False
) -> Report:
    """Look at everything that the commands depend on.

    Args:
        base: name of the one family to look at; by default every family that has weights to load.
        pack: folder of the face detector and recognizer; ``PIU_LORA_PACK`` or the usual folder by default.
        out: where adapters and reports are to go.
        clean: remove from there what killed runs left.

    Raises:
        BadInput: an unknown family; everything else that goes wrong is a finding.
    """
    families, unknown = _families(base)
    probes: list[tuple[str, str, Callable[[], Iterable[Finding]]]] = [
        ("Python", "packages", packages.package_findings),
        ("Device", "torch", machine.device_findings),
        ("Device", "host", machine.host_findings),
        ("Device", "one image", speed.speed_findings),
        ("onnxruntime", "import", packages.runtime_findings),
        ("Models", "families", lambda: unknown),
        *(("Models", family.name, partial(models.base_findings, family)) for family in families),
        ("Face pack", "folder", lambda: models.pack_findings(pack)),
        ("Token", "Hub token", models.token_findings),
        ("Disk", "Hub cache", lambda: models.cache_findings(families)),
        ("Disk", "out", lambda: machine.room("out", out, "make room, or choose another `out`")),
        ("Disk", "left-overs", lambda: machine.leftover_findings(out, clean=clean)),
    ]
    findings = [finding for section, name, probe in probes for finding in guarded(section, name, probe)]
    commands = guarded("Commands", "commands", lambda: command_findings(findings, families))
    embedded = {family.name for family in families if family.folder is not None}
    states = [command.status for command in commands if command.name.split()[-1] in embedded]
    return Report((*findings, *commands), bool(states) and "missing" not in states)


def _families(base: str | None) -> tuple[list["BaseFamily"], list[Finding]]:
    """The families to look at; none, and a finding, where the registry cannot be imported."""
    try:
        from piu_lora.model import FAMILIES, find_family

        if base is not None:
            return [find_family(base)], []
        return [family for family in FAMILIES.values() if family.folder or family.source], []
    except BadInput:
        raise
    except Exception as error:
        value = f"cannot be imported: {first_line(error)}"
        return [], [Finding("Models", "families", "missing", value, models.REINSTALL)]
