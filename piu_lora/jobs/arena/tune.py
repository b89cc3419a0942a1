"""Settings that suit a user's own base and bank: a search over the few that decide, on people of the bank."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from piu_lora.adapter import disk_errors, write_file
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.evidence import Cell
from piu_lora.groups import ANCHOR, FORGET, NEAREST, RANDOM
from piu_lora.identity import IdentityBank
from piu_lora.jobs.arena.arena import Arena, shared_settings
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.round import Round
from piu_lora.jobs.arena.trials import read_trials, trials_picture
from piu_lora.jobs.request.request import open_request
from piu_lora.model import BaseFamily
from piu_lora.progress import Progress, silent
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES
from piu_lora.unlearn.dial import Range, value_of

__all__ = ["DEPTH", "Tuned", "preset_text", "score_of", "seconds_of", "tune", "tuning_people"]

DEPTH = 0.1  # forget ISM after / before that is asked for
# Enough images to tell a good setting from a bad one; the figures of a report need more.
_IMAGES = {
    "forget_images": 4, "retain_images": 6, "nearest": 4, "anchor_images": 2, "steps": 8, "batch": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """A finished search.

    Attributes:
        settings: the best trial's, by name.
        score, first: of the best trial, and of the one that it began with.
        trials: how many were finished, with those of earlier runs.
        files: the preset, the study and the picture.
    """

    settings: Mapping[str, float]
    score: float
    first: float
    trials: int
    files: tuple[Path, ...]


def seconds_of(budget: str) -> float:
    """``20m``, ``2h`` or ``90s`` in seconds.

    Raises:
        BadInput: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if match is None or not float(match[1]):
        raise BadInput(f"budget = {budget!r} is no time; write it as 90s, 20m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def tuning_people(bank: IdentityBank, family: BaseFamily, count: int) -> list[str]:
    """Ids of ``count`` people to tune on, always the same ones: those that the base's own defaults were
    chosen on, else people whom ``compare`` draws last.

    Raises:
        BadInput: the bank has too few.
    """
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(0)).tolist()[::-1]
    tuned_on = family.companions.tuned_on if family.companions else frozenset()
    rows = [row for row in order if row in tuned_on] or order
    if not 1 <= count <= len(rows):
        raise BadInput(f"people = {count} is out of range: there are {len(rows)} to tune on")
    return [bank.ids[row] for row in rows[:count]]


def score_of(cells: Sequence[Cell]) -> float:
    """What the nearest, random people and the anchor keep, in the mean, less twice what is missing to the
    depth; by the recognizer that conditions the base, so that another may report.
    """
    scores = []
    for cell in cells:
        figures = cell.figures.get("conditioning") or next(iter(cell.figures.values()))
        forgot, kept = figures[FORGET], [figures[group] for group in (NEAREST, RANDOM, ANCHOR)]
        known = [min(value, 1.0) for value in kept if value is not None]
        missing = max((1.0 if forgot is None else forgot) - DEPTH, 0.0)
        scores.append(sum(known) / max(len(known), 1) - 2 * missing)
    return sum(scores) / len(scores)


def tune(
    out: str | Path,
    method: str,
    *,
    people: int = 4,
    budget: str = "20m",
    trials: int = 0,
    base: str = "mini",
    bank: str | None = None,
    pack: str | Path | None = None,
    settings: Sequence[str] = (),
    seed: int = 42,
    device: str = "auto",
    progress: Progress = silent,
) -> Tuned:
    """Search a method's decisive settings by trial runs on people of the bank.

    Args:
        out: the preset to write, ``.toml``, for ``--config``; beside it the study (``.study``), which a later
            call goes on with, and a picture of the trials (``.png``).
        method: ours, or a baseline.
        people: of the bank, whose requests are made up; none whom a report of ``compare`` shows.
        budget: how long new trials are begun: ``90s``, ``20m``, ``2h``.
        trials: how many are finished at most, those of earlier calls among them; 0 for as many as the budget
            allows.
        base, bank, pack, device: as for ``forget``.
        settings: ``section.key=value`` pairs that the search begins with and keeps where it does not search.
        seed: of the search and of every run.
        progress: told how far the search is.

    Raises:
        BadInput: an unknown method or one without decisive settings, too few people, or a study of another
            search.
        EnvironmentProblem: Optuna is not installed.
    """
    preset, wait = Path(out), seconds_of(budget)
    if preset.suffix != ".toml":
        raise BadInput(f"out = {str(out)!r} is no preset; name a .toml file")
    config = shared_settings(_family(base)).updated({"evaluation": _IMAGES, "seed": seed})
    arena = Arena(base, bank, pack, None, None, device, config)
    ranges, start = _ranges(method), Contender(method, tuple(settings))
    start.settings(config, arena.family)
    study = _study(preset.with_suffix(".study"), start, seed)
    session = arena.open_session()
    rounds: dict[str, Round] = {}

    def played(pairs: Sequence[str], person: int, identity: str) -> Cell:
        contender = Contender(method, (*settings, *pairs))
        if identity not in rounds:
            own = contender.request_settings(config, arena.family)
            rounds[identity] = Round(session, open_request(identity, session.bank, own, session.reader))
        return rounds[identity].play(contender, person)

    values = (
        start.config(config, arena.family) if method in METHODS else start.baseline_settings(arena.family)
    )
    bounds = {entry.setting: (*entry.bounds(values), entry.log) for entry in ranges}
    if not study.trials:
        study.enqueue_trial({name: _within(value_of(values, name), *bounds[name][:2]) for name in bounds})
    chosen = tuning_people(session.bank, arena.family, people)
    with progress("tune", trials, len(read_trials(study))) as advance:
        run = _objective(bounds, chosen, played, advance)
        limit = max(trials - len(read_trials(study)), 0) if trials else None
        if limit != 0:
            study.optimize(run, n_trials=limit, timeout=wait)
    return _written(preset, study, start, bounds)


