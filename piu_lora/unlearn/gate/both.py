"""gate-both: gate neurons in the text encoder, a closed form on the UNet's keys and values."""

from piu_lora.config import ForgetConfig
from piu_lora.unlearn.closed.methods import with_keys_and_values
from piu_lora.unlearn.gate.method import gate_encoder, gate_form
from piu_lora.unlearn.registry import Problem, Solution, SolveContext

__all__ = ["gate_both"]


@gate_form("gate-both", "gate neurons, closed form on keys and values", "this project and UCE")
def gate_both(problem: Problem, context: SolveContext, config: ForgetConfig) -> Solution:
    """Both, so that neither an unedited encoder nor an unedited UNet alone still generates the person.

    The keys and values are solved for the *unedited* encoder's conditions of the person, and keep those of
    the edited one, which are the anchor's already.
    """
    gates = gate_encoder(problem, context, config)
    combined = with_keys_and_values(problem, context, config, gates.change)
    return Solution(combined.change, {**combined.facts, **gates.facts})
