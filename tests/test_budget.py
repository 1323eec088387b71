"""The best answer within a time: who is measured next, what holds when the time is over, and going on after a stop."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import layerscope as ls
from layerscope import runtime
from layerscope.analyses import robustness as rooms
from layerscope.analyses import session
from layerscope.analyses.draws import over_draws
from layerscope.analyses.material import material_of
from layerscope.analyses.session import analyze, cost
from layerscope.analyses.verdicts import verdict
from layerscope.cli import main
from layerscope.engine.budget import ALIKE, FIRST, TOGETHER, Cell, following, spend, tally, used
from layerscope.engine.subject import Subject
from layerscope.errors import UseError
from layerscope.perturb import Variant
from layerscope.query import in_words, seconds_of
from layerscope.report.asked import analysis as in_sentences
from layerscope.sequential import Answers, Decide, Narrow, Question, Within, looks
from layerscope.stats import Interval
from tests.test_certified import changes, trained

N = 3000


class Clock:
    """Tells the time that others set; `step` passes each time it is asked."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Made:
    """A map with known outcomes [cells, n] in a random order, of which a sample of a cell takes `each` seconds."""

    def __init__(self, outcomes: np.ndarray, reference: np.ndarray, seed: int, rule=None, level=0.95, each=1.0) -> None:
        order = np.random.default_rng(seed).permutation(len(reference))
        self.outcomes, self.reference, self.each, self.clock = outcomes[:, order], reference[order], each, Clock()
        right = int((~reference).sum())
        self.question = Question(right, len(reference) - right, len(outcomes), rule or Narrow(), level)
        self.ends = looks(len(reference), 32, 1.6)
        self.truth = outcomes.mean(1) - reference.mean()

    @property
    def cells(self) -> list[Cell]:
        return [Cell("test", Variant(draw=i), Answers.of(self.question, 1)) for i in range(len(self.outcomes))]

    def work(self, cells: Sequence[Cell], start: int, stop: int) -> Iterator[Cell]:
        known = Answers.joined([cell.answers for cell in cells])
        for a, b in list(pairwise([0, *self.ends]))[start:stop]:
            rows = [cell.variant.draw for cell, more in zip(cells, known.open, strict=True) if more]
            now, was = self.outcomes[rows, a:b], self.reference[a:b]
            known = known.after(int((~was).sum()), int(was.sum()), (now & ~was).sum(1), (was & ~now).sum(1))
            self.clock.now += self.each * len(rows) * (b - a)
            if not known.open.any():
                break
        for i, cell in enumerate(cells):
            yield Cell("test", cell.variant, known.cell(i), cell.seconds, {"status": "ok"})

    def spent(self, seconds: float, cells: list[Cell] | None = None) -> Iterator[list[Cell]]:
        """What is known each time that more is."""
        cells = self.cells if cells is None else cells
        for i, cell in spend(list(cells), {"test": self.ends}, self.work, seconds, self.clock):
            cells[i] = cell
            yield cells

    def best(self, seconds: float) -> list[Cell]:
        return [self.cells, *self.spent(seconds)][-1]

    def untrue(self, cells: Sequence[Cell]) -> bool:
        """Whether any interval misses the truth."""
        low, high = (np.array([float(bound) for cell in cells for bound in getattr(cell.answers, end)]) for end in ENDS)
        return bool(((self.truth < low - 1e-9) | (self.truth > high + 1e-9)).any())


ENDS = ("low", "high")


def made(shares: Sequence[float], n: int, seed: int, wrong: float = 0.1, **more) -> Made:
    """A map of cells that change so large a share of outcomes."""
    rng = np.random.default_rng(1000 + seed)
    reference = np.arange(n) < wrong * n
    return Made(reference ^ (rng.random((len(shares), n)) < np.array(shares)[:, None]), reference, seed, **more)


