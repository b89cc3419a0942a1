"""Where things lie on this machine when nobody says otherwise; imports nothing, so that doctor can ask."""

import os
from pathlib import Path

__all__ = ["default_pack"]


def default_pack() -> Path:
    """Where ``piu-lora bank models`` puts the face pack: ``$PIU_LORA_PACK``, or beside insightface's own."""
    variable = os.environ.get("PIU_LORA_PACK")
    return Path(variable) if variable else Path.home() / ".insightface" / "models" / "arc2face"
