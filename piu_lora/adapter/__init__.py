"""The artefact: an adapter folder, written whole, read with suspicion."""

from piu_lora.adapter.folder import Adapter, load_adapter, read_adapter, write_adapter
from piu_lora.adapter.output import OutputFolder, claimed, disk_errors, refuse_existing, write_file
from piu_lora.adapter.receipt import BaseRef, Receipt, library_versions

__all__ = [
    "Adapter",
    "BaseRef",
    "OutputFolder",
    "Receipt",
    "claimed",
    "disk_errors",
    "library_versions",
    "load_adapter",
    "read_adapter",
    "refuse_existing",
    "write_adapter",
    "write_file",
]
