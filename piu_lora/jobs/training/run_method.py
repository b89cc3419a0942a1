"""From a request to the change that answers it: solved, trained, or trained from a closed form."""

import torch

from piu_lora.adapter import Change
from piu_lora.errors import BadInput
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session
from piu_lora.jobs.training.bank_geometry import retained_geometry
from piu_lora.jobs.training.bank_statistics import retained_averages, retained_second_moments
from piu_lora.jobs.training.train import TrainingRun, train_change
from piu_lora.model.factors import component
from piu_lora.unlearn import Solution, SolveContext, find_method, training_facts

__all__ = ["as_stored", "run_method", "solve_context"]


def run_method(
    session: Session, request: ErasureRequest, run: TrainingRun
) -> tuple[Solution, list[dict[str, float]]]:
    """Run the request's method; the pipeline is given back as it was.

    Returns:
        The change with what is worth knowing of it, and the terms of every training step's loss.

    Raises:
        BadInput: an unknown method; ``train.start`` is no closed form, or does not fit the method.
    """
    method, family = find_method(request.config.method), session.family
    if method.build is not None:
        family.require_component(method.component, method.name)
    solve, start = method.solve, request.config.train.start
    begin = None
    if solve is None and start:
        begin = find_method(start).solve
        if begin is None:
            raise BadInput(f"train.start = {start!r} is trained itself; expected a closed form")
    context = solve_context(session, request)
    if solve is not None:
        solution = solve(request.problem, context, request.config)
        for part in sorted({component(module) for module in solution.change}):
            family.require_component(part, method.name)
        return solution, []
    first = begin(request.problem, context, request.config) if begin else Solution({})
    change, history = train_change(session, request, method, first.change, run)
    facts = training_facts(history, request.config.train)
    if method.complete is None:
        return Solution(change, facts), history
    completed = method.complete(request.problem, context, request.config, change)
    return Solution(completed.change, {**completed.facts, **facts}), history


def solve_context(session: Session, request: ErasureRequest) -> SolveContext:
    """What a closed form may ask of the base and the bank; nothing is measured before it is asked for."""
    return SolveContext(
        session.pipe,
        lambda modules: retained_second_moments(session, request, modules),
        lambda: retained_geometry(request),
        lambda measurement: retained_averages(session, request, measurement),
    )


def as_stored(change: Change) -> Change:
    """A change with the digits that an adapter folder keeps, half precision, as float32."""
    return {module: factors.to(torch.float16).to(torch.float32) for module, factors in change.items()}
