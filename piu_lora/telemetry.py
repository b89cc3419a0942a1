"""onnxruntime, which reports to its maker unless it is told not to."""

import os
from collections.abc import MutableMapping
from typing import Any

__all__ = ["import_onnxruntime", "switch_off"]


def switch_off(environment: MutableMapping[str, str] = os.environ) -> None:
    """Before onnxruntime is imported, which asks once: its official packages from version 1.29 on send what
    they run, names of model files included, and leave a file among the temporary ones. What is set already
    stays.
    """
    environment.setdefault("ORT_DISABLE_TELEMETRY", "1")


def import_onnxruntime() -> Any:
    """The module, with its telemetry off."""
    switch_off()
    import onnxruntime

    return onnxruntime