def with_n(n: int, width: float, split: str = "test", seconds: float = 0.0) -> Cell:
    """A cell of 10,000 samples that has had n, and an interval of this width."""
    question = Question(10_000, 0, 9, Narrow())
    counts = np.array([[[n, 0, 0, 0]]]) if n else np.zeros((1, 0, 4), dtype=np.int64)
    known = Answers(question, counts.astype(np.int64), np.array([0]), np.array([round(width * 10_000)]))
    return Cell(split, Variant(), known, seconds, {"status": "ok"} if n else {})


LOOKS = {"test": [128, 192, 256, 400, 512, 1024, 2048, 5000, 10_000], "train": [128, 256, 10_000]}


class TestWhoIsNext:
    def test_the_widest_interval_first(self):
        cells = [with_n(256, 0.02, seconds=1), with_n(256, 0.5), with_n(256, 0.1)]
        assert following(cells, LOOKS, 1e9).cells == (1,)

    def test_with_those_about_as_wide_on_as_many_samples_of_the_same_data(self):
        cells = [
            with_n(256, 0.4, seconds=1),
            with_n(512, 0.5),
            with_n(256, 0.34),
            with_n(256, 0.5, "train"),
            with_n(256, 0.5),
            with_n(256, 0.36),
        ]
        assert 0.34 < ALIKE * 0.5 < 0.36
        assert [following(cells[i:], LOOKS, 1e9).cells for i in (0, 2, 4)] == [(1,), (1,), (0, 1)]
        cells[1], cells[3] = with_n(256, 0.44), with_n(256, 0.38)
        assert following(cells, LOOKS, 1e9).cells == (4, 1, 0, 3, 5)

    def test_those_without_samples_before_all_others_in_the_order_asked(self):
        cells = [with_n(256, 0.999, seconds=1), *(with_n(0, 1.0) for _ in range(TOGETHER + 5))]
        piece = following(cells, LOOKS, 1e9)
        assert piece.cells == tuple(range(1, TOGETHER + 1))
        assert (piece.start, LOOKS["test"][piece.stop - 1]) == (0, FIRST)

    @pytest.mark.parametrize(("n", "then"), [(128, 256), (256, 512), (400, 1024), (2048, 5000), (5000, 10_000)])
    def test_twice_as_many_samples_each_time(self, n, then):
        piece = following([with_n(n, 0.1, seconds=1)], LOOKS, 1e9)
        assert (LOOKS["test"][piece.start - 1], LOOKS["test"][piece.stop - 1]) == (n, then)

    def test_nobody_once_all_is_known(self):
        answered = Answers.of(Question(9, 0, 1, Within(0.6)), 1).after(3, 0, np.array([0]), np.array([0]))
        answered = Cell("test", Variant(), answered, 1.0, {"status": "ok"})
        failed = Cell("test", Variant(), with_n(256, 0.1).answers, 1.0, {"status": "failed", "reason": "no"})
        all_of_it = with_n(10_000, 0.0)
        assert [cell.state for cell in (answered, failed, all_of_it)] == ["settled", "failed", "exact"]
        assert following([answered, failed, all_of_it], LOOKS, 1e9) is None
        assert tally([answered, failed, all_of_it, with_n(0, 1), with_n(9, 1)]) == {
            "exact": 1,
            "settled": 1,
            "open": 1,
            "failed": 1,
            "not measured": 1,
        }

    def test_the_first_of_all_is_small(self):
        piece = following([with_n(0, 1.0)] * 9, LOOKS, 1e9)
        assert (piece.cells, piece.start, piece.stop) == ((0,), 0, 1)

    @settings(deadline=None)
    @given(st.floats(0.01, 1e6), st.integers(0, 5000))
    def test_half_of_the_time_left_is_planned_at_most(self, left, taken):
        cells = [with_n(256, 0.5, seconds=taken), *(with_n(512, 0.9) for _ in range(20))]
        piece = following(cells, LOOKS, left)
        samples = LOOKS["test"][piece.stop - 1] - LOOKS["test"][piece.start - 1]
        pace = taken / (256 + 20 * 512)
        smallest = (len(piece.cells), piece.stop - piece.start) == (1, 1)
        assert smallest or pace * len(piece.cells) * samples <= left / 2
        if 2 * pace * 20 * 512 <= left:
            assert (len(piece.cells), samples) == (20, 512)


