"""Answers from part of the data, through the engines: the same decisions as on all of it, and less work."""

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import layerscope as ls
from layerscope.analyses.robustness import robustness
from layerscope.engine.certified import shuffled
from layerscope.engine.task import Task
from layerscope.errors import UseError
from layerscope.report.asked import analysis as in_words

N = 3000


def trained() -> tuple[nn.Module, ls.Trajectory, list]:
    """A network of four layers that has learned something, its history, and data."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(N, 8, generator=random)
    y = ((x[:, 0] * x[:, 1] > 0) + 2 * (x[:, 2] > 0)).long()
    torch.manual_seed(0)
    model = nn.Sequential(*(m for _ in range(3) for m in (nn.Linear(8, 8), nn.Tanh())), nn.Linear(8, 4))
    start = ls.state_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(250):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return (
        model,
        ls.Trajectory.of(initial=start, final=ls.state_of(model)),
        [(x[i : i + 500], y[i : i + 500]) for i in range(0, N, 500)],
    )


@pytest.fixture(scope="module")
def case():
    return trained()


def asked(case, engine: str = "replay", **fields) -> ls.Table:
    model, trajectory, data = case
    return robustness(model, trajectory, data, ls.RobustnessSpec(draws=2, **fields), plan=ls.Plan(engine=engine))


@pytest.fixture(scope="module")
def exact(case) -> ls.Table:
    return asked(case)


def changes(table: ls.Table):
    rows = table.where(metric="error_delta")
    return rows[(rows["perturbation"] != "none") & (rows["interval"] != "draws")].reset_index(drop=True)


@pytest.mark.parametrize("within", [0.05, 0.02])
def test_within(case, exact, within):
    """Each interval is as narrow as asked, has the exact change in it, and was had from part of the data."""
    found, truth = changes(asked(case, within=within)), changes(exact)
    assert list(found["variant"]) == list(truth["variant"])
    assert ((found["high"] - found["low"]) <= 2 * within + 1e-9).all()
    assert ((found["low"] <= truth["value"] + 1e-9) & (truth["value"] <= found["high"] + 1e-9)).all()
    assert set(found["interval"]) == {"dataset"}
    assert found["n"].max() <= N
    assert found["n"].mean() < (0.5 if within == 0.05 else 0.95) * N


def test_decide(case, exact):
    """The verdicts are those of the exact changes."""
    table = asked(case, decide=True)
    found, truth = changes(table), changes(exact)
    unmodified = exact.where(metric="error", perturbation="none")["value"].item()
    gap = 0.75 - unmodified
    shown = found[found["verdict"].notna() & (found["verdict"] != "")]
    assert len(shown) >= 4
    for _, row in shown.iterrows():
        change = truth[truth["variant"] == row["variant"]]["value"].item() / gap
        assert row["verdict"] == ("destroyed" if change > 0.5 else "critical" if change > 0.1 else "ambient")
    assert found["n"].mean() < 0.5 * N
    about = table.provenance["certified"]
    assert (about["asked"], about["not_measured"], about["level"]) == ("verdicts", ["cross_entropy"], 0.95)


def test_both_engines_answer_alike(case):
    tables = [asked(case, engine, within=0.05).frame.drop(columns="engine") for engine in ("replay", "reference")]
    assert tables[0].equals(tables[1])


def test_all_of_the_data_is_exact(case, exact):
    found, truth = changes(asked(case, within=1e-4)), changes(exact)
    assert (found["n"] == N).all()
    assert found["value"].to_numpy() == pytest.approx(truth["value"].to_numpy(), abs=1e-12)
    assert (found["low"] == found["high"]).all()


def test_the_unmodified_network_is_measured_on_everything(case, exact):
    rows = [t.where(perturbation="none", metric="error").iloc[0] for t in (asked(case, within=0.05), exact)]
    assert rows[0]["n"] == N
    assert rows[0]["value"] == pytest.approx(rows[1]["value"], abs=1e-12)


def test_what_is_asked_is_known_beforehand(case):
    """Any change is within 60 points of some value; an estimate takes a look all the same."""
    found = changes(asked(case, within=0.6))
    assert set(found["n"]) == {128}


@pytest.mark.parametrize("engine", ["replay", "reference"])
def test_a_change_that_fails_has_no_answer_and_the_others_have_theirs(case, engine):
    model, trajectory, data = case
    start = trajectory.tensors(ls.INIT, ["2.weight"])["2.weight"]

    def forward(network, batch):
        if torch.equal(network[2].weight, start):
            raise ValueError("cold")
        return network(batch[0])

    spec, plan = ls.RobustnessSpec(draws=2, within=0.05), ls.Plan(engine=engine)
    table = robustness(model, trajectory, data, spec, forward=forward, plan=plan)
    failed = table.where(status="failed")
    assert set(failed["part"]) == {"2", "whole network"}
    assert set(failed["reason"]) == {"ValueError: cold"}
    found, truth = changes(table), changes(asked(case, engine, within=0.05))
    columns = ["variant", "n", "low", "high"]
    without = truth[~truth["variant"].isin(failed["variant"])]
    assert found[columns].reset_index(drop=True).equals(without[columns].reset_index(drop=True))
    assert len(found) == len(truth) - 2


def test_the_order_depends_on_the_seed_alone():
    batches = [(torch.arange(i, i + 7.0)[:, None], torch.arange(i, i + 7)) for i in range(0, 700, 7)]
    orders = []
    for data, seed in (
        (batches, 0),
        ([(torch.cat(a), torch.cat(b)) for a, b in [zip(*batches, strict=True)]], 0),
        (batches, 1),
    ):
        task = shuffled(Task(data, []), seed, "test")
        orders.append(torch.cat([targets for _, targets in task.data]))
        assert all(torch.equal(inputs[:, 0].long(), targets) for inputs, targets in task.data)
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert sorted(orders[0].tolist()) == list(range(700))
    positions = np.corrcoef(orders[0].numpy(), np.arange(700))[0, 1]
    assert abs(positions) < 0.15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"metrics": ("cross_entropy",), "within": 0.01},
            "right or wrong of each sample, as error does, not cross_entropy",
        ),
        ({"within": 2.0}, "within is a half width between 0 and 1"),
        ({"within": 0.1, "decide": True}, "give either within or decide"),
        ({"ambient": 0.5, "decide": True}, r"ambient \(0.5\) must be below destroyed"),
    ],
)
def test_what_cannot_be_asked(case, change, message):
    with pytest.raises(UseError, match=message):
        asked(case, **change)


def test_ragged_batches_cannot_be_put_in_order():
    with pytest.raises(UseError, match="cannot be taken apart into samples"):
        shuffled(Task([(torch.zeros(2, 3), torch.zeros(2)), (torch.zeros(2, 4), torch.zeros(2))], []), 0, "test")
    with pytest.raises(UseError, match=r"as many of everything as there are samples, but there are \[2, 3\]"):
        shuffled(Task([(torch.zeros(2, 3), torch.zeros(3))], []), 0, "test")


def test_a_network_that_guesses_has_nothing_to_decide(case):
    model, _, data = case
    torch.manual_seed(1)
    blank = {name: torch.zeros_like(value) for name, value in ls.state_of(model).items()}
    with pytest.raises(UseError, match="no better than guessing"):
        robustness(model, ls.Trajectory.of(initial=blank, final=blank), data, ls.RobustnessSpec(decide=True, draws=0))


def test_what_is_shown_says_on_how_many_samples_it_rests(case):
    table = asked(case, decide=True)
    n = table.where(metric="error", perturbation="rewind")["n"]
    console = Console(width=120)
    with console.capture() as shown:
        console.print(ls.plots.terminal_map(table))
    assert f"n = {n.min():,} to {n.max():,}" in shown.get()
    said = " ".join(in_words(table.provenance["spec"], table))
    assert "Samples were taken in a random order (seed 0), for each change only until its verdict was settled" in said
    assert "Not measured for this reason: cross entropy." in said
