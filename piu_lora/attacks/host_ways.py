"""The ways themselves: samplers, inputs, pipelines and second adapters that hosts of Arc2Face use."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)

from piu_lora.adapter import Factors, mounted, save_diffusers
from piu_lora.adapter.pinning import pin
from piu_lora.attacks.hosting import Host, way
from piu_lora.identity import centroid, normalize
from piu_lora.model.mini.hosts.photographs import EXPRESSIONS, average_surface

__all__ = ["second_lora"]

_FEW = {"num_inference_steps": 4, "guidance_scale": 1.0}  # as LCM is used
_STRENGTH = 0.8  # of img2img
_RIDGE = 1e-2  # of the map from a foreign recognizer, as a share of the mean diagonal


def _plain(host: Host, pipe: StableDiffusionPipeline, **options: Any) -> torch.Tensor:
    return host.sample(pipe, host.encode(host.embeddings, pipe), **options)


@contextmanager
def _sampler(pipe: StableDiffusionPipeline, kind: Any) -> Iterator[None]:
    before = pipe.scheduler
    # DDIM clips to what pixels may be unless it is told not to, as Stable Diffusion's own configs do.
    latent = {"clip_sample": False} if kind is DDIMScheduler else {}
    pipe.scheduler = kind.from_config(before.config, **latent)
    try:
        yield
    finally:
        pipe.scheduler = before


@way("bare")
def bare(host: Host) -> torch.Tensor:
    """The pipeline as it is meant to be used."""
    return _plain(host, host.pipe)


@way("DDIM")
def ddim(host: Host) -> torch.Tensor:
    """Another sampler."""
    with _sampler(host.pipe, DDIMScheduler):
        return _plain(host, host.pipe)


@way("Euler")
def euler(host: Host) -> torch.Tensor:
    """Another sampler."""
    with _sampler(host.pipe, EulerDiscreteScheduler):
        return _plain(host, host.pipe)


@way("guidance 1")
def unguided(host: Host) -> torch.Tensor:
    """Without classifier-free guidance."""
    return _plain(host, host.pipe, guidance_scale=1.0)


@way("LCM sampler")
def lcm_sampler(host: Host) -> torch.Tensor:
    """Four steps without guidance, without the LoRA that belongs to it."""
    with _sampler(host.pipe, LCMScheduler):
        return _plain(host, host.pipe, **_FEW)


@way("negative prompt")
def negative(host: Host) -> torch.Tensor:
    """A negative prompt with text."""
    text = ["photo of person"] * host.config.images
    return _plain(host, host.pipe, negative_prompt_embeds=None, negative_prompt=text)


@way("pooled photographs")
def pooled(host: Host) -> torch.Tensor:
    """One embedding of several photographs, as nodes pool them."""
    pool = centroid(host.who.embeddings)[None].expand(host.config.images, -1)
    return host.sample(host.pipe, host.encode(pool))


@way("morph 75 %")
def morph(host: Host) -> torch.Tensor:
    """Three quarters of the person's condition and one of somebody else's (Arc2Morph, arXiv 2602.16569)."""
    return host.sample(host.pipe, 0.75 * host.encode(host.embeddings) + 0.25 * host.encode(host.others))


@way("morph 50 %")
def half_morph(host: Host) -> torch.Tensor:
    """Halfway between two people's conditions."""
    return host.sample(host.pipe, 0.5 * host.encode(host.embeddings) + 0.5 * host.encode(host.others))


@way("foreign recognizer")
def foreign(host: Host) -> torch.Tensor:
    """Photographs read by the judging recognizer, mapped linearly into the conditioning one's space, as
    Idiap's adapter does (arXiv 2411.03960).
    """
    judge, bank = host.context.galleries[-1], host.context.bank
    away = {person.row for person in (*host.context.people, host.context.control)}
    rows = [row for row in range(min(len(bank), len(judge.centroids))) if row not in away]
    inputs, outputs = judge.centroids[rows].double(), bank.centroids[rows].double()
    system = inputs.T @ inputs
    system.diagonal().add_(_RIDGE * system.diagonal().mean())
    read = judge.embed(host.who.photos).double()
    mapped = normalize((read @ torch.linalg.solve(system, inputs.T @ outputs)).float())
    return host.sample(host.pipe, host.encode(mapped[torch.arange(host.config.images) % len(mapped)]))