class TestSpending:
    def test_the_widest_get_more(self):
        """By hand: who changes half of all outcomes has an interval several times as wide as who changes none."""
        cells = made([0.0, 0.5, 0.0, 0.5], 4000, 0).best(5000)
        n = [cell.n for cell in cells]
        assert min(n[1], n[3]) >= 4 * max(n[0], n[2])
        assert min(n) >= FIRST

    @pytest.mark.parametrize("rule", [Narrow(), Within(0.04), Decide(0.8)])
    def test_with_ample_time_all_is_known(self, rule):
        case = made([0.0, 0.02, 0.1, 0.5], 1500, 1, rule=rule)
        cells = case.best(1e9)
        exact = [cell for cell in cells if cell.n == 1500]
        assert {cell.state for cell in cells} <= {"exact", "settled"}
        assert all(cell.answers.low[0] == cell.answers.high[0] for cell in exact)
        assert not case.untrue(cells)
        if rule == Narrow():
            assert len(exact) == 4
            assert [cell.answers.estimate[0] for cell in cells] == pytest.approx(case.truth, abs=1e-12)
        else:
            assert cells[0].n < 750

    def test_who_is_answered_gets_no_more(self):
        """As many samples as without a budget, though others go on."""
        alone = made([0.0, 0.02, 0.5], 1500, 2, rule=Within(0.04))
        known = Answers.joined([cell.answers for cell in alone.cells])
        for a, b in pairwise([0, *alone.ends]):
            was, now = alone.reference[a:b], alone.outcomes[known.open, a:b]
            known = known.after(int((~was).sum()), int(was.sum()), (now & ~was).sum(1), (was & ~now).sum(1))
        found = alone.best(1e9)
        assert [cell.n for cell in found] == known.n.tolist()
        assert [cell.answers.lowest[0] for cell in found] == known.lowest.tolist()

    @settings(deadline=None, max_examples=40)
    @given(st.integers(1, 30_000), st.floats(0.1, 3), st.integers(0, 9))
    def test_the_time_is_hardly_overrun(self, seconds, each, seed):
        """By one batch of one cell at most, where each sample takes as long; and nothing is left over."""
        case = made([0.0, 0.1, 0.5], 1500, seed, each=each)
        cells = case.best(seconds)
        largest = max(b - a for a, b in pairwise([0, *case.ends]))
        assert used(cells) == pytest.approx(case.clock.now)
        assert used(cells) <= seconds + each * largest
        assert used(cells) >= min(seconds, each * 3 * 1500) - 1e-6

    def test_what_there_was_no_time_for_says_so(self):
        cells = made([0.1] * 300, 1500, 0).best(300)
        assert tally(cells)["not measured"] > 200
        assert all(cell.n == 0 and cell.width == 1 for cell in cells if cell.state == "not measured")

    @pytest.mark.parametrize("pieces", [1, 2, 5])
    def test_stopped_and_gone_on_is_not_stopped(self, pieces):
        """After so many pieces the process ends; what was kept goes through JSON."""
        shares = [0.0, 0.02, 0.1, 0.5]
        whole, first, second = (made(shares, 1500, 3) for _ in range(3))
        expected = whole.best(4000)
        work, done = first.work, [0]

        def until(*piece):
            if done[0] == pieces:
                raise Unplugged
            done[0] += 1
            yield from work(*piece)

        first.work = until
        cells = first.cells
        with pytest.raises(Unplugged):
            list(first.spent(4000, cells))
        kept = json.loads(json.dumps([cell.kept() for cell in cells]))
        again = [cell.resumed(row) if row["place"] else cell for cell, row in zip(second.cells, kept, strict=True)]
        assert 0 < used(again) < 4000
        *_, found = second.spent(4000, again)
        assert [cell.kept() for cell in found] == [cell.kept() for cell in expected]


