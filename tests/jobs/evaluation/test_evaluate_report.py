"""The report of an evaluation: its files, what they keep of a person, and how an interrupted one goes on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from diffusers import StableDiffusionPipeline

from piu_lora import audit, forget, read_adapter
from piu_lora.errors import BadInput
from piu_lora.evidence import Policy, judge
from piu_lora.jobs.evaluation import images as measurer
from piu_lora.jobs.evaluation.evaluate import Assessment, Judges, evaluate
from piu_lora.jobs.evaluation.images import generate_images
from piu_lora.jobs.evaluation.report import warn_of_others, write_junit
from tests.identity.test_face_quality import model
from tests.jobs.evaluation.test_evaluate import WHO, case_of, config
from tests.jobs.evaluation.test_evaluate import base as base


@pytest.fixture(scope="module")
def adapter(base: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = config().updated({"closed": {"retained": 512, "near": 128}})
    return forget(
        WHO, base, tmp_path_factory.mktemp("made") / "adapter", config=settings, evaluate=False
    ).path


LEAN = (
    "report.leak_images=3",
    "report.sweep_images=0",
    "evaluation.forget_images=2",
    "evaluation.retain_images=2",
    "evaluation.nearest=1",
    "evaluation.anchor_images=1",
    "evaluation.steps=1",
    "evaluation.batch=3",
)
SWEPT = (
    *LEAN,
    "evaluation.steps=2",
    "report.sweep_images=1",
    "report.guidance=[2.0]",
    "report.steps=[4]",
    "report.weights=[0.5]",
)


def test_a_face_quality_model_is_one_more_figure(
    adapter: Path, base: StableDiffusionPipeline, tmp_path: Path
) -> None:
    path = model(tmp_path / "brightness.onnx", size=64)
    section = evaluate(adapter, WHO, base, judges=Judges(quality=path), settings=LEAN).document["evaluation"]
    found = section["quality"]["face_quality"]
    assert found["model"] == "brightness.onnx"
    assert set(found["retain"]) == {"before", "after", "ratio", "ratio_interval"}
    assert "no face-quality model was given" not in section["notes"]


def test_the_whole_report(adapter: Path, base: StableDiffusionPipeline, tmp_path: Path) -> None:
    found = evaluate(adapter, WHO, base, tmp_path / "report", settings=SWEPT)
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "before_after.png",
        "report.html",
        "report.json",
        "report.md",
    ]
    assert stored == json.loads(json.dumps(found.document))
    section = stored["evaluation"]
    assert [sweep["name"] for sweep in section["sweeps"]] == [
        "conditions",
        "guidance",
        "steps",
        "weight",
        "precision",
    ]
    weights = {
        point["value"]: point["recognizers"]["evaluating"]["forget"]
        for point in section["sweeps"][3]["points"]
    }
    assert weights[0.0]["after"] == weights[0.0]["before"] == weights[1.0]["before"]
    assert weights[1.0]["after"] < weights[0.5]["after"] < weights[0.0]["after"]
    assert section["images"] == 2 * 8 + 2 * (3 * 2 + 1) + 2
    assert section["doubles"]["count"] == 0
    assert not base.get_list_adapters()
    for path in (tmp_path / "report").iterdir():
        assert WHO.encode() not in path.read_bytes()
    with pytest.raises(BadInput, match="has an evaluation already"):
        evaluate(adapter, WHO, base, tmp_path / "report", settings=SWEPT)
    write_junit(tmp_path / "verdict.xml", found.report)
    suite = ElementTree.parse(tmp_path / "verdict.xml").getroot()
    assert len(list(suite.iter("testcase"))) == len(stored["verdict"]["lines"])


@pytest.fixture(scope="module")
def plain(
    adapter: Path, base: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory
) -> Assessment:
    return evaluate(adapter, WHO, base, tmp_path_factory.mktemp("plain") / "report", settings=LEAN)


@pytest.fixture(scope="module")
def published(adapter: Path, base: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public report, whose images were asked for all the same."""
    folder = tmp_path_factory.mktemp("public") / "report"
    evaluate(adapter, WHO, base, folder, settings=LEAN, public=True, images=True)
    return folder


