"""The closed forms as methods: whose conditions, which layers, which systems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import synthetic_neighbours
from piu_lora.identity.constants import Counts, value_of
from piu_lora.model import (
    TokenSample,
    add_second_moments,
    empty_inputs,
    encode_embeddings,
    identity_position,
    layer_inputs,
    layer_weight,
    prompt_of,
)
from piu_lora.model.factors import Factors
from piu_lora.unlearn.closed.encoder import edited, encoder_modules, solve_encoder
from piu_lora.unlearn.closed.kv import condition_second_moments, kv_modules, shared_edit
from piu_lora.unlearn.closed.settings import ClosedConfig
from piu_lora.unlearn.closed.solve import Edit, SecondMoments, solve_edit
from piu_lora.unlearn.dial import Range
from piu_lora.unlearn.forget_conditions import find_draw
from piu_lora.unlearn.registry import Problem, Solution, SolveContext, closed_form, shares

__all__ = ["condition_module", "statistics_modules", "with_keys_and_values"]

# A synthetic anchor makes nobody the replacement.
_DEFAULTS = {"anchor": {"rule": "synthetic"}}


def condition_module(pipe: StableDiffusionPipeline) -> str:
    """The layer that stands for all that see the condition: the cross-attention's first key projection."""
    return next(f"unet.{name}" for name, _ in pipe.unet.named_modules() if name.endswith("attn2.to_k"))


def statistics_modules(pipe: StableDiffusionPipeline) -> list[str]:
    """The layers whose inputs the closed forms need second moments of."""
    return [*encoder_modules(pipe.text_encoder, 0), condition_module(pipe)]


@dataclass
class _Setting:
    """One erasure request, ready to be solved."""

    pipe: StableDiffusionPipeline
    config: ForgetConfig
    people: list[
        tuple[torch.Tensor, torch.Tensor]
    ]  # mixtures (n, d) and anchor (d,) of each, on the pipeline's device
    retained: Mapping[str, torch.Tensor]  # second moments, neighbours and empty prompt among them

    @classmethod
    def of(
        cls, problem: Problem, context: SolveContext, config: ForgetConfig, modules: Sequence[str]
    ) -> "_Setting":
        pipe, closed = context.pipe, config.section_of(ClosedConfig)
        generator, draw = torch.Generator().manual_seed(config.seed), find_draw(closed.drawn)
        people = [
            (
                draw(target.forget, context.geometry, closed.mixtures, generator).to(pipe.device),
                target.anchor.to(pipe.device),
            )
            for target in problem.targets
        ]
        chosen = torch.randint(len(problem.retain), (closed.near,), generator=generator)
        low, high = _band(problem, context, config)
        near = synthetic_neighbours(
            problem.centres[shares(len(people), closed.near, generator)],
            problem.retain[chosen],
            low,
            high,
            generator,
        )
        retained = context.retained(
            modules
        )  # on a real base, a set of these takes a gigabyte: there is never a second one
        for moment in retained.values():
            moment.mul_(1 - closed.neighbours)
        if closed.neighbours:
            tokens = TokenSample.of(pipe.tokenizer, closed.positions, prompt=prompt_of(pipe.text_encoder))
            inputs = layer_inputs(pipe, modules, near, generator, batch=64, tokens=tokens)
            add_second_moments(retained, inputs, closed.neighbours / len(near), tokens)
        add_second_moments(retained, empty_inputs(pipe, modules, generator), closed.empty_weight)
        anchors = layer_inputs(pipe, modules, problem.anchors, generator)
        add_second_moments(retained, anchors, closed.anchor_weight / len(problem.anchors))
        return cls(pipe, config, people, retained)

    @property
    def closed(self) -> ClosedConfig:
        """The settings of the closed forms."""
        return self.config.section_of(ClosedConfig)

    def encode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Conditions, as the encoder makes them at the moment."""
        with torch.no_grad():
            return encode_embeddings(self.pipe.text_encoder, self.pipe.tokenizer, embeddings)

    def carried(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The positions of the conditions that carry the identity."""
        return self.encode(embeddings)[:, self.first :]

    @property
    def first(self) -> int:
        """The first token position that carries the identity."""
        return identity_position(self.pipe.tokenizer, prompt_of(self.pipe.text_encoder))

    def solve(self, moments: SecondMoments, retained: torch.Tensor) -> Edit:
        """One ridge regression with the settings of the request."""
        closed = self.closed
        return solve_edit(
            moments,
            retained,
            retain_weight=closed.retain_weight,
            ridge=closed.ridge,
            tolerance=closed.tolerance,
            rank=closed.rank,
        )

    def encoder(self) -> dict[str, Edit]:
        """closed-encoder's layers."""
        encoder = self.pipe.text_encoder
        return solve_encoder(
            encoder,
            self.encode,
            encoder_modules(encoder, self.closed.layers),
            self.people,
            self.first,
            self.closed.eta,
            lambda module, moments: self.solve(moments, self.retained[module]),
        )

    def keys_and_values(self, preserved: torch.Tensor | None = None) -> tuple[dict[str, Factors], Edit]:
        """closed-kv's layers.

        Args:
            kept: further conditions (n, tokens, hidden) that must stay as they are.
        """
        pairs = ((self.carried(mixtures), self.carried(anchor[None])) for mixtures, anchor in self.people)
        retained = self.retained[condition_module(self.pipe)]
        if preserved is not None:
            rows = preserved.flatten(0, -2).cpu().double()
            retained = retained + rows.T @ rows / len(rows)
        edit = self.solve(condition_second_moments(pairs, self.closed.eta), retained)
        modules = kv_modules((name for name, _ in self.pipe.unet.named_modules()), self.config.lora.blocks)
        if not modules:
            raise BadInput(f"lora.blocks = {self.config.lora.blocks} holds no cross-attention of this UNet")
        return shared_edit(edit, ((module, layer_weight(self.pipe, module)) for module in modules)), edit


