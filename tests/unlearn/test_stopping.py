import pytest
import torch

from piu_lora import forget, read_adapter
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.jobs.request.request import open_request
from piu_lora.model import adapters_disabled, encode_embeddings, encoder_adapter
from piu_lora.unlearn import Problem, TargetIdentity, train, training_facts
from piu_lora.unlearn.distil import DistilObjective
from piu_lora.unlearn.loop import learning_rate
from piu_lora.unlearn.stopping import cooling, first_look, is_due, last_step, progress_terms, said_stop
from piu_lora.unlearn.workers import SingleProcess
from tests.unlearn.test_distil import randomised, student_of
from tests.unlearn.test_loop import Line, Points, config, interrupted
from tests.unlearn.test_piu import objective as objective

STOP = {"stop_at": 0.9, "check_every": 3, "patience": 2, "cooldown": 4}


class GaugedLine(Line):
    """How far the line's values have come from 0 to the wanted ones."""

    def check_draw(self, count: int, generator: torch.Generator) -> Points:
        return self.draw(count, generator)

    def progress_terms(self, draw: Points) -> tuple[float, float]:
        now = draw.x @ self.weight.detach()
        return progress_terms(now, torch.zeros_like(now), draw.x @ torch.tensor([1.0, -2.0, 0.5]))


def run(
    line: Line,
    workers: SingleProcess = SingleProcess(),  # noqa: B008
    **changes: object,  # noqa: B008, RUF100
) -> tuple[torch.Tensor, list[dict[str, float]]]:
    history = train(line, [line.weight], config(steps=300, schedule="cosine", **changes), 7, workers=workers)
    return line.weight.detach().clone(), history


def test_the_share_of_the_way() -> None:
    before, target = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0])
    assert progress_terms(before, before, target) == (0.0, 4.0)
    assert progress_terms(target, before, target) == (4.0, 4.0)
    assert progress_terms(torch.tensor([2.0, 9.0]), before, target) == (
        2.0,
        4.0,
    )  # what is off the way does not count


def test_it_stops_when_the_figure_is_reached_and_cools_down() -> None:
    weight, history = run(GaugedLine(), **STOP)
    figures = {step: terms["progress"] for step, terms in enumerate(history, 1) if "progress" in terms}
    stopped = min(step for step, figure in figures.items() if figure >= 0.9)
    assert list(figures) == [*range(3, stopped + 1, 3), stopped + 4]
    assert len(history) == stopped + 4 < 300
    x = GaugedLine().check_draw(16, torch.Generator().manual_seed(7 * 1_000_003 - 1)).x
    wanted = x @ torch.tensor([1.0, -2.0, 0.5])
    assert figures[stopped + 4] == pytest.approx(float((x @ weight @ wanted) / (wanted @ wanted)), rel=1e-5)
    facts = {"steps": stopped + 4, "stopped": stopped, "progress": round(figures[stopped + 4], 4)}
    assert training_facts(history, config(**STOP)) == facts


def test_a_run_that_does_not_move_says_so_early(caplog: pytest.LogCaptureFixture) -> None:
    """And the look changes nothing of the run."""
    assert [first_look(config(steps=steps, warmup=10)) for steps in (49, 50, 150, 400, 5000)] == [
        0,
        15,
        15,
        40,
        40,
    ]
    weight, history = run(GaugedLine(), lr=1e-7)
    (record,) = caplog.records
    assert record.message.startswith("after 30 of 300 steps the forgotten person's prediction has gone 0.00%")
    assert "Raise train.lr (it is 1e-07; a LoRA wants about ten times" in record.message
    assert not any("progress" in terms for terms in history)
    assert torch.equal(weight, run(Line(), lr=1e-7)[0])
    caplog.clear()
    run(GaugedLine())
    run(Line())
    assert not caplog.records


def test_it_goes_on_to_the_end_where_the_figure_is_never_reached() -> None:
    _, history = run(GaugedLine(), **{**STOP, "stop_at": 5.0, "patience": 1000})
    assert len(history) == 300
    assert training_facts(history, config(**{**STOP, "stop_at": 5.0}))["progress"] == pytest.approx(
        1.0, abs=0.01
    )


