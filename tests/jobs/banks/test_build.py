"""Banks from photographs: everybody accounted for, the same bytes every time, and nothing left behind."""

import hashlib
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piu_lora.cli.bank import account
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank, normalize
from piu_lora.jobs.banks.build import BankBuild, ClusterSettings, build_bank, calibrate_photos, merge_doubles
from tests.jobs.banks.fake_photos import FAKE, FAKE_SETTINGS, FakeReader, face, people, photograph


def build(photos: Path, out: Path, reader: FakeReader | None = None, **options: Any) -> BankBuild:
    return build_bank(
        photos, out, reader or FakeReader(), FAKE_SETTINGS, ClusterSettings(**options), workers=2
    )


# --- layouts


def test_a_folder_for_each_identity(tmp_path: Path) -> None:
    made = build(people(tmp_path / "photos"), tmp_path / "bank.safetensors")
    bank = IdentityBank.load(tmp_path / "bank.safetensors")
    assert bank.ids == [f"person-{person:03d}" for person in range(5)]
    assert (made.photos, made.faces, made.layout, made.rejected) == (15, 15, "folders", [])
    assert bank.digest == made.bank.digest
    for person in range(5):
        rows = normalize(torch.tensor([face(person, look) for look in range(3)]))
        assert torch.allclose(bank.of(f"person-{person:03d}"), rows, atol=1e-6)


def test_a_flat_folder_is_clustered(tmp_path: Path) -> None:
    for person in range(12):
        for look in range(3):
            photograph(tmp_path / "photos" / f"{look}-{person:02d}.jpg", face(person, look))
    alone = photograph(tmp_path / "photos" / "zz.jpg", face(40))
    made = build(tmp_path / "photos", tmp_path / "bank.safetensors", eps=0.5)
    assert made.layout == "flat"
    assert made.bank.ids == [
        f"cluster-{person:02d}" for person in range(12)
    ]  # numbered by their first photograph
    assert torch.allclose(
        made.bank.of("cluster-07"), normalize(torch.tensor([face(7, look) for look in range(3)])), atol=1e-6
    )
    assert [(each.photo, each.reason) for each in made.rejected] == [
        (alone, "in no cluster (eps 0.5, min_samples 2)")
    ]


def test_hidden_files_and_other_files_are_no_photographs(tmp_path: Path) -> None:
    photos = people(tmp_path / "photos")
    (photos / "person-000" / "notes.txt").write_text("not a picture")
    (photos / "person-000" / "._000.jpg").write_text("left by a Mac")
    (photos / ".thumbnails").mkdir()
    photograph(photos / ".thumbnails" / "a.jpg", face(9))
    (photos / "empty").mkdir()
    assert build(photos, tmp_path / "bank.safetensors").photos == 15


def test_settings_are_recorded(tmp_path: Path) -> None:
    build(people(tmp_path / "photos"), tmp_path / "folders.safetensors", linked=0.4)
    for look in range(3):
        photograph(tmp_path / "flat" / f"{look}.jpg", face(1, look))
    build(tmp_path / "flat", tmp_path / "flat.safetensors", eps=0.35, min_samples=3)
    folders, clustered = (IdentityBank.load(tmp_path / f"{name}.safetensors") for name in ("folders", "flat"))
    assert folders.settings == {"layout": "folders", "linked": 0.4, **FAKE_SETTINGS}
    assert clustered.settings == {"layout": "flat", "eps": 0.35, "min_samples": 3, **FAKE_SETTINGS}
    assert folders.recognizer == clustered.recognizer == FAKE


# --- the same every time


@pytest.mark.parametrize("flat", [False, True])
def test_workers_and_runs_make_no_difference(tmp_path: Path, flat: bool) -> None:
    if flat:
        for number in range(90):  # more than a batch
            photograph(tmp_path / "photos" / f"{number:03d}.jpg", face(number % 30, number))
    else:
        people(tmp_path / "photos", 30, 3)
    files = []
    for run, workers in enumerate((1, 4, 1, 4)):
        out = tmp_path / str(run) / "bank.safetensors"
        build_bank(tmp_path / "photos", out, FakeReader(), FAKE_SETTINGS, workers=workers)
        files.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(set(files)) == 1


# --- every photograph is accounted for


def test_outliers_are_left_out_with_the_reason(tmp_path: Path) -> None:
    photos = people(tmp_path / "photos")
    stranger = photograph(photos / "person-002" / "zz.jpg", face(50))
    broken = photograph(photos / "person-003" / "aa.jpg", reason="no face found")
    made = build(photos, tmp_path / "bank.safetensors")
    assert {(each.photo, each.reason) for each in made.rejected} == {
        (stranger, "somebody else (cosine below 0.3 to the others)"),
        (broken, "no face found"),
    }
    assert len(made.bank.of("person-002")) == 3
    text = list(account(made))
    assert text[0] == "5 identities, 15 embeddings from 17 photographs (16 faces)"
    assert f"left out  {stranger}: somebody else (cosine below 0.3 to the others)" in text
    assert text[-1] == f"digest {made.bank.digest}"