def _band(problem: Problem, context: SolveContext, config: ForgetConfig) -> tuple[float, float]:
    """The cosines of synthetic neighbours. Where photographs that the person might have are forgotten, none
    of these is kept at the same time: neighbours are no nearer than 98 % of them.
    """
    counts = Counts(problem.fewest_photographs)
    low, high = (
        value_of(f"retain.{name}", getattr(config.retain, name), context.geometry, counts)
        for name in ("neighbour_low", "neighbour_high")
    )
    if config.section_of(ClosedConfig).drawn != "variation":
        return low, high
    geometry = context.geometry()
    reached = min(geometry.reach(len(target.forget)).quantile(0.02) for target in problem.targets)
    return low, max(min(high, reached), low + 0.01)


def _facts(edits: Sequence[Edit]) -> dict[str, object]:
    return {
        "kept_energy": round(min(edit.energy_kept for edit in edits), 6),
        "condition": float(f"{max(edit.condition for edit in edits):.2g}"),
        "ranks": [edit.factors.rank for edit in edits],
    }


_SEARCH = (
    Range("closed.eta", 0.0, 1.0, relative=False, log=False),
    Range("closed.retain_weight", 0.1, 10),
    Range("closed.ridge", 0.01, 100),
)
_closed = partial(closed_form, settings=ClosedConfig, defaults=_DEFAULTS, search=_SEARCH)


@_closed("closed-kv", "closed form on keys and values", "after UCE, arXiv 2308.14761, token-wise")
def closed_kv(problem: Problem, context: SolveContext, config: ForgetConfig) -> Solution:
    """``to_k`` and ``to_v`` read the forgotten person's condition as the anchor's: one edit of the condition,
    shared by all layers.
    """
    change, edit = _Setting.of(problem, context, config, [condition_module(context.pipe)]).keys_and_values()
    return Solution(change, _facts([edit]))


@_closed("closed-encoder", "closed form on the text encoder", "after MEMIT, arXiv 2210.07229")
def closed_encoder(problem: Problem, context: SolveContext, config: ForgetConfig) -> Solution:
    """The encoder writes the anchor's condition where it reads the forgotten person's embedding."""
    modules = encoder_modules(context.pipe.text_encoder, config.section_of(ClosedConfig).layers)
    edits = _Setting.of(problem, context, config, modules).encoder()
    return Solution({module: edit.factors for module, edit in edits.items()}, _facts(list(edits.values())))


@_closed("closed-both", "closed form on text encoder, keys and values", "MEMIT and UCE")
def closed_both(problem: Problem, context: SolveContext, config: ForgetConfig) -> Solution:
    """Both, so that neither the edited encoder nor the edited UNet alone still generates the person.

    The keys and values are solved for the *unedited* encoder's conditions of the person, and keep those of
    the edited one, which are the anchor's already.
    """
    modules = [
        *encoder_modules(context.pipe.text_encoder, config.section_of(ClosedConfig).layers),
        condition_module(context.pipe),
    ]
    setting = _Setting.of(problem, context, config, modules)
    edits = setting.encoder()
    encoder = {module: edit.factors for module, edit in edits.items()}
    unet, edit = _beside(setting, encoder)
    return Solution({**encoder, **unet}, _facts([*edits.values(), edit]))


def with_keys_and_values(
    problem: Problem, context: SolveContext, config: ForgetConfig, encoder: Mapping[str, Factors]
) -> Solution:
    """Add closed-kv's layers to a finished change of the text encoder, as ``closed-both`` does to its own."""
    unet, edit = _beside(_Setting.of(problem, context, config, [condition_module(context.pipe)]), encoder)
    return Solution({**encoder, **unet}, _facts([edit]))


def _beside(setting: _Setting, encoder: Mapping[str, Factors]) -> tuple[dict[str, Factors], Edit]:
    with edited(setting.pipe.text_encoder, encoder):
        replaced = torch.cat([setting.carried(mixtures) for mixtures, _ in setting.people])
    return setting.keys_and_values(replaced)
