"""Photographs that were not given: how many of a forgotten person's other photographs still verify, in
condition space, on real faces.

    python -m benchmarks.unseen --faces ../shared/faces --out benchmarks/results/unseen.json

Real photographs are embedded by the pack of ``--faces`` (once, into ``--cache``, outside the project), people
split by a hash of their id into a half to tune on and a half to report on. Of every person k photographs are
given; all others are unseen. What a text encoder's conditions hold of a person is read by a decoder that was
calibrated on the tuning half, and judged at a false-accept rate of 1e-3, photograph against centroid. The run
resumes. Intervals are 95 % percentile bootstraps over people.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks.condition_space import Decoder, bank_of, random_pipeline
from benchmarks.output import parser as new_parser
from benchmarks.output import publish
from benchmarks.real_faces import RealFaces, embedded_faces
from piu_lora.config import ForgetConfig
from piu_lora.groups import ANCHOR, GROUP_WORDS, NEAREST, RANDOM
from piu_lora.identity import IdentityBank, centroid, choose_anchor
from piu_lora.identity.geometry import Geometry
from piu_lora.identity.geometry_measurement import measure_geometry
from piu_lora.identity.verification import far_threshold
from piu_lora.model import TokenSample, add_second_moments, find_family, layer_inputs
from piu_lora.model.factors import Change
from piu_lora.unlearn import ClosedConfig, GateConfig, Problem, SolveContext, TargetIdentity, find_method
from piu_lora.unlearn.gate.encoder import GateEncoder, measure_everybody
from piu_lora.unlearn.gate.method import GatedPerson, Ground, gate_change, gate_person

PHOTOGRAPHS = (1, 2, 3, 5, 10)
METHODS = ("closed-encoder", "gate-encoder")
_OTHERS = (NEAREST, RANDOM, ANCHOR)
_UNSEEN, _OF_NEAR, _RANDOM = (
    20,
    2,
    60,
)  # photographs: at most so many of a person, of each neighbour, of random people
_FEWEST = 2  # unseen photographs of a person
_SETTINGS: dict[str, Any] = {"closed": {"retained": 1024, "near": 512, "mixtures": 32}}


@dataclass(frozen=True)
class World:
    """Everything that does not depend on who is forgotten. ``bank`` holds everybody else."""

    faces: RealFaces
    decoder: Decoder
    bank: IdentityBank
    geometry: Geometry
    threshold: float
    centroids: torch.Tensor
    people: list[int]


@dataclass(frozen=True)
class Request:
    """One person, with k photographs given."""

    person: int
    target: TargetIdentity
    unseen: torch.Tensor


def opened(faces: RealFaces, half: str, people: int, skip: int) -> World:
    """The encoder, its decoder, and ``people`` of a half, taken out of the bank: those with enough
    photographs for every k, in random order after the first ``skip``, then those with enough for 3 or fewer.
    """
    counts, members = torch.bincount(faces.labels), faces.half(half)
    generator, order = torch.Generator().manual_seed(0), []
    for least, most in ((max(PHOTOGRAPHS) + 2, len(counts)), (3 + _FEWEST, max(PHOTOGRAPHS) + 1)):
        enough = members[(counts[members] >= least) & (counts[members] <= most)]
        order += enough[torch.randperm(len(enough), generator=generator)].tolist()
    chosen = order[skip : skip + people]
    bank = bank_of(faces, torch.tensor([person for person in range(len(faces.ids)) if person not in chosen]))
    bank.geometry = measure_geometry(bank.embeddings, bank.labels)  # once, instead of at every request
    fitted = faces.embeddings[torch.isin(faces.labels, faces.half("tuning"))]
    shuffled = fitted[torch.randperm(len(fitted), generator=torch.Generator().manual_seed(1))]
    sums = torch.zeros(len(faces.ids), faces.embeddings.shape[1])
    return World(
        faces,
        Decoder.calibrated(random_pipeline(), shuffled),
        bank,
        bank.geometry,
        far_threshold(bank, 1e-3).value,
        normalize(sums.index_add_(0, faces.labels, faces.embeddings), dim=1),
        chosen,
    )


def request(world: World, person: int, photographs: int) -> Request:
    """A seeded draw of the photographs that are given; the anchor is a synthetic one."""
    own = world.faces.embeddings[world.faces.labels == person]
    generator = torch.Generator().manual_seed(person)
    own = own[torch.randperm(len(own), generator=generator)]
    config = ForgetConfig.preset(find_family("arc2face"), "gate-encoder").anchor
    anchor = choose_anchor(world.bank, centroid(own[:photographs]), range(len(world.bank)), config, generator)
    return Request(person, TargetIdentity(own[:photographs], anchor.embedding), own[photographs:][:_UNSEEN])


def with_enough(world: World, photographs: int) -> list[int]:
    """The people of whom so many photographs can be given, and some are left."""
    counts = torch.bincount(world.faces.labels)
    return [person for person in world.people if int(counts[person]) >= photographs + _FEWEST]


def problem_of(world: World, requests: list[Request]) -> Problem:
    """The bank is everybody else."""
    return Problem(tuple(asked.target for asked in requests), world.bank.rows_of(range(len(world.bank))))


class Gates:
    """gate-encoder, with what serves every person computed once."""

    def __init__(self, world: World, config: ForgetConfig) -> None:
        self.world, self.config = world, config
        self.solved: dict[tuple[int, int], GatedPerson] = {}
        self.settings = config.section_of(GateConfig)
        self.encoder = GateEncoder(world.decoder.pipe, self.settings)
        self.retain = world.bank.rows_of(range(len(world.bank)))
        generator = torch.Generator().manual_seed(config.seed)
        self.ground = Ground.of(self.encoder, measure_everybody(self.retain, self.encoder, generator))
        self.handouts = self.ground.neurons(len(world.people))

    def change(self, requests: list[Request]) -> tuple[Change, dict[str, Any]]:
        """One adapter for all of them; whoever was solved before is not solved again."""
        people = [self._person(asked) for asked in requests]
        solution = gate_change(self.ground, people)
        return solution.change, solution.facts

    def _person(self, asked: Request) -> GatedPerson:
        key = (asked.person, len(asked.target.forget))
        if key not in self.solved:
            problem, world = problem_of(self.world, [asked]), self.world
            near = self.retain[problem.nearest(self.settings.near)[0]]
            handout = self.handouts[world.people.index(asked.person)]
            self.solved[key] = gate_person(
                asked.target, near, self.ground, world.geometry, handout, self.config.seed
            )
        return self.solved[key]


class Closed:
    """Any closed form, with the bank's moments measured once."""

    def __init__(self, world: World, config: ForgetConfig) -> None:
        self.world, self.config = world, config
        self.moments: dict[str, torch.Tensor] = {}

    def change(self, requests: list[Request]) -> tuple[Change, dict[str, Any]]:
        """One adapter for all of them."""
        pipe = self.world.decoder.pipe
        solve = find_method(self.config.method).solve
        assert solve is not None
        context = SolveContext(pipe, self._moments, lambda: self.world.geometry)
        solution = solve(problem_of(self.world, requests), context, self.config)
        return solution.change, solution.facts

    def _moments(self, modules: Any) -> dict[str, torch.Tensor]:
        missing = [module for module in modules if module not in self.moments]
        if missing:
            pipe, tokens = self.world.decoder.pipe, TokenSample.of(self.world.decoder.pipe.tokenizer)
            rows = self.world.bank.rows_of(range(len(self.world.bank)))
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
            chosen = rows[order[: self.config.section_of(ClosedConfig).retained]]
            sums: dict[str, torch.Tensor] = {}
            inputs = layer_inputs(pipe, missing, chosen, torch.Generator(), batch=64)
            add_second_moments(sums, inputs, 1 / len(chosen), tokens)
            self.moments |= sums
        return {module: self.moments[module].clone() for module in modules}


