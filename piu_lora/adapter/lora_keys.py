"""The keys of LoRA files, whoever wrote them: which layer of ours a tensor belongs to, and what it is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["LoraKey", "other_kind", "parse_key", "without_wrappers"]

Style = Literal["diffusers", "kohya", "peft"]
Role = Literal["down", "up", "alpha"]

_WRAPPER = re.compile(r"(?<![^.])(?:_orig_mod|module)\.")
_PEFT = "base_model.model."
_KOHYA = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder"}
# Prefixes of parts, the longest first; those without one begin with a name that only one part has.
_PARTS = {
    "model.diffusion_model.": "unet",
    "diffusion_model.": "unet",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
}
_UNPREFIXED = {
    "unet": re.compile(r"(?:down_blocks|up_blocks|mid_block|conv_in|conv_out|time_embedding)\b"),
    "text_encoder": re.compile(r"(?:text_model\.)?encoder\.layers\."),
}
# What a layer of a UNet begins with, by the names of diffusers or of the original code.
_UNET = re.compile(
    r"(?:down_blocks|up_blocks|mid_block|conv_in|conv_out|time_embedding|input_blocks|output_blocks|"
    r"middle_block|time_embed|out)\."
)
_ROLE = re.compile(
    r"\.(?:"
    r"lora_(?P<letter>[AB])(?:\.(?P<adapter>[^.]+))?\.weight"
    r"|(?:(?P<old>(?:processor\.)?to_(?:q|k|v|out))_lora|lora|lora_linear_layer)\.(?P<arrow>down|up)\.weight"
    r"|lora_(?P<kohya>down|up)\.weight"
    r"|(?P<alpha>alpha)"
    r")$"
)
# Names in which kohya's scripts, writing "_" for ".", leave an underscore that was one.
_UNDERSCORED = (
    "down_blocks",
    "up_blocks",
    "mid_block",
    "transformer_blocks",
    "input_blocks",
    "output_blocks",
    "middle_block",
    "time_emb_proj",
    "time_embedding",
    "linear_1",
    "linear_2",
    "conv_shortcut",
    "conv_in",
    "conv_out",
    "proj_in",
    "proj_out",
    "out_proj",
    "q_proj",
    "k_proj",
    "v_proj",
    "self_attn",
    "text_model",
    "to_q",
    "to_k",
    "to_v",
    "to_out",
)
_ENCODER_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_OTHERS = {
    r"dora_scale|lora_magnitude_vector": "is a DoRA, not a plain LoRA",
    r"hada_": "is a LoHa, not a plain LoRA",
    r"lokr_": "is a LoKr, not a plain LoRA",
    r"lora_mid": "is a Tucker-decomposed LoRA, not a plain one",
    r"oft_|boft_": "is an OFT, not a LoRA",
    r"\.(a1|a2|b1|b2|bm1|bm2)\.weight$": "is a GLoRA, not a plain LoRA",
    r"\.on_input$": "is an IA3, not a LoRA",
    r"\.diff(_b)?$|\.set_weight$|\.w_norm$": "holds whole differences of weights beside or instead of a LoRA",
    r"\.scalar$|\.reshape_weight$": "is a LyCORIS file with settings beside its factors, not a plain LoRA",
    r"bundle_emb|string_to_param|emb_params": "bundles textual-inversion embeddings with a LoRA",
    r"lora_te[23]_|text_encoder_[23]|conditioner\.": "is for SDXL or SD3, which have a second text encoder",
    r"controlnet": "is for a ControlNet",
    r"^(lora_)?transformer[._]|double_blocks|single_blocks": "is for a diffusion transformer (SD3, Flux)",
    r"lora_[AB](\.[^.]+)?\.bias$|lora_embedding_": "has biases or embeddings in its LoRA",
}


@dataclass(frozen=True)
class LoraKey:
    """A tensor of a LoRA file.

    Attributes:
        module: the layer, by our names: ``unet.mid_block...to_k``, ``text_encoder.encoder.layers.0...``.
        stored: the layer as the file calls it, without part: what the patterns of PEFT were written for.
        adapter: the name of the adapter inside the key, where there is one.
    """

    module: str
    stored: str
    role: Role
    style: Style
    adapter: str = ""


def without_wrappers(name: str) -> str:
    """A name without what torch.compile and DistributedDataParallel put into it, in whatever order."""
    return _WRAPPER.sub("", name)


def other_kind(keys: Iterable[str]) -> str | None:
    """What a file is that is no plain LoRA of Stable Diffusion 1.5, by its keys."""
    names = list(keys)
    return next(
        (words for mark, words in _OTHERS.items() if any(re.search(mark, name) for name in names)), None
    )


def parse_key(key: str, part: str = "") -> LoraKey | None:
    """Read a key of diffusers (new, of 2023, or without its part), PEFT, kohya's scripts or ComfyUI.

    Args:
        part: what a key without any part is of; by default its own first names tell.
    """
    name = without_wrappers(key)
    match = _ROLE.search(name)
    if match is None:
        return None
    style: Style = "diffusers"
    path = name[: match.start()]
    if path.startswith(_PEFT):
        style, path = "peft", without_wrappers(path.removeprefix(_PEFT))
    for prefix, kohya_part in _KOHYA.items():
        if path.startswith(prefix):
            style, part, path = "kohya", kohya_part, _dotted(path.removeprefix(prefix))
    component, path = _part_of(path, part)
    if not component or (component == "unet" and not _UNET.match(f"{path}.")):
        return None
    if match["old"]:
        projection = match["old"].removeprefix("processor.")
        path += "." + (_ENCODER_NAMES[projection] if component == "text_encoder" else projection)
    path = _diffusers_name(path) if component == "unet" else path
    return LoraKey(
        f"{component}.{path.removeprefix('text_model.') if component == 'text_encoder' else path}",
        path,
        _role(match),
        style,
        match["adapter"] or "",
    )


def _role(match: re.Match[str]) -> Role:
    if match["alpha"]:
        return "alpha"
    return "down" if (match["letter"] or match["arrow"] or match["kohya"]) in ("A", "down") else "up"


def _part_of(path: str, part: str) -> tuple[str, str]:
    """The part, and the layer's name in it; an empty part for what is of neither."""
    known = True
    while known:
        known = False
        for prefix, other in _PARTS.items():
            if path.startswith(prefix):
                part, path, known = other, path.removeprefix(prefix), True
    if not part:
        part = next((name for name, begin in _UNPREFIXED.items() if begin.match(path)), "")
    return part, path


def _dotted(path: str) -> str:
    for word in _UNDERSCORED:
        path = path.replace(word, word.replace("_", "\0"))
    return path.replace("_", ".").replace("\0", "_")


def _diffusers_name(path: str) -> str:
    """The attention of the original Stable Diffusion 1.x code by diffusers' names; ``to_out`` is a list of
    two there.
    """
    if path.startswith("middle_block.1."):
        path = path.replace("middle_block.1.", "mid_block.attentions.0.", 1)
    match = re.match(r"(input|output)_blocks\.(\d+)\.1\.", path)
    if match:
        number, rest = int(match[2]), path[match.end() :]
        block, layer = divmod(number - 1 if match[1] == "input" else number, 3)
        path = f"{'down' if match[1] == 'input' else 'up'}_blocks.{block}.attentions.{layer}.{rest}"
    return f"{path}.0" if path.endswith(".to_out") else path
