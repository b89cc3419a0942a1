"""A saved base as releases of diffusers and transformers since 2023 read it.

Since 5.6 transformers writes the text encoder without ``text_model.`` in its keys, and the tokenizer as one
file. Releases before that load such an encoder as random weights, with no more than a warning, and no
tokenizer. The longer keys, vocab.json and merges.txt are read by all.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from piu_lora.tensors import save_tensors

__all__ = ["nest_encoder", "write_vocabulary"]

_NESTED = "text_model."
_HEADER = "#version: 0.2"


def nest_encoder(folder: Path, *, pickled: bool = False) -> None:
    """Give the keys of a saved CLIP text encoder their longer names, in every file of weights.

    Args:
        folder: with config.json and the weights.
        pickled: write pytorch_model.bin in place of model.safetensors.
    """
    state: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors = {_nested(key): value for key, value in load_file(path).items()}
        save_tensors(tensors, path, {"format": "pt"})
        state |= tensors
    for index in folder.glob("*.safetensors.index.json"):
        document = json.loads(index.read_text())
        document["weight_map"] = {_nested(key): file for key, file in document["weight_map"].items()}
        index.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
        for path in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
            path.unlink()


def _nested(key: str) -> str:
    return key if key.startswith(_NESTED) else _NESTED + key


def write_vocabulary(folder: Path) -> None:
    """Write vocab.json, merges.txt and special_tokens_map.json beside a CLIP tokenizer's tokenizer.json."""
    model = _document(folder / "tokenizer.json")["model"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("\n".join([_HEADER, *pairs]) + "\n")
    settings = _document(folder / "tokenizer_config.json")
    special = {
        key: settings[key]
        for key in ("bos_token", "eos_token", "pad_token", "unk_token")
        if settings.get(key)
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")


def _document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