def measured(world: World, asked: Request, change: Change) -> dict[str, float]:
    """Before and after, of one person under a change that is rounded as it is stored."""
    stored = {module: factors.to(torch.float16).to(torch.float32) for module, factors in change.items()}
    true, faces = world.centroids[asked.person], world.faces
    cosines = world.centroids @ true
    cosines[world.people] = -2
    nearest = cosines.topk(10).indices
    rows = torch.cat([(faces.labels == person).nonzero()[:_OF_NEAR, 0] for person in nearest.tolist()])
    generator = torch.Generator().manual_seed(asked.person)
    random = torch.randperm(len(world.bank.embeddings), generator=generator)[:_RANDOM]
    strangers = normalize(world.bank.embeddings[random])
    groups = [asked.unseen, asked.target.forget, asked.target.anchor[None], faces.embeddings[rows], strangers]
    sizes = [len(group) for group in groups]
    before, after = (world.decoder.read(torch.cat(groups), used).split(sizes) for used in (None, stored))

    known = groups[0] @ asked.target.centre >= world.threshold

    def mean(rows: torch.Tensor, wanted: torch.Tensor) -> float:
        return float((rows * wanted).sum(dim=1).mean())

    def share(group: int, wanted: torch.Tensor) -> float:
        return mean(after[group], wanted) / mean(before[group], wanted)

    return {
        "verified_before": float((before[0] @ true >= world.threshold).float().mean()),
        "verified": float((after[0] @ true >= world.threshold).float().mean()),
        "known": float(known.float().mean()),
        "verified_known": float(((after[0] @ true >= world.threshold) & known).sum())
        / max(int(known.sum()), 1),
        "ism_before": mean(before[0], true),
        "ism": mean(after[0], true),
        "given_before": mean(before[1], true),
        "given": mean(after[1], true),
        NEAREST: share(3, world.centroids[faces.labels[rows]]),
        RANDOM: share(4, strangers),
        ANCHOR: share(2, groups[2]),
    }


