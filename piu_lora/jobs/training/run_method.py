"""From a request to the change that answers it: solved, trained, or trained from a closed form."""

from diffusers import StableDiffusionPipeline

from piu_lora.adapter import OutputFolder
from piu_lora.errors import BadInput
from piu_lora.jobs.request.request import Case
from piu_lora.jobs.training.bank_statistics import retained_moments
from piu_lora.jobs.training.train import train_change
from piu_lora.progress import Progress
from piu_lora.unlearn import Ground, Method, Solution, TrainState, Workers, find_method, training_facts

__all__ = ["make_change"]


def make_change(
    pipe: StableDiffusionPipeline, method: Method, case: Case, output: OutputFolder, state: TrainState | None, workers: Workers,
    progress: Progress,
) -> tuple[Solution, list[dict[str, float]]]:  # fmt: skip
    """Run a method; the pipeline is given back as it was.

    Returns:
        The change with what is worth knowing of it, and the terms of every training step's loss.

    Raises:
        BadInput: ``train.start`` is no closed form, or does not fit the method.
    """
    solve, start = method.solve, case.config.train.start
    begin = None
    if solve is None and start:
        begin = find_method(start).solve
        if begin is None:
            raise BadInput(f"train.start = {start!r} is trained itself; expected a closed form")
    ground = Ground(pipe, lambda modules: retained_moments(pipe, case, modules, progress))
    if solve is not None:
        return solve(case.problem, ground, case.config), []
    first = begin(case.problem, ground, case.config) if begin else Solution({})
    change, history = train_change(pipe, method, first.change, case, output, state, workers, progress)
    facts = training_facts(history, case.config.train)
    if method.complete is None:
        return Solution(change, facts), history
    whole = method.complete(case.problem, ground, case.config, change)
    return Solution(whole.change, {**whole.facts, **facts}), history
