"""Inversion: is there another condition that still draws the person through the adapted model?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field

from piu_lora.adapter import Change
from piu_lora.attacks.config import AttackSettings, AuditConfig
from piu_lora.attacks.context import AttackContext, ProbedIdentity
from piu_lora.attacks.control import made_up_identity
from piu_lora.attacks.denoise import Noisy, denoising_loss, draw_noisy
from piu_lora.attacks.judge import COLUMNS, AttackTable, Judgement, criterion, curve, judge_images, series
from piu_lora.attacks.registry import Outcome, attack
from piu_lora.model import encode_embeddings, training_attention
from piu_lora.settings import Amount, Count, Positive
from piu_lora.unlearn.baselines.pictures import latents_of
from piu_lora.unlearn.baselines.wid import decode, one_step

__all__ = ["Inversion", "InversionSettings", "inversion", "inverted"]


class InversionSettings(AttackSettings, section="audit.inversion"):
    """The optimisation of the condition."""

    steps: int = Field(80, ge=0, description="of Adam")
    batch: Count = Field(8, description="noised photographs in a step")
    lr: Positive = Field(0.02, description="learning rate")
    every: Count = Field(20, description="steps between two judgements")
    guidance: Amount = Field(1.0, description="weight of the recognizer's loss, in the variant that has it")


@dataclass(frozen=True)
class Inversion:
    """One way to invert.

    Attributes:
        name: of its figure.
        token: whether the encoder's whole token embedding is free, (hidden,), instead of the unit vector,
            (d,).
        from_person: whether it starts from the person's own centroid instead of from nobody.
        guided: whether the recognizer helps.
    """

    name: str
    label: str
    token: bool = False
    from_person: bool = False
    guided: bool = False


_VARIANTS = (
    Inversion("vector_own", "vector, from the person's own", from_person=True),
    Inversion("vector_random", "vector, from nobody's"),
    Inversion("token_own", "token, from the person's own", token=True, from_person=True),
    Inversion("token_random", "token, from nobody's", token=True),
    Inversion("guided", "vector, from nobody's, recognizer-guided", guided=True),
)


@attack(
    "inversion",
    "Inversion",
    "Can another condition be found that draws the person through the adapter?",
    settings=InversionSettings,
    quick={"steps": 2, "batch": 2, "every": 1},
    long=True,
)
def inversion(context: AttackContext, config: AuditConfig) -> Outcome:
    """Optimise the vector, and separately the raw token embedding, by the denoising loss on photographs of
    the person.

    Controls, all from nobody's vector: the same on the untouched base, through random weights, and for a
    person not forgotten.
    """
    settings = config.section_of(InversionSettings)
    table, curves = AttackTable(), []
    best: dict[str, float] = {}
    first: dict[str, int] = {}
    variants = [variant for variant in _VARIANTS if not variant.guided or context.recognise is not None]
    for who in context.people[: config.people]:
        lines = []
        for variant, person, change, model, figure in _runs(context, variants, who):
            steps, judgements = _run(context, config, variant, person, change, model, table)
            best[figure] = max(best.get(figure, 0.0), *(judgement.share for judgement in judgements))
            back = [step for step, judged in zip(steps, judgements, strict=True) if judged.back(config)]
            if back:
                first[figure] = min(first.get(figure, back[0]), back[0])
            isms = [judgement.ism for judgement in judgements]
            lines.append(series(f"{person.label}, {model}, {variant.label}", steps, isms))
        threshold = context.galleries[-1].threshold(config.far)
        curves.append(curve(f"Inversion: {who.label}", "steps", "ISM", lines, threshold))
    tried = [variant for variant in variants if best[variant.name] >= config.share]
    figures: dict[str, float | int | None] = {variant.name: best.get(variant.name) for variant in _VARIANTS}
    figures |= {name: best[name] for name in ("control_untouched", "control_random", "control_person")}
    figures["best"] = max(best[variant.name] for variant in variants)
    quickest = min((first[variant.name] for variant in tried), default=None)
    figures |= {
        "steps": quickest,
        "control_steps_untouched": first.get("control_untouched"),
        "control_steps_person": first.get("control_person"),
    }
    return Outcome(
        bool(tried),
        f"{criterion(config)}, at any judgement within the budget",
        _finding(context, [variant.label for variant in tried], figures),
        f"{len(variants)} variants x {settings.steps} steps of Adam x {settings.batch}, "
        f"{context.people[0].source}",
        figures,
        COLUMNS,
        table.rows,
        curves,
    )


def _runs(
    context: AttackContext, variants: Sequence[Inversion], who: ProbedIdentity
) -> list[tuple[Inversion, ProbedIdentity, Change, str, str]]:
    """What is tried for a person: the variant, on whom, through which change, in words, and its figure."""
    plain = _VARIANTS[1]
    runs = [(variant, who, context.change, "adapter on", variant.name) for variant in variants]
    runs += [
        (plain, who, {}, "untouched base", "control_untouched"),
        (plain, who, context.random, "random weights", "control_random"),
    ]
    if who is context.people[0]:
        runs.append((plain, context.control, context.change, "adapter on", "control_person"))
    return runs


def _finding(
    context: AttackContext, successful: Sequence[str], figures: dict[str, float | int | None]
) -> str:
    unguided = (
        ""
        if context.recognise is not None
        else "; no differentiable recognizer is at hand, so the guided variant was left out"
    )
    return (
        f"at best {figures['best']:.0%} of the images verify "
        f"({', '.join(successful) or 'no way succeeds'}), first {_after(figures['steps'])}; from nobody's "
        f"vector on the untouched base {figures['control_untouched']:.0%}, first "
        f"{_after(figures['control_steps_untouched'])}, through random weights of equal norm "
        f"{figures['control_random']:.0%}, for a control who is not forgotten "
        f"{figures['control_person']:.0%}{unguided}"
    )


def _after(steps: float | None) -> str:
    return "never" if steps is None else f"after {steps} steps"


def _run(
    context: AttackContext,
    config: AuditConfig,
    variant: Inversion,
    who: ProbedIdentity,
    change: Change,
    model: str,
    table: AttackTable,
) -> tuple[list[int], list[Judgement]]:
    nobody = made_up_identity(context.bank, who.centre[None], context.generator(f"start for {who.label}"))
    steps, judgements = [], []
    with context.changed(change):
        begin = who.centre if variant.from_person else nobody
        for step, condition in inverted(context, config, variant, who, begin):
            images = context.draw(condition.expand(config.images, -1), config)
            steps.append(step)
            judgements.append(
                table.add(
                    f"{variant.label}, step {step}",
                    who.label,
                    model,
                    judge_images(context.galleries, images, who.row, config.far),
                )
            )
    return steps, judgements


def inverted(
    context: AttackContext, config: AuditConfig, variant: Inversion, who: ProbedIdentity, start: torch.Tensor
) -> Iterator[tuple[int, torch.Tensor]]:
    """Optimise a condition through the pipeline as it is: pairs of the steps made and what was found, (1, d)
    or (1, hidden).

    Args:
        start: (d,) unit vector.
    """
    settings = config.section_of(InversionSettings)
    pipe, unit = context.pipe, not variant.token
    hidden = pipe.text_encoder.config.hidden_size
    first = start[None] if unit else torch.nn.functional.pad(start[None], (0, hidden - len(start)))
    free = first.to(pipe.device, torch.float32).clone().requires_grad_()
    yield 0, free.detach().cpu()
    generator, latents = (
        context.generator(f"inversion for {who.label}"),
        latents_of(pipe, who.photos, config.batch),
    )
    optimizer = torch.optim.Adam([free], lr=settings.lr)
    for step in range(1, settings.steps + 1):
        batch = draw_noisy(pipe, latents, settings.batch, generator)
        optimizer.zero_grad(set_to_none=True)
        with training_attention(pipe.unet):
            condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, free)
            loss, predicted = denoising_loss(pipe, batch, condition.expand(len(batch.chosen), -1, -1))
            if variant.guided:
                loss = loss + settings.guidance * _recognizer_loss(context, batch, predicted, who)
            # Only the condition's gradient: the model's own would be gathered for nobody.
            loss.backward(inputs=[free])
        optimizer.step()
        if unit:
            with torch.no_grad():
                free.copy_(torch.nn.functional.normalize(free, dim=1))
        if step % settings.every == 0 or step == settings.steps:
            yield step, free.detach().cpu()


def _recognizer_loss(
    context: AttackContext, batch: Noisy, predicted: torch.Tensor, who: ProbedIdentity
) -> torch.Tensor:
    """``mean_t a_t (1 - cos(R(D(x_0)), e))``: one-step images as the recognizer sees them; noisier ones count
    less.
    """
    if context.recognise is None:
        raise ValueError("the guided variant needs a differentiable recognizer")
    clean = one_step(batch.schedule, batch.latents.float(), batch.times, predicted)
    recognised = context.recognise(decode(context.pipe, clean.to(context.pipe.vae.dtype)).float())
    signal = batch.schedule.alphas_cumprod.to(clean.device)[batch.times]
    loss: torch.Tensor = (signal * (1 - recognised @ who.centre.to(recognised))).mean()
    return loss