def _family(base: str) -> BaseFamily:
    from piu_lora.model import family_of

    return family_of(base)


def _ranges(method: str) -> tuple[Range, ...]:
    registered = METHODS.get(method) or BASELINES.get(method)
    if registered is None:
        raise BadInput(f"unknown method {method!r}; known: {', '.join([*METHODS, *BASELINES])}")
    if not registered.search:
        raise BadInput(f"{method} declares no decisive settings; there is nothing to tune")
    return registered.search


def _study(path: Path, start: Contender, seed: int) -> Any:
    """The study in a file; begun where there is none."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError as error:
        raise EnvironmentProblem("tune needs Optuna; pip install 'piu-lora[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with disk_errors(f"the study to {str(path)!r}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileOpenLock(str(path))
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    study = optuna.create_study(
        storage=storage,
        study_name="tune",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=6),
        load_if_exists=True,
    )
    if study.user_attrs.setdefault("contender", start.name) != start.name:
        raise BadInput(
            f"the study {str(path)!r} is of {study.user_attrs['contender']!r}, and this is {start.name!r}; "
            "name another `out`"
        )
    study.set_user_attr("contender", start.name)
    return study


def _objective(
    bounds: Mapping[str, tuple[float, float, bool]],
    people: Sequence[str],
    played: Callable[[Sequence[str], int, str], Cell],
    advance: Callable[..., None],
) -> Callable[[Any], float]:
    def run(trial: Any) -> float:
        values = {
            name: trial.suggest_float(name, low, high, log=log) for name, (low, high, log) in bounds.items()
        }
        pairs = [f"{name}={value:.6g}" for name, value in values.items()]
        cells: list[Cell] = []
        for index, identity in enumerate(people):
            cells.append(played(pairs, index, identity))
            # A setting that fails with the first people is not tried on the others.
            if score_of(cells) < -0.5:
                break
        score = score_of(cells)
        trial.set_user_attr("people", len(cells))
        advance(1, score=score)
        return score if math.isfinite(score) else -3.0

    return run


def _within(value: float, low: float, high: float) -> float:
    return min(max(float(value), low), high)


def _written(
    preset: Path, study: Any, start: Contender, bounds: Mapping[str, tuple[float, float, bool]]
) -> Tuned:
    finished = read_trials(study)
    if not finished:
        raise BadInput("no trial was finished in that budget; pass a longer one, or fewer people")
    best = max(finished, key=lambda trial: trial.score)
    picture = preset.with_suffix(".png")
    with disk_errors(f"the preset to {str(preset)!r}"):
        write_file(preset, preset_text(start, best.settings, best.score, len(finished)).encode())
        write_file(picture, trials_picture(finished, {name: log for name, (_, _, log) in bounds.items()}))
    files = (preset, preset.with_suffix(".study"), picture)
    return Tuned(best.settings, best.score, finished[0].score, len(finished), files)


def preset_text(start: Contender, settings: Mapping[str, float], score: float, trials: int) -> str:
    """The preset as TOML: what the search began with, and over it what it found."""
    lines = [f"# by `piu-lora tune`: the best of {trials} trials, score {score:.3f}"]
    pairs = [f"{name}={value:.6g}" for name, value in settings.items()]
    if start.method not in METHODS:
        variant = " ".join([start.method, *start.pairs, *pairs])
        return "\n".join([*lines, f"# for piu-lora compare --variant '{variant}'", ""])
    nested: dict[str, dict[str, Any]] = {}
    values = ForgetConfig(method=start.method).updated_from_pairs([*start.pairs, *pairs])
    for pair in (*start.pairs, *pairs):
        section, _, key = pair.partition("=")[0].strip().rpartition(".")
        nested.setdefault(section, {})[key] = value_of(values, f"{section}.{key}" if section else key)
    lines.append(f'method = "{start.method}"')
    for section, entries in sorted(nested.items()):
        lines += ["", f"[{section}]"] if section else []
        lines += [f"{key} = {_toml(value)}" for key, value in entries.items()]
    return "\n".join([*lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
