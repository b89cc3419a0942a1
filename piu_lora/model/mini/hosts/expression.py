"""An IP-Adapter for the embedded base (arXiv 2308.06721), led by an expression in place of an image."""

from pathlib import Path
from typing import Any

import torch

from piu_lora.model.mini.hosts.denoising import FrozenBase
from piu_lora.model.mini.hosts.photographs import EXPRESSIONS
from piu_lora.model.mini.training import FitSettings, fit

__all__ = ["train_expression", "trained_adapter"]

SEED = 71
_TOKENS = 4  # of the expression, beside the condition's


class _Expression(torch.nn.Module):
    """The layers that an IP-Adapter has; diffusers' own loader puts them into the frozen UNet."""

    project: Any
    attention: Any

    def __init__(self, base: FrozenBase) -> None:
        super().__init__()
        pipe = base.pipe
        width = pipe.unet.config.cross_attention_dim
        torch.manual_seed(SEED)
        projection, norm = torch.nn.Linear(len(EXPRESSIONS), _TOKENS * width), torch.nn.LayerNorm(width)
        start = {
            "image_proj": {
                **{f"proj.{name}": value.detach() for name, value in projection.named_parameters()},
                **{f"norm.{name}": value.detach() for name, value in norm.named_parameters()},
            },
            "ip_adapter": _own_projections(pipe.unet),
        }
        pipe.load_ip_adapter(start, subfolder="", weight_name="", image_encoder_folder=None)
        pipe.unet.requires_grad_(False)
        self.project = pipe.unet.encoder_hid_proj.requires_grad_(True)
        self.attention = torch.nn.ModuleList(
            processor.requires_grad_(True)
            for processor in pipe.unet.attn_processors.values()
            if isinstance(processor, torch.nn.Module) and list(processor.parameters())
        )


def _own_projections(unet: Any) -> dict[str, torch.Tensor]:
    """Keys start as the UNet's, values at a tenth, so that the expression says little at first."""
    layers = [module for name, module in unet.named_modules() if name.endswith("attn2")]
    start = {}
    for index, layer in enumerate(_in_order(unet, layers)):
        start[f"{2 * index + 1}.to_k_ip.weight"] = layer.to_k.weight.detach().clone()
        start[f"{2 * index + 1}.to_v_ip.weight"] = 0.1 * layer.to_v.weight.detach()
    return start


def _in_order(unet: Any, layers: list[Any]) -> list[Any]:
    """As the UNet lists its attention processors, which is how an IP-Adapter numbers them."""
    by_name = {id(module): name for name, module in unet.named_modules()}
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return sorted(layers, key=lambda layer: names.index(by_name[id(layer)]))


def train_expression(folder: Path, steps: int, batch: int = 24) -> None:
    """Train it on noise prediction, with the expression of the very photograph."""
    base = FrozenBase(folder)
    model = _Expression(base)
    unet = base.pipe.unet

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        drawn = base.draw(batch, generator)
        expression = base.photographs.expressions[drawn.who, drawn.shot]
        predicted = unet(
            drawn.noisy,
            drawn.times,
            drawn.conditions,
            added_cond_kwargs={"image_embeds": [expression[:, None]]},
        ).sample
        loss = torch.nn.functional.mse_loss(predicted, drawn.noise)
        return loss, {"mse": float(loss.detach())}

    fit("expression", model, step, folder, FitSettings(steps, lr=1e-3, seed=SEED, ema=0.99, save_every=25))


def trained_adapter(folder: Path) -> dict[str, torch.Tensor]:
    """The trained IP-Adapter of ``folder``, by the names that diffusers reads from a file."""
    base = FrozenBase(folder)
    model = _Expression(base)
    model.load_state_dict(torch.load(folder / "expression.pt", weights_only=True)["average"])
    projection = model.project.image_projection_layers[0]
    weights = {
        "image_proj.proj.weight": projection.image_embeds.weight,
        "image_proj.proj.bias": projection.image_embeds.bias,
        "image_proj.norm.weight": projection.norm.weight,
        "image_proj.norm.bias": projection.norm.bias,
    }
    for index, processor in enumerate(model.attention):
        weights[f"ip_adapter.{2 * index + 1}.to_k_ip.weight"] = processor.to_k_ip[0].weight
        weights[f"ip_adapter.{2 * index + 1}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    return {name: value.detach().half().contiguous() for name, value in weights.items()}
