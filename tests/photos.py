"""Real photographs and real face models, which lie beside the repository and never in it."""

import os
from pathlib import Path

import pytest

__all__ = ["FACES", "PACK", "PORTRAITS", "needs_faces"]

FACES = Path(os.environ.get("PIU_LORA_FACES") or Path(__file__).resolve().parents[2] / "shared" / "faces")
PACK = FACES / "buffalo_s_int8_dyn"
PORTRAITS = FACES / "portraits"

needs_faces = pytest.mark.skipif(not FACES.is_dir(), reason=f"no photographs at {FACES}; set PIU_LORA_FACES")
