"""Where an adapter is: a folder, or the Hub."""

import re
from pathlib import Path

from piu_lora.adapter.hub import fetch_adapter

__all__ = ["adapter_folder"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def adapter_folder(adapter: Path | str) -> Path:
    """The folder of an adapter; one on the Hub, ``user/name[@revision]``, is downloaded into the Hub's cache.

    A folder of that name goes first.
    """
    if Path(adapter).exists() or isinstance(adapter, Path) or not _HUB_ID.fullmatch(adapter):
        return Path(adapter)
    return fetch_adapter(adapter)