def test_it_ends_when_the_figure_does_not_rise() -> None:
    line = GaugedLine()
    line.progress_terms = lambda draw: (0.5, 1.0)  # type: ignore[method-assign]
    _, history = run(line, **STOP)
    assert len(history) == 3 * 3 + 4  # the best at step 3, two looks without a rise, four steps of cooling


def test_the_rate_falls_on_a_line_after_the_stop() -> None:
    settings = config(**STOP)
    history: list[dict[str, float]] = [{"loss": 1.0}, {"loss": 1.0}, {"progress": 0.95}]
    assert said_stop(history[:2], settings) is None
    assert said_stop(history, settings) == 3
    assert last_step(history, settings) == 7
    assert cooling(history[:2], settings) == 1.0
    assert [cooling([*history, *[{}] * more], settings) for more in range(4)] == pytest.approx(
        [0.8, 0.6, 0.4, 0.2]
    )
    assert is_due(7, [*history, *[{}] * 4], settings)
    assert not is_due(6, [*history, *[{}] * 3], settings)
    assert last_step(history, config(**{**STOP, "steps": 5})) == 5


def test_without_stop_at_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    gauged, history = run(GaugedLine(), check_every=1)
    plain, other = run(Line())
    assert torch.equal(gauged, plain)
    assert history == other
    assert training_facts(history, config()) == {}
    # Against the loop as it was: the schedule's rate at every step, nothing else.
    line = Line()
    optimizer = torch.optim.AdamW([line.weight], lr=0.05, weight_decay=0.01)
    settings = config(steps=300, schedule="cosine")
    for step in range(300):
        optimizer.param_groups[0]["lr"] = learning_rate(step, settings)
        optimizer.zero_grad()
        line.loss(line.draw(8, torch.Generator().manual_seed(7 * 1_000_003 + step)))[0].backward()
        optimizer.step()
    assert torch.equal(plain, line.weight.detach())


@pytest.mark.parametrize("at", [2, 3, -5, -4, -2])
def test_stop_and_resume_is_bit_identical(at: int) -> None:
    """Interrupted before and after a look, at the step that says stop, and while it cools down."""
    weight, history = run(GaugedLine(), **STOP)
    settings = config(steps=300, schedule="cosine", **STOP)
    state = interrupted(GaugedLine(), settings, at if at > 0 else len(history) + at)
    again = GaugedLine()
    rest = train(again, [again.weight], settings, 7, state=state)
    assert torch.equal(weight, again.weight.detach())
    assert history == rest


def test_every_process_takes_its_share_of_the_look() -> None:
    """Two processes whose sums are added up say what one says."""

    class Half(SingleProcess):
        count = 2
        sums: torch.Tensor

        def __init__(self, rank: int, other: torch.Tensor | None = None) -> None:
            self.rank, self.other = rank, other

        def sum(self, tensors: list[torch.Tensor]) -> None:
            if tensors[0].dtype == torch.float64 and len(tensors[0]) == 2:
                self.own = tensors[0].clone()
                if self.other is not None:
                    tensors[0].add_(self.other)

    from piu_lora.unlearn.loop import _Run
    from piu_lora.unlearn.micro_batch import MicroBatch

    def look(workers: SingleProcess) -> float:
        line = GaugedLine()
        with torch.no_grad():
            line.weight.copy_(torch.tensor([0.3, 0.1, 0.2]))
        nothing = torch.optim.AdamW([line.weight])
        settings = config(**STOP, check_samples=9)
        made = _Run(
            line,
            [line.weight],
            settings,
            workers,
            nothing,
            torch.amp.GradScaler(enabled=False),
            MicroBatch(2, 8),
        )
        return made.progress(torch.Generator().manual_seed(0))

    first = Half(0)
    alone, part = look(SingleProcess()), look(first)
    assert part != pytest.approx(alone, rel=1e-6)
    assert look(Half(1, first.own)) == pytest.approx(alone, rel=1e-12)


def test_an_objective_without_a_figure_is_refused() -> None:
    with pytest.raises(BadInput, match=r"train\.stop_at = 0\.9: this method has no figure"):
        run(Line(), stop_at=0.9)