class Unplugged(Exception):  # noqa: N818 (not an error)
    pass


class TestCoverage:
    """The share of maps with an untrue interval when the time is over, which is at a random moment."""

    def missed(self, shares: Sequence[float], level: float, maps: int) -> float:
        case, moments = made(shares, 300, 0), np.random.default_rng(7)
        found = []
        for seed in range(maps):
            again = Made(case.outcomes, case.reference, seed, level=level)
            found.append(again.untrue(again.best(moments.uniform(0, len(shares) * 300))))
        return float(np.mean(found))

    def test_of_whole_maps(self):
        assert self.missed((0.0, 0.02, 0.1, 0.5), 0.95, 500) <= 0.05

    def test_of_one_cell_at_a_low_level(self):
        assert 0.005 < self.missed((0.2,), 0.5, 200) <= 0.5  # were it 0, nothing would be put to the test


ENGINES = dict(rooms.ENGINES)


@pytest.fixture(scope="module")
def case():
    return trained()


def asked(case, budget: str | None = "10s", clock: Clock | None = None, engine: str = "replay", **more) -> ls.Table:
    """A map of the small network, where each answer of the clock takes its time."""
    model, trajectory, data = case
    done, progress = more.pop("done", None), more.pop("progress", None)
    spec = ls.RobustnessSpec(draws=2, budget=budget, **more)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rooms, "CLOCK", clock or Clock())
        return rooms.robustness(
            model, trajectory, data, spec, plan=ls.Plan(engine=engine), done=done, progress=progress
        )


@pytest.fixture(scope="module")
def exact(case) -> ls.Table:
    return asked(case, None)


@pytest.fixture(scope="module")
def short(case) -> ls.Table:
    """So little time that some is not measured at all."""
    return asked(case, "4s", Clock(0.3))


