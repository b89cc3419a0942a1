"""What can be done with a bank."""

import io
from pathlib import Path

import numpy as np

from piu_lora.adapter import refuse_existing, write_file
from piu_lora.jobs.request.request import bank_for

__all__ = ["export_embeddings"]


def export_embeddings(bank: str | Path, identity: str, out: str | Path, *, force: bool = False) -> int:
    """Write the (n, d) float32 embeddings of one identity to a .npy file only the owner may read; returns n.

    Raises:
        BadInput: no such bank or identity; the file exists and ``force`` is off.
    """
    target = Path(out)
    refuse_existing(target, force=force)
    embeddings = bank_for("mini", bank).of(identity).numpy()
    buffer = io.BytesIO()
    np.save(buffer, embeddings)
    write_file(target, buffer.getvalue(), mode=0o600)
    return len(embeddings)
