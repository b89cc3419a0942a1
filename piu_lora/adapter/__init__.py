"""The artefact: an adapter folder, written whole, read with suspicion."""

from piu_lora.adapter.factors import Change, Factors, change_of, compressed, concatenated, distance
from piu_lora.adapter.folder import Adapter, read_adapter, write_adapter
from piu_lora.adapter.loading import (
    active,
    hotswap,
    load_adapter,
    load_adapters,
    open_adapter,
    prepare_hotswap,
    require_base,
    unload,
    without,
)
from piu_lora.adapter.output import OutputFolder, claimed, disk_errors, refuse_existing, write_file
from piu_lora.adapter.receipt import BaseRef, Receipt, library_versions

__all__ = [
    "Adapter",
    "BaseRef",
    "Change",
    "Factors",
    "OutputFolder",
    "Receipt",
    "active",
    "change_of",
    "claimed",
    "compressed",
    "concatenated",
    "disk_errors",
    "distance",
    "hotswap",
    "library_versions",
    "load_adapter",
    "load_adapters",
    "open_adapter",
    "prepare_hotswap",
    "read_adapter",
    "refuse_existing",
    "require_base",
    "unload",
    "without",
    "write_adapter",
    "write_file",
]