def test_two_equal_groups_leave_the_whole_folder_out(tmp_path: Path) -> None:
    photos = people(tmp_path / "photos", 2)
    tied = [
        photograph(photos / "tied" / f"{who}{look}.jpg", face(40 + who, look))
        for who in range(2)
        for look in range(2)
    ]
    made = build(photos, tmp_path / "bank.safetensors")
    assert made.bank.ids == ["person-000", "person-001"]
    assert [each.photo for each in made.rejected] == tied
    assert all("two groups are equally large at cosine 0.3" in each.reason for each in made.rejected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=5))
def test_kept_and_rejected_photographs_are_all_photographs(folders: list[tuple[int, int, int]]) -> None:
    """Each folder: photographs of its person, unusable ones, and ones of strangers."""
    with tempfile.TemporaryDirectory() as place:
        root, planted, expected, strangers = Path(place), [], 0, 40
        for number, (good, unusable, outliers) in enumerate(folders):
            folder = root / "photos" / f"p{number}"
            planted += [photograph(folder / f"good{look}.jpg", face(number, look)) for look in range(good)]
            planted += [
                photograph(folder / f"bad{look}.jpg", reason="no face found") for look in range(unusable)
            ]
            for _ in range(outliers):
                planted.append(photograph(folder / f"other{strangers}.jpg", face(strangers)))
                strangers += 1
            expected += good if good > 1 else int(good + outliers == 1)
        if expected == 0:
            with pytest.raises(BadInput):
                build(root / "photos", root / "bank.safetensors")
            assert not (root / "bank.safetensors").exists()
            return
        made = build(root / "photos", root / "bank.safetensors")
        rejected = [each.photo for each in made.rejected]
        assert len(made.bank.embeddings) == expected
        assert len(made.bank.embeddings) + len(rejected) == made.photos == len(planted)
        assert len(set(rejected)) == len(rejected)
        assert set(rejected) <= set(planted)
        assert all(each.reason for each in made.rejected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["bad", *"0123456789"]), min_size=1, max_size=30))