def interval(values: torch.Tensor) -> list[float]:
    """Mean, and its 95 % percentile bootstrap over people."""
    chosen = torch.randint(len(values), (2000, len(values)), generator=torch.Generator().manual_seed(0))
    ends = torch.quantile(values[chosen].mean(dim=1), torch.tensor([0.025, 0.975]))
    return [float(values.mean()), *ends.tolist()]


def table(document: dict[str, Any]) -> str:
    """Markdown: a line for each method and number of photographs."""
    others = " | ".join(GROUP_WORDS[group].short for group in _OTHERS)
    lines = [
        f"{document['half']} half of the people, {document['people']} people, of whom those count that have "
        f"{_FEWEST} photographs or more that were not given; "
        f"decoder's cosine {document['decoder']:.3f}; threshold {document['threshold']:.3f} at FAR 1e-3, "
        "photograph against centroid. Means over people with 95 % bootstrap intervals; like the given: those "
        "unseen photographs that verify against the given ones at that rate; nearest (ten of them), random "
        "and anchor: ISM as a share of what it was.",
        "",
        f"| photographs | method | people | unseen verified before | after | after, if like the given "
        f"| unseen ISM | {others} | seconds |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for key, rows in document["rows"].items():
        photographs, method = key.split(" ", 1)
        columns = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
        cells = [
            _text(interval(columns[name])) if name in columns else "-"  # a run of before it was looked at
            for name in ("verified", "verified_known", "ism", *_OTHERS)
        ]
        before = f"{float(columns['verified_before'].mean()):.3f}"
        seconds = f"{float(columns['seconds'].median()):.1f}"
        lines.append(
            f"| {photographs} | {method} | {len(rows)} | {before} | {' | '.join(cells)} | {seconds} |"
        )
    return "\n".join(lines)


def _text(values: list[float]) -> str:
    return "{:.4f} [{:.4f}, {:.4f}]".format(*values)


def main() -> None:
    """Run what is missing, print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--faces", type=Path, default=Path("../shared/faces"))
    parser.add_argument("--cache", type=Path, default=Path("/tmp/piu-lora-faces.safetensors"))
    parser.add_argument("--half", choices=("tuning", "reporting"), default="reporting")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument(
        "--skip", type=int, default=0, help="people of the half's random order, looked at before"
    )
    parser.add_argument(
        "--together", type=int, default=20, help="people in one adapter, three photographs each; 0: none"
    )
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--photographs", nargs="+", type=int, default=PHOTOGRAPHS)
    parser.add_argument("--set", action="append", default=[], help="a setting, as in `piu-lora forget`")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    world = opened(embedded_faces(options.faces, options.cache), options.half, options.people, options.skip)
    document = json.loads(options.out.read_text()) if options.out.exists() else {"rows": {}}
    document |= {
        "half": options.half,
        "skipped": options.skip,
        "people": len(world.people),
        "decoder": world.decoder.cosine,
        "threshold": world.threshold,
        "geometry": world.geometry.to_dict(),
        "threads": torch.get_num_threads(),
    }
    for method in options.methods:
        config = (
            ForgetConfig.preset(find_family("arc2face"), method)
            .updated(_SETTINGS)
            .updated_from_pairs(options.set)
        )
        solver = Gates(world, config) if method == "gate-encoder" else Closed(world, config)
        for photographs in dict.fromkeys(options.photographs):
            rows = document["rows"].setdefault(f"{photographs} {method}", [])
            for person in with_enough(world, photographs)[len(rows) :]:
                asked, begun = request(world, person, photographs), time.perf_counter()
                change, facts = solver.change([asked])
                seconds = time.perf_counter() - begun
                rows.append({**measured(world, asked, change), "seconds": seconds, **_outlook(facts)})
                options.out.write_text(json.dumps(document, indent=1) + "\n")
        if options.together and method == "gate-encoder":
            several(world, solver, options.together, document)
    publish(table(document), document, options.out, options.out.with_suffix(".md"))


def _outlook(facts: dict[str, Any]) -> dict[str, float]:
    """What a gate's facts say of its band."""
    if "bands" not in facts:
        return {}
    ((low, high),) = facts["bands"]
    return {
        "low": low,
        "high": high,
        **{name: facts[name] for name in ("look_alikes", "inside", "expected_missed", "readout_error")},
    }


def several(world: World, solver: Gates | Closed, count: int, document: dict[str, Any]) -> None:
    """``count`` people in one adapter, three photographs each."""
    asked = [request(world, person, 3) for person in world.people[:count]]
    begun = time.perf_counter()
    change, facts = solver.change(asked)
    seconds = (time.perf_counter() - begun) / len(asked)
    document["rows"][f"3 gate-encoder, {len(asked)} people in one adapter"] = [
        {**measured(world, one, change), "seconds": seconds} for one in asked
    ]
    document["together"] = {"neurons": len(facts["gates"]), "energy": facts["gate_energy"]}


if __name__ == "__main__":
    main()