@way("img2img")
def img2img(host: Host) -> torch.Tensor:
    """Somebody else's photograph redrawn."""
    pipe = StableDiffusionImg2ImgPipeline(**host.pipe.components, requires_safety_checker=False)
    conditions = host.encode(host.embeddings)
    return host.sample(pipe, conditions, image=host.other_photographs, strength=_STRENGTH)


@way("inpainting", photograph=True)
def inpainting(host: Host) -> torch.Tensor:
    """The face of a photograph of the person drawn anew in its surroundings (RePaint, arXiv 2201.09865)."""
    pipe = host.pipe
    photos = host.who.photos[torch.arange(host.config.images) % len(host.who.photos)]
    latents = _latents(pipe, photos)
    noise = torch.randn(latents.shape, generator=host.context.generator("inpainting")).to(latents)
    height, width = latents.shape[-2:]
    inside = torch.zeros(1, 1, height, width, device=latents.device)
    inside[..., height // 6 : height - height // 6, width // 6 : width - width // 6] = 1

    def around(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        steps = pipe.scheduler.timesteps
        known = latents
        if step + 1 < len(steps):
            known = pipe.scheduler.add_noise(latents, noise, steps[step + 1].expand(len(latents)))
        return {"latents": inside * values["latents"] + (1 - inside) * known}

    return _plain(host, pipe, callback_on_step_end=around)


@torch.no_grad()
def _latents(pipe: StableDiffusionPipeline, photos: torch.Tensor) -> torch.Tensor:
    encoded = pipe.vae.encode((photos * 2 - 1).to(pipe.device, pipe.vae.dtype)).latent_dist.mean
    latents: torch.Tensor = encoded * pipe.vae.config.scaling_factor
    return latents


@way("reference UNet")
def reference_unet(host: Host) -> torch.Tensor:
    """An untouched second UNet sees somebody else's photograph under the person's condition, and the edited
    one's self-attention reads its features, as the expression demo does.
    """
    pipe, conditions = host.copied(), host.encode(host.embeddings)
    negative = host.empty(len(conditions))
    latents = _latents(pipe, host.other_photographs)
    inputs: dict[str, torch.Tensor] = {}
    untouched = host.context.pipe.unet
    handles = [
        layer.register_forward_pre_hook(_keeping(inputs, name)) for name, layer in _self_attention(untouched)
    ]
    try:
        with torch.no_grad():
            untouched(torch.cat([latents, latents]).to(untouched.dtype), 0, torch.cat([negative, conditions]))
    finally:
        for handle in handles:
            handle.remove()
    for name, layer in _self_attention(pipe.unet):
        layer.register_forward_pre_hook(_reading(inputs[name]), with_kwargs=True)
    return host.sample(pipe, conditions)


def _self_attention(unet: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    return [(name, module) for name, module in unet.named_modules() if name.endswith(".attn1")]


def _keeping(stored: dict[str, torch.Tensor], name: str) -> Any:
    def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        stored[name] = inputs[0].detach()

    return hook


def _reading(features: torch.Tensor) -> Any:
    def hook(_module: torch.nn.Module, inputs: Any, keywords: dict[str, Any]) -> Any:
        both = features[-len(inputs[0]) :].to(inputs[0])
        return inputs, {**keywords, "encoder_hidden_states": torch.cat([inputs[0], both], dim=1)}

    return hook


@way("ControlNet", needs="controlnet")
def controlnet(host: Host) -> torch.Tensor:
    """A ControlNet that is fed the same condition; its image is the surface of an average head."""
    assert host.trained is not None
    control = ControlNetModel.from_pretrained(host.trained / "controlnet", torch_dtype=torch.float32)
    pipe = StableDiffusionControlNetPipeline(
        **host.pipe.components, controlnet=control.to(host.pipe.device), requires_safety_checker=False
    )
    image = average_surface(host.config.images, host.context.generator("controlnet"))
    return host.sample(pipe, host.encode(host.embeddings), image=image)


@way("expression adapter", needs="expression.safetensors")
def expression(host: Host) -> torch.Tensor:
    """An IP-Adapter that is led by an expression."""
    return _with_expression(host, host.copied())


def _with_expression(host: Host, pipe: StableDiffusionPipeline) -> torch.Tensor:
    assert host.trained is not None
    pipe.load_ip_adapter(
        str(host.trained), subfolder="", weight_name="expression.safetensors", image_encoder_folder=None
    )
    drawn = torch.rand(
        host.config.images, 1, len(EXPRESSIONS), generator=host.context.generator("expression")
    )
    led = torch.cat([torch.zeros_like(drawn), drawn * 2 - 1])
    return _plain(host, pipe, ip_adapter_image_embeds=[led.to(pipe.device)])


@way("LCM-LoRA", needs="lcm.safetensors")
def lcm_lora(host: Host) -> torch.Tensor:
    """Four steps without guidance, by the LoRA for it, loaded into a fused base."""
    pipe = host.copied()
    pipe.load_lora_weights(str(host.trained), weight_name="lcm.safetensors")
    with _sampler(pipe, LCMScheduler):
        return _plain(host, pipe, **_FEW)


@way("demo, LoRA off")
def demo_without(host: Host) -> torch.Tensor:
    """A fused base after the demo's calls: a second LoRA loaded, then ``disable_lora()``."""
    return _as_the_demo(host, host.copied(), lora=False)


@way("demo, LoRA on")
def demo_with(host: Host) -> torch.Tensor:
    """The same, then ``enable_lora()``."""
    return _as_the_demo(host, host.copied(), lora=True)


@way("demo, LoRA off, pinned adapter")
def pinned_without(host: Host) -> torch.Tensor:
    """The same calls on a pinned adapter."""
    with _adapter(host, pinned=True) as pipe:
        return _as_the_demo(host, pipe, lora=False)


@way("demo, LoRA on, pinned adapter")
def pinned_with(host: Host) -> torch.Tensor:
    """The same calls on a pinned adapter, then ``enable_lora()``."""
    with _adapter(host, pinned=True) as pipe:
        return _as_the_demo(host, pipe, lora=True)


@way("expression demo, pinned adapter")
def pinned_expression(host: Host) -> torch.Tensor:
    """An IP-Adapter where the base has one, a LoRA called ``ref``, and ``set_adapters("ref")``."""
    with _adapter(host, pinned=True) as pipe:
        _load_random(pipe, "ref")
        pipe.set_adapters("ref", 0.5)
        return _with_expression(host, pipe) if host.trained else _plain(host, pipe)


@way("second LoRA, stock adapter", counted=False)
def stock(host: Host) -> torch.Tensor:
    """An adapter that is not pinned, and any second LoRA: stock diffusers switches the first one off."""
    with _adapter(host, pinned=False) as pipe:
        _load_random(pipe)
        return _plain(host, pipe)


@contextmanager
def _adapter(host: Host, *, pinned: bool) -> Iterator[StableDiffusionPipeline]:
    """A copy of the bare base that carries the change as an adapter."""
    pipe = Host(host.context, host.config, {}, host.who).copied()
    if not host.change:
        yield pipe
        return
    with mounted(pipe, host.change):
        if pinned:
            pin(pipe, ["mounted"])
        yield pipe


def _as_the_demo(host: Host, pipe: StableDiffusionPipeline, *, lora: bool) -> torch.Tensor:
    """What the official demo calls: it loads its LCM-LoRA, and switches it off, and on again where asked for;
    any LoRA stands for it where a base has none.
    """
    if host.trained:
        pipe.load_lora_weights(str(host.trained), weight_name="lcm.safetensors", adapter_name="lcm-lora")
    else:
        _load_random(pipe, "lcm-lora")
    pipe.disable_lora()
    if not lora:
        return _plain(host, pipe)
    pipe.enable_lora()
    if not host.trained:
        return _plain(host, pipe)
    with _sampler(pipe, LCMScheduler):
        return _plain(host, pipe, **_FEW)


def _load_random(pipe: StableDiffusionPipeline, name: str | None = None) -> None:
    with TemporaryDirectory() as folder:
        pipe.load_lora_weights(str(second_lora(pipe, Path(folder))), adapter_name=name)


def second_lora(pipe: StableDiffusionPipeline, folder: Path) -> Path:
    """A small random LoRA on the self-attention: it stands for one that changes the style."""
    generator = torch.Generator().manual_seed(0)
    change = {
        f"unet.{name}": Factors(
            torch.randn(4, layer.in_features, generator=generator),
            0.002 * torch.randn(layer.out_features, 4, generator=generator),
        )
        for name, layer in pipe.unet.named_modules()
        if name.endswith((".attn1.to_q", ".attn1.to_k", ".attn1.to_v")) and isinstance(layer, torch.nn.Linear)
    }
    path = folder / "second.safetensors"
    save_diffusers(change, path)
    return path
