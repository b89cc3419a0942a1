"""Where work runs that outgrows one process: on this machine, or on a cluster. The same tasks give the same
results, whoever runs them.
"""

from piu_lora.engine.find import ENGINES, Engine, EngineName, find_engine
from piu_lora.engine.job import Job

__all__ = ["ENGINES", "Engine", "EngineName", "Job", "find_engine"]
