"""Virtual environments with releases of diffusers and transformers that people still run."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

__all__ = ["RELEASES", "python_of"]

# The requirements of Arc2Face, as they are and with peft, which its demos need for disable_lora(); then one
# of 2024, one of 2025. Nothing else of these environments differs from the one that runs the tests.
RELEASES = {
    "0.22": ["diffusers==0.22.0", "transformers==4.34.1", "tokenizers==0.14.1", "huggingface_hub==0.17.3"],
    "0.22-peft": ["peft==0.6.2"],
    "0.27": ["diffusers==0.27.2", "transformers==4.38.2", "tokenizers==0.15.2", "huggingface_hub==0.25.2"],
    "0.31": ["diffusers==0.31.0", "transformers==4.46.3", "tokenizers==0.20.3", "huggingface_hub==0.25.2"],
}
# Without accelerate, this release of diffusers loads no LoRA of a text encoder at all.
RELEASES["0.22"] += ["accelerate==0.23.0"]
RELEASES["0.22-peft"] += RELEASES["0.22"]
RELEASES["0.27"] += ["peft==0.9.0", "accelerate==0.27.2"]
RELEASES["0.31"] += ["peft==0.13.2", "accelerate==1.1.1"]
_OWN = (
    "diffusers",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "hf_xet",
    "peft",
    "accelerate",
    "pip",
    "piu_lora",
)


def python_of(name: str, fallback: Path) -> Path:
    """The interpreter of an environment, made where it is not there yet.

    Args:
        fallback: where it is made without $PIU_LORA_CI_CACHE.
    """
    folder = Path(os.environ.get("PIU_LORA_CI_CACHE", fallback)) / "versions" / name
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    venv.create(folder, clear=True)
    # Everything else is shared: torch alone would take minutes and a gigabyte each time.
    (target,) = (folder / "lib").glob("python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.suffix != ".pth" and not entry.name.lower().startswith((*_OWN, "__pycache__")):
            (target / entry.name).symlink_to(entry)
    install = ["install", "-q", "--no-deps", "--no-compile", *RELEASES[name]]
    command = [sys.executable, "-m", "pip", "--python", str(python), *install]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the registry does not give {', '.join(RELEASES[name])}: {done.stderr.strip()[-200:]}")
    (folder / "ready").touch()
    return python
