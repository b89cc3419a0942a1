"""From a request to the change that answers it: solved, trained, or trained from a closed form."""

from diffusers import StableDiffusionPipeline

from piu_lora.adapter import OutputFolder
from piu_lora.errors import BadInput
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.training.bank_statistics import retained_second_moments
from piu_lora.jobs.training.train import train_change
from piu_lora.model import describe
from piu_lora.model.factors import component
from piu_lora.progress import Progress
from piu_lora.unlearn import Method, Solution, SolveContext, TrainState, Workers, find_method, training_facts

__all__ = ["run_method"]


def run_method(
    pipe: StableDiffusionPipeline, method: Method, request: ErasureRequest, output: OutputFolder, state: TrainState | None, workers: Workers,
    progress: Progress,
) -> tuple[Solution, list[dict[str, float]]]:  # fmt: skip
    """Run a method; the pipeline is given back as it was.

    Returns:
        The change with what is worth knowing of it, and the terms of every training step's loss.

    Raises:
        BadInput: ``train.start`` is no closed form, or does not fit the method.
    """
    family = describe(pipe).family
    if method.build is not None:
        family.require_component(method.component, method.name)
    solve, start = method.solve, request.config.train.start
    begin = None
    if solve is None and start:
        begin = find_method(start).solve
        if begin is None:
            raise BadInput(f"train.start = {start!r} is trained itself; expected a closed form")
    context = SolveContext(pipe, lambda modules: retained_second_moments(pipe, request, modules, progress))
    if solve is not None:
        solution = solve(request.problem, context, request.config)
        for part in sorted({component(module) for module in solution.change}):
            family.require_component(part, method.name)
        return solution, []
    first = begin(request.problem, context, request.config) if begin else Solution({})
    change, history = train_change(pipe, method, first.change, request, output, state, workers, progress)
    facts = training_facts(history, request.config.train)
    if method.complete is None:
        return Solution(change, facts), history
    whole = method.complete(request.problem, context, request.config, change)
    return Solution(whole.change, {**whole.facts, **facts}), history
