import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from piu_lora.config import DEFAULT_METHOD, AnchorConfig, ForgetConfig, SplitConfig, TrainConfig
from piu_lora.errors import BadInput
from piu_lora.model import FAMILIES, BaseFamily, find_family
from piu_lora.unlearn import ObjectiveConfig


def test_defaults_are_the_papers() -> None:
    config = ForgetConfig()
    train, lora, objective = config.train, config.lora, config.section_of(ObjectiveConfig)
    assert (train.lr, train.steps, train.batch, train.accumulation) == (1e-4, 400, 16, 2)
    assert (objective.retain_weight, objective.eta) == (10.0, 1.0)
    assert (config.anchor.rule, config.anchor.tau, config.anchor.tolerance) == ("proximity", 0.2, 0.01)
    assert (config.split.forget_held_out, config.split.retain_held_out) == (0.35, 0.10)
    assert (lora.rank, set(lora.projections)) == (16, {"to_q", "to_k", "to_v", "to_out.0"})
    assert (config.method, config.retain.neighbours, train.schedule, train.clip) == (
        "piu",
        0.0,
        "constant",
        0.0,
    )


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ForgetConfig().train.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("family", sorted(name for name, family in FAMILIES.items() if family.presets))
def test_a_preset_changes_what_it_names_and_nothing_else(family: str) -> None:
    values = find_family(family).presets[""]
    plain, preset = ForgetConfig().to_dict(), ForgetConfig.preset(find_family(family), "piu").to_dict()
    named = {(section, key): value for section, values in values.items() for key, value in values.items()}
    for section in plain.keys() - {"method", "seed"}:
        for key, value in preset[section].items():
            assert value == named.pop((section, key), plain[section][key]), f"{section}.{key}"
    assert not [key for key in named if key[0] in plain]  # other methods' sections wait for theirs


def test_a_family_without_preset_gets_the_papers() -> None:
    assert ForgetConfig.preset(BaseFamily("arc2face-of-tomorrow", "tomorrow", 512), "piu") == ForgetConfig()


def test_without_a_method_a_preset_takes_the_one_that_measures_best() -> None:
    mini = find_family("mini")
    assert ForgetConfig.preset(mini) == ForgetConfig.preset(mini, DEFAULT_METHOD)
    assert ForgetConfig().method == "piu"  # the paper's recipe


