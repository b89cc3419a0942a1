"""The search for settings: on a landscape that is known, and a short one on the embedded base."""

import math
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import Cell
from piu_lora.jobs.arena import tune as job
from piu_lora.jobs.arena.arena import drawn_people
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.arena.tune import preset_text, score_of, seconds_of, tune, tuning_people
from piu_lora.model import find_family, mini
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.baselines import BASELINES
from piu_lora.unlearn.dial import value_of


def cell(forget: float, kept: float) -> Cell:
    figures = {"forget": forget, "nearest": kept, "random": kept, "anchor": kept}
    return Cell("a", 0, 0, 1.0, None, 1, {"conditioning": figures})


class FakeRound:
    """Forgets best at a rate of 3e-3, whoever it is; a far lower rate forgets nothing."""

    def __init__(self, session: Any, request: Any) -> None: ...

    def play(self, contender: Contender, person: int) -> Cell:
        config = contender.config(ForgetConfig(), find_family("mini"))
        away = abs(math.log10(config.train.lr / 3e-3))
        return cell(min(0.5 * away, 1.0), 1 - 0.05 * away)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "Round", FakeRound)
    monkeypatch.setattr(job, "open_request", lambda *_: None)
    session = SimpleNamespace(bank=mini.conditioning_bank(), reader=None)
    monkeypatch.setattr(job.Arena, "open_session", lambda _: session)


def test_a_search_recovers_from_a_bad_start_and_goes_on_later(known: None, tmp_path: Path) -> None:
    out = tmp_path / "preset.toml"
    how = {"people": 2, "settings": ["train.lr=9e-5"], "budget": "10m"}
    tuned = tune(out, "piu", trials=12, **how)
    assert tuned.trials == 12
    assert tuned.first < 0  # it begins with what it is given
    assert {path.name for path in tuned.files} == {"preset.toml", "preset.study", "preset.png"}
    again = tune(out, "piu", trials=25, **how)
    assert (again.trials, again.first) == (25, tuned.first)
    assert again.score >= tuned.score
    assert 1e-3 < again.settings["train.lr"] < 9e-3
    # The preset is what `--config` reads.
    config = ForgetConfig().updated_from_toml(out)
    assert config.method == "piu"
    assert config.train.lr == pytest.approx(again.settings["train.lr"], rel=1e-5)
    assert tune(out, "piu", trials=25, **how).trials == 25
    with pytest.raises(BadInput, match=r"is of 'piu train\.lr=9e-5', and this is 'closed-kv'"):
        tune(out, "closed-kv", trials=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nothing"}, "unknown method 'nothing'"),
        ({"method": "untouched"}, "unknown method 'untouched'"),
        ({"budget": "soon"}, "budget = 'soon' is no time; write it as 90s, 20m or 2h"),
        ({"out": "preset.json"}, "is no preset; name a .toml file"),
        ({"settings": ["train.lrr=1"]}, r"did you mean train\.lr\?"),
        ({"people": 5000}, "people = 5000 is out of range"),
    ],
)
def test_what_cannot_be_searched_is_refused(known: None, tmp_path: Path, options, message) -> None:
    given = {"method": "piu", "budget": "1s", "trials": 1, "out": "preset.toml"} | options
    with pytest.raises(BadInput, match=message):
        tune(tmp_path / given.pop("out"), given.pop("method"), **given)
    assert not (tmp_path / "preset.toml").exists()


def test_the_small_parts() -> None:
    assert [seconds_of(text) for text in ("90s", "20m", "1.5h")] == [90, 1200, 5400]
    assert score_of([cell(0.1, 0.9)]) == pytest.approx(0.9)
    assert score_of([cell(0.4, 1.2), cell(-0.1, 1.0)]) == pytest.approx((1 - 0.6 + 1) / 2)
    bank, family = mini.conditioning_bank(), find_family("mini")
    people = tuning_people(bank, family, 4)
    assert len(set(people)) == 4
    assert {bank.index(who) for who in people} <= mini.TUNED_ON
    assert not set(people) & set(drawn_people(bank, family, 100))


def test_a_preset_is_read_back() -> None:
    start = Contender("piu", ('anchor.rule="far-safe"', 'lora.blocks=["mid_block"]', "seed=7"))
    text = preset_text(start, {"train.lr": 0.00123, "objective.eta": 1.5}, 0.9, 3)
    values = tomllib.loads(text)
    assert values["train"] == {"lr": 0.00123}
    config = ForgetConfig().updated(values)
    assert (config.anchor.rule, config.lora.blocks, config.seed) == ("far-safe", ("mid_block",), 7)
    assert "--variant 'siss lr=0.001'" in preset_text(Contender("siss"), {"lr": 1e-3}, 0.5, 1)


def test_every_range_is_of_a_setting_that_exists() -> None:
    family = find_family("mini")
    for name, registered in {**METHODS, **BASELINES}.items():
        own = Contender(name)
        values = own.config(ForgetConfig(), family) if name in METHODS else own.baseline_settings(family)
        for entry in registered.search:
            low, high = entry.bounds(values)
            assert low < high
            assert low <= value_of(values, entry.setting) <= high
            Contender(name, (f"{entry.setting}={low:.6g}",)).settings(ForgetConfig(), family)
            Contender(name, (f"{entry.setting}={high:.6g}",)).settings(ForgetConfig(), family)


@pytest.mark.slow
def test_a_search_on_the_embedded_base(tmp_path: Path) -> None:
    tuned = tune(tmp_path / "preset.toml", "closed-kv", people=1, budget="10m", trials=2, device="cpu")
    assert tuned.trials == 2
    assert tuned.score >= tuned.first
    assert (tmp_path / "preset.png").read_bytes().startswith(b"\x89PNG")