class TestMaps:
    def test_with_ample_time_it_is_the_whole_map(self, case, exact):
        table = asked(case)
        found, truth = changes(table), changes(exact)
        assert list(found["variant"]) == list(truth["variant"])
        assert (found["n"] == N).all()
        assert (found["value"] * N).round(6).tolist() == (truth["value"] * N).round(6).tolist()
        assert (found["low"] == found["high"]).all()
        columns = ["part", "metric", "n", "value", "low", "high", "interval"]
        means = [
            t.frame[t.frame["interval"].eq("draws") & t.frame["metric"].str.startswith("error")] for t in (table, exact)
        ]
        pd.testing.assert_frame_equal(*(mean[columns].reset_index(drop=True) for mean in means), atol=1e-12)
        about = table.provenance["certified"]
        assert (about["asked"], about["budget"]["cells"]["exact"]) == ("the best in time", about["answers"])

    @pytest.mark.parametrize("more", [{"within": 0.05}, {"decide": True}])
    def test_with_ample_time_answers_are_those_without_a_budget(self, case, more):
        found, truth = (changes(asked(case, budget, **more)) for budget in ("1h", None))
        pd.testing.assert_frame_equal(found, truth, check_exact=True)

    @pytest.mark.parametrize("step", [0.15, 0.3])
    def test_both_engines_give_the_same_rows(self, case, step):
        tables = [asked(case, clock=Clock(step), engine=engine).frame for engine in ("replay", "reference")]
        assert tables[0].drop(columns="engine").equals(tables[1].drop(columns="engine"))
        assert set(tables[0]["engine"]) >= {"replay"}

    def test_nothing_is_missing_in_silence(self, short, exact):
        """Each change of the whole map is a row, with a number or the reason why not."""
        places = [set(t.frame["variant"]) - {""} for t in (short, exact)]
        assert places[0] == places[1]
        without = short.where(status="not measured", metric="error")
        assert set(without["reason"]) - {"draw 1: there was no time for it within 4 seconds"} == {
            "there was no time for it within 4 seconds"
        }
        changed = without[without["variant"] != ""]
        counted = short.provenance["certified"]["budget"]["cells"]
        assert len(changed) == counted["not measured"] > 2
        assert sum(counted.values()) == short.provenance["certified"]["answers"] == len(changes(exact))
        with_a_number = changes(short)
        assert (with_a_number["n"] > 0).all()
        assert len(with_a_number) == counted["open"]

    @pytest.mark.parametrize("step", [0.04, 0.2, 0.3])
    def test_intervals_are_true_and_verdicts_follow_from_them(self, case, exact, step):
        table = asked(case, clock=Clock(step))
        found, truth = changes(table), changes(exact).set_index("variant")["value"]
        right = truth[found["variant"]].to_numpy()
        assert ((found["low"] <= right + 1e-9) & (right <= found["high"] + 1e-9)).all()
        assert set(found["interval"]) == {"dataset"}
        gap = 0.75 - table.where(perturbation="none", metric="error")["value"].item()
        judged = found[found["part"] != "whole network"]
        assert list(judged["verdict"]) == [
            verdict(Interval(row["low"], row["high"]), gap) for row in judged.to_dict("records")
        ]
        assert "undecided" in set(judged["verdict"]) or step < 0.1

    def test_the_widest_get_more_samples(self, case):
        """Those that change most have more than those that change nothing."""
        found = changes(asked(case, clock=Clock(0.15)))
        nothing, much = found[found["value"] == 0], found[found["value"] > 0.2]
        assert nothing["n"].max() < much["n"].min()
        assert much["n"].max() < N

    def test_the_time_is_over_all_data_together(self, case):
        model, trajectory, data = case
        halves = {"test": data[:3], "train": data[3:]}
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(rooms, "CLOCK", Clock(0.1))
            table = rooms.robustness(model, trajectory, halves, ls.RobustnessSpec(draws=1, budget="5s"))
        about = table.provenance["certified"]
        assert about["answers"] == 2 * len(table.variants) - 2
        assert 5 <= about["budget"]["used"] < 5.2
        assert set(table.where(metric="error_delta")["split"]) == {"test", "train"}

    def test_statistics_are_computed_again_once_a_change(self, monkeypatch):
        """Batch norm's, for all pieces; and the numbers are those of an analysis without a budget."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        x = torch.randn(900, 4)
        data = {"test": [(x, x[:, :3].argmax(1))], "train": [(x[:100], x[:100, :3].argmax(1))]}
        start = {
            name: 0.3 * value if value.is_floating_point() else value for name, value in ls.state_of(model).items()
        }
        trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
        computed: list[int] = []
        compute = Subject._recalibrated
        monkeypatch.setattr(Subject, "_recalibrated", lambda *given: computed.append(1) or compute(*given))
        found, truth = (
            changes(rooms.robustness(model, trajectory, data, ls.RobustnessSpec(draws=1, budget=budget)))
            for budget in ("1h", None)
        )
        assert found["value"].to_numpy() == pytest.approx(truth["value"].to_numpy(), abs=1e-12)
        changed = truth[truth["step"].ne(1).fillna(True) & truth["variant"].ne("")]["variant"].nunique()
        assert len(computed) == (changed + 1) + (2 * changed + 1)  # and those of the unmodified network

    def test_a_change_that_fails_is_a_row_and_gets_no_more_time(self):
        torch.manual_seed(1)
        model = Fails()
        x = torch.randn(1500, 5)
        data = [(x, x.argmax(1))]
        start = {name: 4 * value for name, value in ls.state_of(model).items()}
        trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
        table = rooms.robustness(model, trajectory, data, ls.RobustnessSpec(draws=0, budget="1h"))
        failed = table.where(status="failed")
        assert set(failed["reason"]) == {"ArithmeticError: too large"}
        assert table.provenance["certified"]["budget"]["cells"] == {
            "exact": 4,
            "settled": 0,
            "open": 0,
            "failed": 2,
            "not measured": 0,
        }


class Fails(nn.Module):
    """Raises where its first layer's outputs are large, in some batches only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if x.abs().max() > 5:
            raise ArithmeticError("too large")
        return self.last(x)