def test_a_method_has_defaults_of_its_own_and_some_on_one_family() -> None:
    plain, paper, mini = (
        ForgetConfig.preset(find_family(name), *method)
        for name, *method in (("mini", "piu"), ("arc2face", "piu-warm"), ("mini", "piu-warm"))
    )
    assert (paper.train.start, paper.train.steps, paper.train.lr) == (
        "closed-kv",
        ForgetConfig().train.steps // 4,
        ForgetConfig().train.lr,
    )
    assert (mini.train.start, mini.train.steps, mini.train.schedule) == (
        "closed-kv",
        plain.train.steps // 4,
        plain.train.schedule,
    )
    assert mini.train.lr > plain.train.lr
    assert mini.section_of(ObjectiveConfig) == plain.section_of(ObjectiveConfig)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.step", r"unknown setting 'train\.step': did you mean train\.steps\?"),
        ("anchor.tua", r"unknown setting 'anchor\.tua': did you mean anchor\.tau\?"),
        ("trian.steps", r"unknown setting 'trian': did you mean train\?"),
        ("xyzzy", r"unknown setting 'xyzzy': known here: method, seed, faces, split,"),
        ("lora.xyzzy", r"unknown setting 'lora\.xyzzy': known here: lora\.rank, lora\.blocks"),
        ("", "unknown setting ''"),
    ],
)
def test_unknown_keys_suggest_the_nearest(key: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ForgetConfig().updated_from_pairs([f"{key}=1"])


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("train.steps=many", r"train\.steps = 'many' has the wrong type: expected int"),
        ("train.steps=4.0", r"train\.steps = 4\.0 .* expected int"),
        ("train.steps=true", r"train\.steps = True .* expected int"),
        ("train.lr=true", r"train\.lr = True .* expected float"),
        ("seed=", "seed = '' .* expected int"),
        ("method=3", "method = 3 .* expected str"),
        ("lora.blocks=mid_block", r"lora\.blocks = 'mid_block' .* expected a list of strings"),
        ("lora.blocks=[1]", r"lora\.blocks = \[1\] .* expected a list of strings"),
        ("train.schedule=linear", r"train\.schedule = 'linear' .* expected one of \['constant', 'cosine'\]"),
        ("train.micro_batch=many", r"train\.micro_batch = 'many' .* expected int or one of \['auto'\]"),
        ("train.micro_batch=true", r"train\.micro_batch = True .* expected int or one of \['auto'\]"),
        ("train.precision=fp8", r"train\.precision = 'fp8' .* expected one of \['fp32', 'bf16', 'fp16'\]"),
        ("train=3", r"train = 3 is a section: set one of its keys, for example train\.steps"),
        ("train.steps.more=3", r"train\.steps = \{'more': 3\} has the wrong type"),
    ],
)
def test_wrong_types_quote_the_value(pair: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ForgetConfig().updated_from_pairs([pair])


OUT_OF_RANGE = {
    "seed": "-1 2147483648",
    "split.forget_held_out": "1.0 -0.1",
    "split.retain_held_out": "0.0 1.0",
    "split.same_person": "0.0 1.5",
    "anchor.tau": "1.5 -1.5 nan",
    "anchor.tolerance": "0.0 2.5",
    "lora.rank": "0",
    "objective.eta": "-0.5 nan",
    "objective.retain_weight": "-1.0",
    "retain.neighbours": "-0.5 1.5",
    "train.steps": "0",
    "train.batch": "0",
    "train.accumulation": "-3",
    "train.checkpoint_every": "0",
    "train.lr": "0.0 -0.5 nan",
    "train.weight_decay": "-0.5",
    "train.micro_batch": "0 -1",
    "train.warmup": "-1",
    "train.clip": "-0.5",
    "evaluation.forget_images": "0",
    "evaluation.retain_images": "0",
    "evaluation.nearest": "0",
    "evaluation.anchor_images": "0",
    "evaluation.steps": "0",
    "evaluation.batch": "0",
    "evaluation.guidance": "0.5",
    "anchor.far": "0.0 1.0",
    "anchor.margin": "-0.5 1.0",
    "closed.eta": "-0.5",
    "closed.retain_weight": "0.0",
    "closed.empty_weight": "-1.0",
    "closed.anchor_weight": "-1.0",
    "closed.ridge": "0.0",
    "closed.neighbours": "1.0 -0.5",
    "closed.mixtures": "0",
    "closed.retained": "0",
    "closed.near": "0",
    "closed.layers": "-1",
    "closed.tolerance": "1.0",
    "closed.rank": "0",
    "distil.rank": "-1",
    "distil.eta": "-0.5",
    "distil.retain_weight": "-1.0",
    "closed.positions": "0",
    "distil.empty_weight": "-1.0",
    "distil.unseen": "-0.5 1.5",
    "distil.unseen_low": "1.0",
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_range_errors_quote_name_and_value(name: str) -> None:
    for value in OUT_OF_RANGE[name].split():
        with pytest.raises(BadInput) as error:
            ForgetConfig().updated_from_pairs([f"{name}={value}"])
        assert str(error.value).startswith(f"{name} = {value} is out of range: expected ")


def test_shares_of_one_batch() -> None:
    with pytest.raises(
        BadInput, match=r"retain\.neighbours \+ retain\.near = 1\.25 is out of range: expected 1 at most"
    ):
        ForgetConfig().updated_from_pairs(["retain.neighbours=0.5", "retain.near=0.75"])


@pytest.mark.parametrize(
    ("pair", "quoted"),
    [
        ("lora.blocks=[]", "lora.blocks = []"),
        ("lora.projections=[]", "lora.projections = []"),
        ('lora.projections=["to_q", "to_x"]', "lora.projections = ['to_q', 'to_x']"),
        ("retain={neighbour_low=0.8, neighbour_high=0.7}", "retain.neighbour_low/high = (0.8, 0.7)"),
        ("retain.near=1.25", "retain.near = 1.25"),
        ("retain.near_pool=0", "retain.near_pool = 0"),
        ("distil.anchors=1.25", "distil.anchors = 1.25"),
        ("distil={neighbour_low=0.8, neighbour_high=0.7}", "distil.neighbour_low/high = (0.8, 0.7)"),
        ("retain.neighbour_high=1.0", "retain.neighbour_high = 1.0"),
    ],
)
def test_range_errors_of_lists_and_pairs(pair: str, quoted: str) -> None:
    with pytest.raises(BadInput) as error:
        ForgetConfig().updated_from_pairs([pair])
    assert str(error.value).startswith(f"{quoted} is out of range: expected ")


@pytest.mark.parametrize(
    "pair", ["split.forget_held_out=0", "anchor.tau=-1", "train.warmup=399", "evaluation.guidance=1"]
)
def test_edges_of_the_ranges_are_allowed(pair: str) -> None:
    name, value = pair.split("=")
    section, key = name.split(".")
    assert ForgetConfig().updated_from_pairs([pair]).to_dict()[section][key] == float(value)


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("4", 4)])
def test_a_number_or_a_word(text: str, value: object) -> None:
    assert ForgetConfig().updated_from_pairs([f"train.micro_batch={text}"]).train.micro_batch == value


