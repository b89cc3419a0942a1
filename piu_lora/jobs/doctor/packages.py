"""Python and the libraries: what is installed, against what piu-lora asks for. Nothing is imported for it."""

import platform
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING

from piu_lora.jobs.doctor.finding import Finding, guarded

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

__all__ = ["PACKAGES", "demands", "installed", "package_findings"]

SECTION = "Python"
PACKAGES = (
    "torch", "diffusers", "peft", "transformers", "safetensors", "huggingface_hub", "insightface", "onnxruntime", "accelerate",
)  # fmt: skip
# Either distribution brings the module.
_SAME_MODULE = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")}


def installed(name: str, paths: Sequence[str] | None = None) -> Distribution | None:
    """The distribution of that name on the search paths (``sys.path``), if any."""
    found = distributions(name=name) if paths is None else distributions(name=name, path=list(paths))
    return next(iter(found), None)


def demands(paths: Sequence[str] | None = None) -> "dict[str, SpecifierSet]":
    """What piu-lora asks of each package; accelerate is asked for by peft."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = {}
    for source in ("peft", "piu-lora"):
        distribution = installed(source, paths)
        for requirement in map(Requirement, (distribution and distribution.requires) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted[str(canonicalize_name(requirement.name))] = requirement.specifier
    return wanted


def package_findings(paths: Sequence[str] | None = None) -> Iterator[Finding]:
    """The version of Python, of piu-lora and of each library."""
    from piu_lora import __version__

    yield Finding(
        SECTION, "python", "ok", f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    )
    yield Finding(SECTION, "piu-lora", "ok", __version__)
    for name in PACKAGES:
        yield from guarded(SECTION, name, partial(_package, name, paths))


def _package(name: str, paths: Sequence[str] | None) -> list[Finding]:
    candidates = (installed(other, paths) for other in _SAME_MODULE.get(name, (name,)))
    distribution = next((found for found in candidates if found is not None), None)
    if distribution is None:
        return [Finding(SECTION, name, "missing", "not installed", _pip(name, paths))]
    wanted = demands(paths).get(name.replace("_", "-"))
    version = distribution.version
    if wanted is None or wanted.contains(version, prereleases=True):
        return [
            Finding(
                SECTION, name, "ok", f"{version} ({distribution.name})" if name in _SAME_MODULE else version
            )
        ]
    # Above the range is untested, below it is known not to work.
    older = any(
        not part.contains(version, prereleases=True)
        for part in wanted
        if part.operator in (">=", ">", "==", "~=")
    )
    return [
        Finding(
            SECTION,
            name,
            "missing" if older else "warning",
            f"{version}, but piu-lora needs {wanted}",
            _pip(name, paths),
        )
    ]


def _pip(name: str, paths: Sequence[str] | None) -> str:
    try:
        wanted = str(demands(paths).get(name.replace("_", "-"), ""))
    except (ImportError, ValueError):
        wanted = ""
    return f'pip install "{name}{wanted}"'
