"""What this machine lacks, and the command that mends it. Nothing here uses the network, and of all models
only the embedded base is loaded, to measure how fast the machine is.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.jobs.doctor import models, software
from piu_lora.jobs.doctor.finding import Finding, Report, guarded

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
        out: a folder in which runs wrote adapters and reports.
        clean: remove from there what killed runs left.

    Raises:
        BadInput: an unknown family; everything else that goes wrong is a finding.
    """
    families = _families(base)
    findings = [
        *guarded("Python", "packages", software.package_findings),
        *guarded("Device", "devices", software.torch_findings),
        *guarded("onnxruntime", "packages", software.runtime_findings),
        *(
            finding
            for family in families
            for finding in guarded("Models", family.name, partial(models.base_findings, family))
        ),
        *guarded("Face pack", "folder", lambda: models.pack_findings(pack)),
        *guarded("Disk", "left-overs", lambda: models.leftover_findings(out, clean=clean)),
    ]
    usable = {finding.name for finding in findings if finding.status != "missing"}
    embedded = {family.name for family in families if family.folder is not None}
    return Report(tuple(findings), bool(embedded) and {"torch", "import", *embedded} <= usable)


def _families(base: str | None) -> list["BaseFamily"]:
    """The families to look at; none where torch, which the registry needs, cannot be imported."""
    try:
        from piu_lora.model import FAMILIES, find_family
    except ImportError:
        return []
    listed = [family for family in FAMILIES.values() if family.folder or family.source]
    return listed if base is None else [find_family(base)]