def test_the_constructor_validates_too() -> None:
    with pytest.raises(BadInput, match=r"split\.retain_held_out = 0 is out of range"):
        SplitConfig(retain_held_out=0)
    with pytest.raises(BadInput, match=r"train\.warmup = -5 .* 0 or more"):
        TrainConfig(steps=5, warmup=-5)


def test_a_wide_band_is_checked_only_where_it_is_used() -> None:
    AnchorConfig(tolerance=0.1, max_tolerance=0.05)
    with pytest.raises(BadInput, match=r"anchor\.max_tolerance = 0.05 .* at least anchor\.tolerance"):
        AnchorConfig(tolerance=0.1, max_tolerance=0.05, on_empty="widen")


shares = st.floats(0, 1, exclude_max=True)
amounts = st.floats(0, 1e6)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "method": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "split": st.fixed_dictionaries(
            {}, optional={"forget_held_out": shares, "same_person": st.floats(0.01, 1)}
        ),
        "anchor": st.fixed_dictionaries(
            {"tau": st.floats(-1, 1)}, optional={"on_empty": st.sampled_from(["error", "widen"])}
        ),
        "lora": st.fixed_dictionaries(
            {"blocks": st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1)}
        ),
        "objective": st.fixed_dictionaries({"eta": amounts, "retain_weight": amounts}),
        "train": st.fixed_dictionaries(
            {"steps": st.integers(1, 10**9), "lr": st.floats(1e-12, 10), "clip": amounts}
        ),
    },
)


def toml_of(values: dict[str, Any]) -> str:
    """Nested settings as a TOML file; the two languages write values alike but for DEL."""

    def lines(group: dict[str, Any]) -> list[str]:
        return [
            f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007F")
            for key, value in group.items()
            if not isinstance(value, dict)
        ]

    sections = {key: group for key, group in values.items() if isinstance(group, dict)}
    text = [*lines(values)]
    for name, group in sections.items():
        text += [f"[{name}]", *lines(group)]
    return "\n".join(text) + "\n"


@settings(deadline=None)
@given(CHANGES)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]) -> None:
    config = ForgetConfig().updated(changes)
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    path.write_text(toml_of(config.to_dict()), newline="")
    mini = ForgetConfig.preset(find_family("mini"))
    assert mini.updated_from_toml(path) == config
    assert mini.updated(json.loads(json.dumps(config.to_dict()))) == config


def test_toml_lays_over_and_takes_whole_numbers_for_floats(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("seed = 7\n[train]\nlr = 1\n")
    config = ForgetConfig.preset(find_family("mini")).updated_from_toml(path)
    assert (config.seed, config.train.lr, config.train.steps) == (
        7,
        1.0,
        find_family("mini").presets[""]["train"]["steps"],
    )
    assert isinstance(config.train.lr, float)


@pytest.mark.parametrize("content", [b"[train", b"\xff\xfe", None])
def test_an_unreadable_settings_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"cannot read the settings file '.*settings\.toml'"):
        ForgetConfig().updated_from_toml(path)


def test_pairs_read_toml_values_else_text_and_the_last_one_wins() -> None:
    pairs = [
        "train.steps=3",
        " train.steps = 5 ",
        "lora.blocks=['mid_block']",
        "anchor.rule=nearest",
        'anchor.identity="a=b"',
    ]
    config = ForgetConfig().updated_from_pairs(pairs)
    assert (config.train.steps, config.lora.blocks) == (5, ("mid_block",))
    assert (config.anchor.rule, config.anchor.identity) == ("nearest", "a=b")


def test_a_pair_without_equals_shows_how() -> None:
    with pytest.raises(
        BadInput, match=r"the setting 'train\.steps' has no '='; .* for example train\.steps=200"
    ):
        ForgetConfig().updated_from_pairs(["train.steps"])


@pytest.mark.parametrize(
    "pairs", [("train.warmup=500", "train.steps=1000"), ("anchor.tolerance=0.1", "anchor.max_tolerance=0.2")]
)
def test_the_order_of_pairs_does_not_matter(pairs: tuple[str, str]) -> None:
    preset = ForgetConfig.preset(find_family("mini"))
    assert preset.updated_from_pairs(pairs) == preset.updated_from_pairs(reversed(pairs))


@pytest.mark.parametrize(
    "pair", ["train.lr=inf", "objective.eta=inf", "objective.retain_weight=inf", "evaluation.guidance=inf"]
)
def test_infinity_is_out_of_range(pair: str) -> None:
    with pytest.raises(BadInput, match="out of range"):
        ForgetConfig().updated_from_pairs([pair])


def test_an_integer_too_large_for_a_float_is_an_error() -> None:
    with pytest.raises(BadInput, match=r"train\.clip"):
        ForgetConfig().updated_from_pairs([f"train.clip={10**400}"])