def test_a_quarter_of_the_embeddings_is_set_apart() -> None:
    rows, anchor = torch.eye(9), torch.ones(9)
    assert TargetIdentity.with_validation(rows[:2], anchor).validation is None
    for count, validation in ((3, 1), (6, 1), (8, 2)):
        target = TargetIdentity.with_validation(rows[:count], anchor)
        assert target.validation is not None
        assert torch.equal(torch.cat([target.forget, target.validation]), rows[:count])
        assert len(target.validation) == validation
    problem = Problem(
        (TargetIdentity.with_validation(rows[:4], anchor), TargetIdentity(rows[5:7], anchor)), rows
    )
    looked, whose = problem.validation(20, torch.Generator().manual_seed(0))
    assert torch.equal(looked[whose == 0], rows[3].expand(10, 9))
    assert float(looked[whose == 1][:, 5:7].square().sum(dim=1).min()) == pytest.approx(1)
    trained, whose = problem.mixtures(20, torch.Generator().manual_seed(0))
    assert not bool(trained[whose == 0][:, 3].any())


def test_nothing_is_set_apart_unless_training_may_end_early(bank, fast) -> None:
    whole = open_request("person-003", bank, fast, None).problem.targets[0]
    some = open_request("person-003", bank, fast.updated({"train": {"stop_at": 0.5}}), None).problem.targets[
        0
    ]
    assert whole.validation is None
    assert some.validation is not None
    assert torch.equal(whole.forget, torch.cat([some.forget, some.validation]))


def test_pius_figure_is_the_formula_in_separate_passes(objective, pipe) -> None:
    objective.eta = 1.3
    objective.problem = Problem(
        (TargetIdentity.with_validation(objective.problem.targets[0].forget, objective.problem.anchors[0]),),
        torch.eye(16),
    )
    draw = objective.check_draw(5, torch.Generator().manual_seed(2))
    validation = objective.problem.targets[0].validation
    assert validation is not None
    assert torch.allclose(draw.forget, validation.expand_as(draw.forget), atol=1e-6)
    z, t, c = draw.forget_latents, draw.forget_times, objective.model.encode(draw.forget)
    with torch.no_grad():
        with adapters_disabled(pipe.unet):
            own, anchor = pipe.unet(z, t, c).sample, pipe.unet(z, t, objective.anchors.expand_as(c)).sample
        now = pipe.unet(z, t, c).sample
    way = 2.3 * (anchor - own)
    done, length = objective.progress_terms(draw)
    assert length == pytest.approx(float(way.square().sum()), rel=1e-4)
    assert done == pytest.approx(float(((now - own) * way).sum()), rel=1e-3)
    assert abs(done / length) > 1e-3


def test_distils_figure_is_the_formula_in_separate_passes(pipe, bank, fast) -> None:
    settings = fast.updated({"distil": {"eta": 0.7}, "train": {"stop_at": 0.5}})
    problem, model = (
        open_request(["person-003", "person-011"], bank, settings, None).problem,
        student_of(pipe),
    )
    with encoder_adapter(pipe.text_encoder, 4, "x", 0):
        randomised(pipe)
        made = DistilObjective(problem, model, settings)
        draw = made.check_draw(6, torch.Generator().manual_seed(0))
        done, length = made.progress_terms(draw)
        now = encode_embeddings(pipe.text_encoder, pipe.tokenizer, draw.forget).detach()
    before, anchors = (
        encode_embeddings(pipe.text_encoder, pipe.tokenizer, rows).detach()
        for rows in (draw.forget, problem.anchors)
    )
    way = (1.7 * (anchors[draw.whose] - before))[:, 3:]
    assert length == pytest.approx(float(way.square().sum()), rel=1e-4)
    assert done == pytest.approx(float(((now - before)[:, 3:] * way).sum()), rel=1e-3)


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("method", ["piu", "distil-encoder"])
def test_the_receipt_says_when_it_stopped(method: str, pipe, bank, fast: ForgetConfig, tmp_path) -> None:
    steps = {"steps": 30, "stop_at": 1e-9, "check_every": 2, "check_samples": 4, "cooldown": 1}
    settings = fast.updated({"method": method, "train": steps})
    result = forget("person-003", pipe, tmp_path / "out", bank=bank, config=settings)
    facts = read_adapter(result.path).receipt.solution
    assert facts["steps"] == facts["stopped"] + 1 < 30
    assert facts["progress"] > 0
    assert (result.path / "report" / "loss.png").exists()
    plain = forget(
        "person-003", pipe, tmp_path / "plain", bank=bank, config=settings.updated({"train": fast.train})
    )
    assert "progress" not in read_adapter(plain.path).receipt.solution
