"""The files of an adapter folder, and no others: whatever a receipt from elsewhere lists has one of these
names.
"""

import re

from piu_lora.foreign import is_plain

__all__ = [
    "CARD_FILE",
    "CURVE_FILE",
    "DIFFUSERS_FILE",
    "PEFT_CONFIG",
    "PEFT_FILE",
    "PEFT_FOLDER",
    "RECEIPT_FILE",
    "REPORT_FOLDER",
    "is_adapter_file",
    "shows_person",
]

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
# Older releases of diffusers take a folder or repository with one weights file only, and pass over a path
# that says "checkpoint".
PEFT_FOLDER = "peft-checkpoint"
RECEIPT_FILE = "forget.json"
CARD_FILE = "README.md"
REPORT_FOLDER = "report"
_FILES = {
    CARD_FILE,
    DIFFUSERS_FILE,
    *(
        f"{folder}{part}{name}"
        for folder in ("", f"{PEFT_FOLDER}/")
        for part in ("", "text_encoder/")
        for name in (PEFT_FILE, PEFT_CONFIG)
    ),
}
_REPORT = re.compile(rf"{REPORT_FOLDER}/\w+\.(json|md|png)", re.ASCII)
CURVE_FILE = f"{REPORT_FOLDER}/loss.png"  # the only picture that shows nobody


def shows_person(name: str) -> bool:
    """Whether a file of an adapter folder is a picture for its owner alone."""
    return name.startswith(f"{REPORT_FOLDER}/") and name.endswith(".png") and name != CURVE_FILE


def is_adapter_file(name: str) -> bool:
    """Whether a receipt may list a file of this name."""
    return name in _FILES or (is_plain(name, 1) and _REPORT.fullmatch(name) is not None)