def test_kept_and_rejected_photographs_of_a_flat_folder_are_all_photographs(shown: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for look, who in enumerate(shown):
            if who == "bad":
                photograph(root / "photos" / f"{look:02d}.jpg", reason="no face found")
            else:
                photograph(root / "photos" / f"{look:02d}.jpg", face(int(who), look))
        groups = {who: count for who, count in Counter(shown).items() if who != "bad" and count > 1}
        if not groups:
            with pytest.raises(BadInput):
                build(root / "photos", root / "bank.safetensors")
            return
        made = build(root / "photos", root / "bank.safetensors")
        assert len(made.bank) == len(groups)
        assert len(made.bank.embeddings) == sum(groups.values())
        assert len(made.bank.embeddings) + len(made.rejected) == made.photos == len(shown)
        assert len({each.photo for each in made.rejected}) == len(made.rejected)


def test_strangers_beside_the_person_are_no_reason_to_list_a_photograph(tmp_path: Path) -> None:
    """With every face of a photograph read, as ``--several all`` does."""
    photos = people(tmp_path / "photos", 2)
    photograph(photos / "person-000" / "party.jpg", face(0, 7), face(41), face(42))
    made = build(photos, tmp_path / "bank.safetensors")
    assert (made.photos, made.faces, made.rejected) == (7, 9, [])
    assert len(made.bank.of("person-000")) == 4


def test_a_rejected_photograph_of_several_people_is_listed_once(tmp_path: Path) -> None:
    photos = people(tmp_path / "photos", 2)
    strangers = photograph(photos / "person-000" / "strangers.jpg", face(41), face(42))
    tied = photograph(photos / "tied" / "two.jpg", face(43), face(44))
    made = build(photos, tmp_path / "bank.safetensors")
    assert [each.photo for each in made.rejected] == [strangers, tied]


# --- refusals


def test_photographs_beside_folders_of_photographs_are_refused(tmp_path: Path) -> None:
    photograph(people(tmp_path / "photos") / "loose.jpg", face(30))
    with pytest.raises(
        BadInput, match=r"holds photographs \(loose.jpg\) beside folders of photographs \(person-000\)"
    ):
        build(tmp_path / "photos", tmp_path / "bank.safetensors")


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos" / "nobody").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"holds no photographs, neither in it nor in its folders"):
        build(tmp_path / "photos", tmp_path / "bank.safetensors")
    with pytest.raises(BadInput, match=r"'.*nowhere' is not a folder of photographs"):
        build(tmp_path / "nowhere", tmp_path / "bank.safetensors")


@pytest.mark.parametrize("flat", [False, True])
def test_only_unusable_photographs_are_refused_and_no_bank_is_written(tmp_path: Path, flat: bool) -> None:
    photograph(tmp_path / "photos" / ("" if flat else "anna") / "a.jpg", reason="no face found")
    with pytest.raises(BadInput, match=r"none of 1 photographs is usable" if flat else "no identity is left"):
        build(tmp_path / "photos", tmp_path / "bank.safetensors")
    assert not (tmp_path / "bank.safetensors").exists()


def test_an_existing_bank_is_kept(tmp_path: Path) -> None:
    photos, out, reader = people(tmp_path / "photos"), tmp_path / "bank.safetensors", FakeReader()
    out.write_text("mine")
    with pytest.raises(BadInput, match=r"exists already"):
        build(photos, out, reader)
    assert out.read_text() == "mine"
    assert reader.seen == []  # said before the work
    build_bank(photos, out, reader, FAKE_SETTINGS, force=True)
    assert len(IdentityBank.load(out)) == 5


def test_eps_out_of_range_is_refused(tmp_path: Path) -> None:
    photograph(tmp_path / "photos" / "a.jpg", face(1))
    with pytest.raises(BadInput, match=r"eps = 2.5"):
        build(tmp_path / "photos", tmp_path / "bank.safetensors", eps=2.5)


# --- doubles


def chained(root: Path) -> Path:
    """Anna, Bert and Cleo lean on each other in a row; Dora stands alone."""
    leaning = {"anna": (1, {}), "bert": (2, {1: 1.0, 3: 1.0}), "cleo": (3, {}), "dora": (4, {})}
    for name, (person, towards) in leaning.items():
        for look in range(2):
            photograph(root / name / f"{look}.jpg", face(person, look, towards=towards))
    return root


def test_doubles_are_reported_and_kept_apart(tmp_path: Path) -> None:
    made = build(chained(tmp_path / "photos"), tmp_path / "bank.safetensors")
    assert {(each.first, each.second) for each in made.doubles} == {("anna", "bert"), ("bert", "cleo")}
    assert all(0.5 <= each.cosine < 0.65 for each in made.doubles)
    assert made.bank.ids == ["anna", "bert", "cleo", "dora"]
    assert not made.merged
    assert sum(line.startswith("double?  ") for line in account(made)) == 2


def test_a_chain_of_doubles_is_merged_when_asked(tmp_path: Path) -> None:
    apart = build(chained(tmp_path / "photos"), tmp_path / "apart.safetensors")
    made = build(tmp_path / "photos", tmp_path / "bank.safetensors", merge=True)
    assert made.merged
    assert made.bank.ids == ["anna", "dora"]  # the first id stays
    assert torch.equal(
        made.bank.of("anna"), torch.cat([apart.bank.of(name) for name in ("anna", "bert", "cleo")])
    )
    assert torch.equal(made.bank.of("dora"), apart.bank.of("dora"))
    assert IdentityBank.load(tmp_path / "bank.safetensors").digest == made.bank.digest
    assert sum(line.startswith("merged  ") for line in account(made)) == 2


def test_merging_without_doubles_changes_nothing(tmp_path: Path) -> None:
    apart = build(people(tmp_path / "photos"), tmp_path / "apart.safetensors")
    made = build(tmp_path / "photos", tmp_path / "bank.safetensors", merge=True)
    assert (made.bank.digest, made.merged) == (apart.bank.digest, False)
    assert merge_doubles(apart.bank, []).digest == apart.bank.digest


# --- calibration


def test_calibration_from_known_and_from_unknown_identities(tmp_path: Path) -> None:
    people(tmp_path / "folders", 20, 3)
    for file in (tmp_path / "folders").rglob("*.jpg"):
        photograph(tmp_path / "flat" / f"{file.parent.name}-{file.name}", *json.loads(file.read_text()))
    known, unknown = (
        calibrate_photos(tmp_path / name, FakeReader(), FAKE_SETTINGS, cache=tmp_path / f".{name}.photos")
        for name in ("folders", "flat")
    )
    assert (known.labelled, unknown.labelled) == (True, False)
    for found in (known, unknown):
        assert found.impostor < 1 - found.eps < found.same_mean
        made = build(tmp_path / "flat", tmp_path / f"{found.labelled}.safetensors", eps=found.eps)
        assert (len(made.bank), made.rejected) == (20, [])
    assert known.same_mean == pytest.approx(unknown.same_mean, abs=0.02)


def test_calibration_leaves_no_cache_behind(tmp_path: Path) -> None:
    calibrate_photos(
        people(tmp_path / "photos"), FakeReader(), FAKE_SETTINGS, cache=tmp_path / ".cosines.png.photos"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["photos"]


def test_calibration_needs_a_usable_photograph(tmp_path: Path) -> None:
    photograph(tmp_path / "photos" / "a.jpg", reason="no face found")
    with pytest.raises(BadInput, match=r"none of the photographs in .* is usable"):
        calibrate_photos(tmp_path / "photos", FakeReader(), FAKE_SETTINGS, cache=tmp_path / ".cache")
