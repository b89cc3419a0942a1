"""Evaluation on the embedded base: planted failures change the verdict for the right reason; resuming; what
is kept and what is not.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from piu_lora import load_base
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import (
    Gallery,
    Measured,
    Plan,
    Policy,
    evaluate_measured,
    judge,
    measure,
    quality_figures,
)
from piu_lora.evidence.report import report_of
from piu_lora.identity import IdentityBank
from piu_lora.jobs.evaluation.evaluate import Judges, _doubles
from piu_lora.jobs.evaluation.scoring import galleries_for, plan_for
from piu_lora.jobs.request.readers import SecondRecognizer
from piu_lora.jobs.request.request import ErasureRequest, open_request
from piu_lora.jobs.request.session import Session, open_session
from piu_lora.model import find_family, generate, mini
from piu_lora.model.mini.export import bank_portraits, fresh_portraits
from tests.evidence.report.example import document

WHO = "mini-0007"
SMALL = {
    "evaluation": {
        "forget_images": 4,
        "retain_images": 6,
        "nearest": 3,
        "anchor_images": 2,
        "steps": 5,
        "batch": 64,
    }
}
FORGETTING = {"forget_ism", "recognised", "verified"}


def config() -> ForgetConfig:
    return ForgetConfig.preset(find_family("mini"), "closed-encoder").updated(SMALL)


def elsewhere(request: ErasureRequest, second: SecondRecognizer | None = None) -> Session:
    """A base other than the embedded one, which is never loaded."""
    return Session("arc2face", request.bank, mini.conditioning_recognizer(), second)


def case_of(identity: str | Path = WHO, bank: IdentityBank | None = None) -> ErasureRequest:
    return open_request(identity, bank or mini.conditioning_bank(), config(), mini.conditioning_recognizer())


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return load_base("mini")


class Stage:
    """One request, its pictures before, and everybody drawn as the anchor."""

    def __init__(self, pipe: StableDiffusionPipeline) -> None:
        self.request = case_of()
        self.galleries: list[Gallery] = galleries_for(open_session(pipe), self.request)
        self.plan: Plan = plan_for(self.request, self.galleries[0].centroids, more=4)
        how = {"steps": 5, "batch": 64}
        self.before = generate(pipe, self.plan.embeddings, self.plan.seeds, **how)
        anchor = self.request.people[0].anchor.embedding
        self.anchored = generate(pipe, anchor.expand(len(self.plan.shots), -1), self.plan.seeds, **how)
        self.measured = measure(self.before, self.galleries)

    @property
    def forgotten(self) -> torch.Tensor:
        """A perfect adapter's pictures: the forgotten person's are the anchor's, the others' are what they
        were.
        """
        theirs = torch.zeros(len(self.before), dtype=torch.bool)
        theirs[self.plan.rows_of("forget", "more")] = True
        return torch.where(theirs[:, None, None, None], self.anchored, self.before)

    def missed(
        self, after: torch.Tensor, galleries: list[Gallery] | None = None, doubles: int = 0
    ) -> set[str]:
        """The names of the lines of the default policy that these pictures miss."""
        judges = galleries or self.galleries
        before = measure(self.before, galleries) if galleries else self.measured
        sets: list[Measured] = [before, measure(after, judges)]
        section = {
            "recognizers": evaluate_measured(self.plan, *sets, judges),
            "quality": quality_figures(self.plan, *sets, judges[-1]),
            "doubles": {"count": doubles},
            "seconds": None,
            "images": None,
            "agreement": None,
            "sweeps": [],
            "notes": [],
        }
        report = report_of({**document(), "verdict": None, "evaluation": section})
        return {line.name for line in judge(report, Policy()) if not line.passed}


@pytest.fixture(scope="module")
def stage(base: StableDiffusionPipeline) -> Stage:
    return Stage(base)


def test_a_perfect_adapter_passes(stage: Stage) -> None:
    assert stage.missed(stage.forgotten) == set()


def test_an_adapter_that_does_nothing_does_not_forget(stage: Stage) -> None:
    assert stage.missed(stage.before) == FORGETTING


def test_an_adapter_that_destroys_everything_harms_everybody(stage: Stage) -> None:
    noise = torch.rand(stage.before.shape, generator=torch.Generator().manual_seed(0))
    assert {"random_ism", "nearest_ism", "random_verified", "nearest_verified"} <= stage.missed(noise)
    flat = torch.full_like(stage.before, 0.5)
    assert {"random_ism", "nearest_ism", "sharpness"} <= stage.missed(flat)
    assert not FORGETTING & stage.missed(flat)  # it forgets, too: that is not enough


def test_an_adapter_that_maps_everybody_to_the_anchor_harms_everybody_but_the_anchor(stage: Stage) -> None:
    missed = stage.missed(stage.anchored)
    assert {"random_ism", "nearest_ism", "random_verified", "nearest_verified"} <= missed
    assert not {"anchor_ism", "sharpness", *FORGETTING} & missed


def test_an_adapter_that_only_lowers_image_quality_fails_by_that(stage: Stage) -> None:
    blurred = torch.nn.functional.avg_pool2d(stage.forgotten, 3, stride=1, padding=1, count_include_pad=False)
    missed = stage.missed(blurred)
    assert "sharpness" in missed
    assert not FORGETTING & missed


def test_a_recognizer_that_always_says_yes_is_not_believed(stage: Stage) -> None:
    first, second = stage.galleries
    reference = second.reference(stage.request.forget_rows[0])
    yes = replace(second, embed=lambda pictures: reference.expand(len(pictures), -1))
    assert "strangers" in stage.missed(stage.forgotten, [first, yes])


def test_a_recognizer_that_never_saw_the_person_is_not_believed(stage: Stage) -> None:
    first, second = stage.galleries
    blind = replace(
        second, embed=lambda pictures: torch.nn.functional.normalize(-second.embed(pictures), dim=1)
    )
    assert "seen_before" in stage.missed(stage.forgotten, [first, blind])


def test_no_face_anywhere_is_no_success(stage: Stage) -> None:
    hidden = [replace(gallery, embed=_blank_where_flat(gallery)) for gallery in stage.galleries]
    after = stage.forgotten.clone()
    after[stage.plan.rows_of("forget", "more")] = 0.5
    assert stage.missed(after, hidden) - {"sharpness"} == {"no_face"}


def _blank_where_flat(gallery: Gallery):
    def embed(pictures: torch.Tensor) -> torch.Tensor:
        return gallery.embed(pictures) * (pictures.flatten(1).std(dim=1) > 1e-6)[:, None]

    return embed


def test_a_person_under_two_ids_is_found(stage: Stage) -> None:
    assert _doubles(stage.request, stage.galleries[0])["count"] == 0
    own, reader = mini.conditioning_bank(), mini.conditioning_recognizer()
    again = reader.embed(fresh_portraits(own.index(WHO), 9).float() / 255)
    labels = torch.cat([own.labels, torch.full((9,), len(own), dtype=torch.int32)])
    bank = IdentityBank(torch.cat([own.embeddings, again.half()]), labels, [*own.ids, "twin"], own.recognizer)
    request = case_of(bank=bank)
    count = _doubles(request, galleries_for(elsewhere(request), request)[0])["count"]
    assert count == 1
    assert stage.missed(stage.forgotten, doubles=count) == {"doubles"}


def test_training_references_are_refused(tmp_path: Path) -> None:
    for place, portrait in enumerate(bank_portraits(7)):
        _save(portrait, tmp_path / "person" / f"{place}.png")
    _save(fresh_portraits(7, 1)[0], tmp_path / "other.png")
    request = case_of(tmp_path / "person", _without(7))
    trained = request.people[0].subject.photos[request.people[0].train[0]]
    with pytest.raises(
        BadInput, match=r"reference 2 of 2 was trained on \(conditioning recognizer: cosine 1\.0000"
    ):
        galleries_for(elsewhere(request), request, references=[tmp_path / "other.png", trained])
    reference = galleries_for(elsewhere(request), request, references=[tmp_path / "other.png"])[0].reference(
        request.forget_rows[0]
    )
    assert torch.allclose(
        reference, mini.conditioning_recognizer().embed(fresh_portraits(7, 1).float() / 255)[0], atol=1e-5
    )
    held = galleries_for(elsewhere(request), request)[0].reference(request.forget_rows[0])
    expected = torch.nn.functional.normalize(
        request.people[0].subject.embeddings[list(request.people[0].held_out)].mean(0), dim=0
    )
    assert torch.allclose(held, expected, atol=1e-5)


def _save(portrait: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(portrait.permute(1, 2, 0).numpy()).save(path)


def _without(row: int) -> IdentityBank:
    own = mini.conditioning_bank()
    kept = own.labels != row
    labels = own.labels[kept] - (own.labels[kept] > row).int()
    return IdentityBank(own.embeddings[kept], labels, own.ids[:row] + own.ids[row + 1 :], own.recognizer)


def test_nothing_held_out_is_nothing_verified(tmp_path: Path) -> None:
    _save(bank_portraits(7)[0], tmp_path / "one.png")
    request = case_of(tmp_path / "one.png", _without(7))
    gallery = galleries_for(elsewhere(request), request)[0]
    assert gallery.refused.startswith("the forgotten person has no photograph that was kept out of training")


def test_a_second_recognizer_judges_any_base() -> None:
    second = SecondRecognizer(mini.evaluating_recognizer(), mini.evaluating_bank())
    request = open_request(
        WHO,
        mini.conditioning_bank(),
        config().updated({"anchor": {"rule": "far-safe"}}),
        mini.conditioning_recognizer(),
    )
    judges = galleries_for(elsewhere(request, second), request)
    names = [(gallery.name, gallery.role) for gallery in judges]
    assert names == [("conditioning", "conditions the base"), ("evaluating", "only evaluates")]
    fewer = replace(second, bank=_few(mini.evaluating_bank()))
    with pytest.raises(BadInput, match="holds other people than the bank"):
        galleries_for(elsewhere(request, fewer), request)


def _few(bank: IdentityBank) -> IdentityBank:
    return IdentityBank(bank.embeddings[:15], bank.labels[:15], bank.ids[:5], bank.recognizer)


def test_a_second_recognizer_needs_its_bank() -> None:
    with pytest.raises(BadInput, match="pass second=PACK and second_bank=FILE together"):
        Judges(second="somewhere")
