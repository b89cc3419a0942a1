"""The artefact: an adapter folder, written whole, read with suspicion."""

from piu_lora.adapter.checks import check_weights, require_base
from piu_lora.adapter.entry import Entry
from piu_lora.adapter.fetch import adapter_folder, fetch_adapter
from piu_lora.adapter.folder import Adapter, read_adapter, weights_digest, write_adapter, write_peft
from piu_lora.adapter.formats import read_lora
from piu_lora.adapter.inspect import describe_lora
from piu_lora.adapter.interference import Interference, relative_changes, stacks_of
from piu_lora.adapter.layers import active
from piu_lora.adapter.ledger import Ledger, default_ledger
from piu_lora.adapter.loading import (
    adapters_disabled,
    hotswap,
    load_adapter,
    load_adapters,
    mounted,
    open_adapter,
    prepare_hotswap,
    set_weights,
    unload,
)
from piu_lora.adapter.merge import (
    MERGES,
    LayerError,
    SecondMoments,
    compress_change,
    compression_facts,
    find_merge,
)
from piu_lora.adapter.output import OutputFolder, claimed, disk_errors, refuse_existing, replacing, write_file
from piu_lora.adapter.pinning import assert_active, pinned, unpin
from piu_lora.adapter.receipt import BaseRef, Receipt, library_versions
from piu_lora.adapter.save_formats import save_diffusers, save_kohya
from piu_lora.adapter.scan import Hit, Secrets, scan_files
from piu_lora.model.factors import Change, Factors, change_of, compressed, concatenated, distance

__all__ = [
    "MERGES",
    "Adapter",
    "BaseRef",
    "Change",
    "Entry",
    "Factors",
    "Hit",
    "Interference",
    "LayerError",
    "Ledger",
    "OutputFolder",
    "Receipt",
    "SecondMoments",
    "Secrets",
    "active",
    "adapter_folder",
    "adapters_disabled",
    "assert_active",
    "change_of",
    "check_weights",
    "claimed",
    "compress_change",
    "compressed",
    "compression_facts",
    "concatenated",
    "default_ledger",
    "describe_lora",
    "disk_errors",
    "distance",
    "fetch_adapter",
    "find_merge",
    "hotswap",
    "library_versions",
    "load_adapter",
    "load_adapters",
    "mounted",
    "open_adapter",
    "pinned",
    "prepare_hotswap",
    "read_adapter",
    "read_lora",
    "refuse_existing",
    "relative_changes",
    "replacing",
    "require_base",
    "save_diffusers",
    "save_kohya",
    "scan_files",
    "set_weights",
    "stacks_of",
    "unload",
    "unpin",
    "weights_digest",
    "write_adapter",
    "write_file",
    "write_peft",
]