class TestResume:
    """The process ends, and the same command is given again."""

    def killed_after(self, case, pieces: int, monkeypatch, **more) -> dict:
        """What is kept when the engine was asked so many times."""
        done: dict = {}
        count = [0]

        def dying(memory, precision):
            compute = ENGINES["replay"](memory, precision)

            def until(*given):
                if count[0] == pieces:
                    raise Unplugged
                count[0] += 1
                yield from compute(*given)

            return until

        with monkeypatch.context() as patched:
            patched.setitem(rooms.ENGINES, "replay", dying)
            with pytest.raises(Unplugged):
                asked(case, clock=Clock(0.25), done=done, **more)
        return json.loads(json.dumps(done))

    @pytest.mark.parametrize("pieces", [1, 3, 6])
    def test_the_rows_are_those_without_a_stop(self, case, pieces, monkeypatch):
        done = self.killed_after(case, pieces, monkeypatch)
        spent = sum(row["seconds"] for (row,) in done.values())
        assert 0 < spent < 10
        tables = [asked(case, clock=Clock(0.25), done=kept) for kept in (done, None)]
        assert tables[0].frame.equals(tables[1].frame)
        assert tables[0].provenance == tables[1].provenance

    def test_what_is_left_is_all_there_is(self, case, monkeypatch):
        """Stopped again and again, at any moment: the time of all sittings together is that of the budget."""
        done: dict = {}

        def stop(_what, seconds, _total):
            if seconds and seconds % 3 == 0:
                raise Unplugged

        before = -1.0
        for _ in range(40):
            done = {key: [row] for key, (row,) in done.items()}
            try:
                table = asked(case, clock=Clock(0.25), done=done, progress=stop)
                break
            except Unplugged:
                spent = sum(row["seconds"] for (row,) in done.values())
                assert spent > before
                before = spent
        about = table.provenance["certified"]["budget"]
        assert 10 <= about["used"] < 10.5
        whole = asked(case, clock=Clock(0.25))
        assert changes(table)["n"].sum() == pytest.approx(changes(whole)["n"].sum(), rel=0.3)

    def test_an_analysis_on_disk(self, tmp_path, monkeypatch):
        monkeypatch.setattr(runtime, "EVERY", 0.0)
        monkeypatch.setattr(rooms, "CLOCK", Clock(0.1))
        run = ls.train(ls.TrainSpec(model="fcn-1x16", epochs=2), tmp_path / "run")
        spec = ls.RobustnessSpec(draws=1, budget="4s")

        def stop(_what, seconds, _total):
            if seconds == 2:
                raise Unplugged

        with pytest.raises(Unplugged):
            analyze(run, spec, progress=stop)
        (kept,) = (run.path / "resume").glob("*.json")
        spent = sum(row["seconds"] for (row,) in json.loads(kept.read_text())["done"].values())
        assert 2 <= spent < 2.2
        moments = []
        table = analyze(run, spec, progress=lambda _what, seconds, total: moments.append((seconds, total)))
        assert moments[0][0] >= 2
        assert moments[-1] == (4, 4)
        assert moments.count((4, 4)) == 1
        assert 4 <= table.provenance["certified"]["budget"]["used"] < 4.2
        assert not list((run.path / "resume").glob("*.json"))
        again = analyze(run, spec)
        assert again.provenance["time"] == table.provenance["time"]  # read, not computed