def test_images_of_the_person_are_kept_only_when_asked_for(
    adapter: Path, base: StableDiffusionPipeline, plain: Assessment, published: Path, tmp_path: Path
) -> None:
    evaluate(adapter, WHO, base, tmp_path / "images", settings=LEAN, images=True)
    pages = [folder / "report.html" for folder in (plain.files[0].parent, tmp_path / "images", published)]
    without, shown, public_page = (page.read_text() for page in pages)
    assert public_page.count("data:image") == 0
    assert not (published / "before_after.png").exists()
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "images").iterdir())
    assert "data:image" in without
    assert len(shown) > len(without)
    public = json.loads((published / "report.json").read_text())
    assert public["public"] is True
    assert public["person"] is None
    assert "scores" not in public["evaluation"]["recognizers"]["conditioning"]


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on(
    adapter: Path,
    base: StableDiffusionPipeline,
    plain: Assessment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    drawn: list[int] = []

    def counted(pipe, embeddings, seeds, sampling):
        if len(drawn) == 3 and not resumed:
            raise KeyboardInterrupt
        drawn.append(len(seeds))
        return generate_images(pipe, embeddings, seeds, sampling)

    monkeypatch.setattr(measurer, "generate_images", counted)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        evaluate(adapter, WHO, base, tmp_path / "report", settings=LEAN)
    assert not base.get_list_adapters()
    kept = tmp_path / "report" / ".measured"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept.iterdir())
    assert not list((tmp_path / "report").glob("*.*ml"))
    first, resumed = sum(drawn), True
    assert first == 3 + 3 + 2
    drawn.clear()
    again = evaluate(adapter, WHO, base, tmp_path / "report", settings=LEAN).figures
    assert "going on with an interrupted evaluation" in caplog.text
    shown = 2 + 1 + 2  # of those before: two retained people, the anchor, two neighbours; nobody else twice
    assert sum(drawn) == 16 - first + shown
    assert not kept.exists()
    assert json.dumps(again) == json.dumps(plain.figures)


def test_a_report_lies_in_no_adapter_folder(adapter: Path, base: StableDiffusionPipeline) -> None:
    with pytest.raises(BadInput, match="lies in the adapter folder, whose receipt lists every file"):
        evaluate(adapter, WHO, base, adapter / "report", settings=LEAN, force=True)
    with pytest.raises(BadInput, match="is a file; name a folder for the report"):
        evaluate(adapter, WHO, base, adapter / "forget.json", settings=LEAN)


def test_references_that_are_not_there(adapter: Path, base: StableDiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not there; name a photograph or a folder of photographs"):
        evaluate(adapter, WHO, base, judges=Judges(references=tmp_path / "none"), settings=LEAN)


def test_a_damaged_report_is_replaced_only_when_told(
    adapter: Path, base: StableDiffusionPipeline, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(BadInput, match=r"is not JSON.*; pass force=True to replace it"):
        evaluate(adapter, WHO, base, tmp_path, settings=LEAN)


def test_an_audit_joins_a_public_evaluation(
    adapter: Path, base: StableDiffusionPipeline, published: Path, tmp_path: Path
) -> None:
    shutil.copytree(published, tmp_path / "report")
    few = ["audit.reidentify_people=64", "audit.reidentify_random=1"]
    found = audit(adapter, WHO, base, tmp_path / "report", attacks=["reidentify"], settings=few, public=True)
    assert found.document["public"]
    assert {"evaluation", "audit"} <= found.document.keys()
    assert "landing" not in found.document["evaluation"]["recognizers"]["evaluating"]["bystanders"]["0.001"]
    strict = Policy().tightened(landing=0.5)
    lines = [line for line in judge(found.report, strict) if line.name == "landing"]
    assert [(line.passed, line.reason) for line in lines] == [(False, "a public report does not say")] * 2


def test_a_policy_on_attacks_that_do_not_exist(
    adapter: Path, base: StableDiffusionPipeline, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[audit]\n"coin.radius" = {min = 0.1}\n')
    with pytest.raises(BadInput, match="unknown attack 'coin'; known: bypass, cone"):
        audit(adapter, WHO, base, policy=Policy.load(path))
    with pytest.raises(BadInput, match="unknown attack ''"):
        audit(adapter, WHO, base, attacks=[""])


def test_people_who_are_not_named_are_spoken_of(
    adapter: Path, base: StableDiffusionPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    opened = read_adapter(adapter)
    warn_of_others(opened, case_of())
    assert not caplog.text
    two = replace(opened, receipt=replace(opened.receipt, counts={"people": 2}))
    warn_of_others(two, case_of())
    assert "the adapter forgets 2 people, and 1 named" in caplog.text


@pytest.mark.slow
def test_the_default_size_takes_its_time(
    adapter: Path, base: StableDiffusionPipeline, tmp_path: Path
) -> None:
    """Everything, as an auditor would run it; the time is for the log, the figures must agree with the lean
    run's.
    """
    found = evaluate(adapter, WHO, base, tmp_path / "report", settings=("evaluation.steps=15",))
    assert found.document["evaluation"]["images"] == 2 * (18 + 60) + 10 * (2 * 8 + 5) + 2 * 4
    assert found.document["verdict"]["passed"], found.missed
