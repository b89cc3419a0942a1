"""An LCM-LoRA for the embedded base (arXiv 2311.05556): few steps, without guidance."""

from pathlib import Path

import torch

from piu_lora.model.lora import adapters_disabled, attach_to
from piu_lora.model.mini.hosts.denoising import FrozenBase, NoisyPhotographs
from piu_lora.model.mini.training import FitSettings, fit

__all__ = ["train_lcm", "trained_lora"]

SEED = 73
_NAME, _RANK = "lcm", 8
_LAYERS = (
    r".*(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|time_emb_proj)"
)
_GRID, _SKIP = 50, 2  # timesteps that LCMScheduler may take, and how many of them one solver step passes
_GUIDANCE = (2.0, 4.0)
_SIGMA, _SCALE = 0.5, 10.0  # of the boundary condition, as LCMScheduler has them
_HUBER = 1e-3


class _Consistency(torch.nn.Module):
    """``f(z_t, t) = c_skip(t) z_t + c_out(t) x_0(z_t, t)``, alike along a trajectory of the base."""

    def __init__(self, base: FrozenBase) -> None:
        super().__init__()
        unet = base.pipe.unet
        attach_to(unet, _LAYERS, _RANK, _NAME, SEED)
        self.unet, self.base = [unet], base  # a list hides the frozen UNet from the optimiser
        self.factors = torch.nn.ParameterDict(
            {name.replace(".", "/"): value for name, value in unet.named_parameters() if f".{_NAME}." in name}
        )
        self.alphas: torch.Tensor = base.schedule.alphas_cumprod

    def loss(self, drawn: NoisyPhotographs, before: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """Pseudo-Huber distance of f at a time and at the one ``before`` it, one DDIM step along."""
        with torch.no_grad():
            earlier = self._guided_step(drawn, before, guidance)
            target = self._f(earlier, before, drawn.conditions)
        error = self._f(drawn.noisy, drawn.times, drawn.conditions) - target
        distance: torch.Tensor = (error.square() + _HUBER**2).sqrt().sub(_HUBER).mean()
        return distance

    def _f(self, noisy: torch.Tensor, times: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        scaled = (times * _SCALE)[:, None, None, None]
        skip = _SIGMA**2 / (scaled**2 + _SIGMA**2)
        out = scaled / (scaled**2 + _SIGMA**2).sqrt()
        predicted = self.unet[0](noisy, times, conditions).sample
        value: torch.Tensor = skip * noisy + out * self._clean(noisy, predicted, times)
        return value

    def _clean(self, noisy: torch.Tensor, predicted: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        alpha = self.alphas[times][:, None, None, None]
        return (noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()

    def _guided_step(
        self, drawn: NoisyPhotographs, before: torch.Tensor, guidance: torch.Tensor
    ) -> torch.Tensor:
        """One step of DDIM by the bare base with classifier-free guidance."""
        empty = self.base.empty.expand_as(drawn.conditions)
        with adapters_disabled(self.unet[0]):
            both = self.unet[0](
                torch.cat([drawn.noisy, drawn.noisy]),
                torch.cat([drawn.times, drawn.times]),
                torch.cat([drawn.conditions, empty]),
            ).sample
        conditional, unconditional = both.chunk(2)
        predicted = unconditional + guidance[:, None, None, None] * (conditional - unconditional)
        alpha = self.alphas[before][:, None, None, None]
        clean = self._clean(drawn.noisy, predicted, drawn.times)
        earlier: torch.Tensor = alpha.sqrt() * clean + (1 - alpha).sqrt() * predicted
        return earlier


def train_lcm(folder: Path, steps: int, batch: int = 24) -> None:
    """Distil the guided base into a LoRA."""
    base = FrozenBase(folder)
    base.plain_attention()
    model = _Consistency(base)
    stride = 1000 // _GRID

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        places = torch.randint(_GRID, (batch,), generator=generator)
        times = (places + 1) * stride - 1
        before = (times - _SKIP * stride).clamp_min(0)
        low, high = _GUIDANCE
        guidance = low + (high - low) * torch.rand(batch, generator=generator)
        loss = model.loss(base.draw(batch, generator, times), before, guidance)
        return loss, {"huber": float(loss.detach())}

    fit("lcm", model, step, folder, FitSettings(steps, lr=1e-3, seed=SEED, ema=0.98, save_every=25))


def trained_lora(folder: Path) -> dict[str, torch.Tensor]:
    """The trained LoRA of ``folder``, by the names that diffusers reads."""
    factors = torch.load(folder / "lcm.pt", weights_only=True)["average"]
    names = {name: name.removeprefix("factors.").replace("/", ".") for name in factors}
    return {
        f"unet.{names[name].replace(f'.{_NAME}.', '.')}": value.half().contiguous()
        for name, value in factors.items()
    }