class TestWords:
    @pytest.mark.parametrize(
        ("text", "seconds", "said"),
        [("90s", 90, "90 seconds"), ("10m", 600, "10 minutes"), ("1h", 3600, "1 hour"), ("1.5h", 5400, "1.5 hours")],
    )
    def test_times(self, text, seconds, said):
        assert seconds_of("budget", text) == seconds
        assert in_words(text) == said

    @pytest.mark.parametrize(
        "text", ["0s", "0.0m", "-5m", "10", "ten", "", "10 m", "1d", "1h30m", "1e3s", "infs", "٣s"]
    )
    def test_what_is_no_time(self, text):
        with pytest.raises(UseError, match="budget must be a time above 0 such as 90s, 10m or 1h, not"):
            ls.RobustnessSpec(budget=text)

    def test_errors_of_the_command_line(self, tmp_path, capsys):
        assert main(["analyze", str(tmp_path), "--budget", "soon"]) == 2
        assert "budget must be a time above 0 such as 90s, 10m or 1h, not 'soon'" in capsys.readouterr().err

    def test_only_errors_can_be_certified(self, case):
        with pytest.raises(UseError, match="right or wrong of each sample, as error does, not cross_entropy"):
            asked(case, metrics=("cross_entropy",))

    def test_a_dry_run_says_what_fits(self, tmp_path, monkeypatch):
        monkeypatch.setattr(session, "_seconds_a_sample", lambda material: 1e-6)
        run = ls.train(ls.TrainSpec(model="fcn-1x16", epochs=1), tmp_path / "run")
        whole, short, ample = (
            cost(material_of(run, spec, None), [0, 1], spec)
            for spec in (ls.RobustnessSpec(), ls.RobustnessSpec(budget="0.001s"), ls.RobustnessSpec(budget="10h"))
        )
        assert "budget" not in whole
        assert short["seconds"] == 0.001
        assert whole["seconds"] == ample["seconds"] == round(1e-6 * whole["forwards"], 1)
        assert short["budget"].startswith("best answer within 0.001 seconds: samples in random order, more where")
        assert "all would take about" in short["budget"]
        assert ample["budget"].endswith("(enough for all)")

    def test_the_report(self, short):
        said = " ".join(in_sentences(short.provenance["spec"], short))
        assert "This is the best answer within 4 seconds of evaluation: samples were taken in a random order" in said
        assert (
            "hold for all 18 at once, and for the whole of these data. Not measured for this reason: cross entropy"
            in said
        )
        counted = short.provenance["certified"]["budget"]["cells"]
        assert (
            f"Of 18 answers (each change on each split): {counted['open']} known to within their intervals and" in said
        )
        assert f"{counted['not measured']} not measured for lack of time. How many samples" in said

    def test_the_report_of_both(self, case):
        table = asked(case, "1h", within=0.05)
        said = " ".join(in_sentences(table.provenance["spec"], table))
        assert "and no more for a change once it was known to within 0.05. Of 18 answers" in said
        assert "18 settled as asked. How many" in said


def test_means_of_draws_that_are_bounded():
    """By hand: draws 0.2 and 0.4, known to within 0.01 and 0.03, are 0.3 on average, known to within 0.02."""
    place = {"part": "a", "split": "test", "metric": "error_delta", "perturbation": "rerandomize", "status": "ok"}
    rows = [
        place | {"draw": 0, "value": 0.2, "low": 0.19, "high": 0.21},
        place | {"draw": 1, "value": 0.4, "low": 0.37, "high": 0.43},
    ]
    (plain,), (wide,) = over_draws(rows, 0.95), over_draws(rows, 0.95, bounded=True)
    assert wide["value"] == plain["value"] == pytest.approx(0.3)
    assert [plain["low"] - wide["low"], wide["high"] - plain["high"]] == pytest.approx([0.02, 0.02])
    rows.append(place | {"metric": "error", "draw": 2, "status": "not measured", "reason": "no time"})
    found = {row["metric"]: row for row in over_draws(rows, 0.95, bounded=True)}
    assert found["error_delta"]["status"] == found["error"]["status"] == "not measured"
    assert found["error_delta"]["reason"] == "draw 2: no time"
