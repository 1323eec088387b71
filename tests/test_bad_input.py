"""Bad input, in Python: a clear error or a row with a status, and the user's model bit for bit as before."""

from typing import Any

import pytest
import torch
from torch import nn

import layerscope as ls
from layerscope.errors import UseError

from .test_zoo import everything, same


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3))


def data(n: int = 40) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)
    return list(zip(x.split(16), y.split(16), strict=True))


def changed(state: dict[str, torch.Tensor], **new: Any) -> dict[str, torch.Tensor]:
    names = {name: value for name, value in new.items() if value is not None}
    gone = {name.replace("__", ".") for name, value in new.items() if value is None}
    kept = {name: value for name, value in state.items() if name not in gone}
    return kept | {name.replace("__", "."): value for name, value in names.items()}


STATES = {
    "wrong shape": ({"0__weight": torch.zeros(5, 4)}, r"0\.weight has shape \[5, 4\], the model has \[6, 4\]"),
    "missing name": ({"3__bias": None}, r"3\.bias is missing"),
    "surplus name": ({"4__bias": torch.zeros(3)}, r"4\.bias is not in the model"),
    "other dtype": ({"0__weight": torch.zeros(6, 4).double()}, r"0\.weight is torch\.float64, the model has torch\.float32"),
    "NaN": ({"0__bias": torch.full((6,), torch.nan)}, r"0\.bias holds NaN"),
    "infinite": ({"3__weight": torch.full((3, 6), torch.inf)}, r"3\.weight holds an infinite value"),
}  # fmt: skip


@pytest.mark.parametrize("which", ["initial", "final"])
@pytest.mark.parametrize("fault", STATES)
def test_states_that_do_not_fit(fault, which):
    model, (change, message) = net(), STATES[fault]
    states = {"initial": ls.state_of(model), "final": ls.state_of(model)}
    states[which] = changed(states[which], **change)
    before = everything(model)
    for use in (
        lambda trajectory: ls.robustness(model, trajectory, {"test": data(), "train": data()}),
        lambda trajectory: ls.evaluate(model, trajectory, [ls.Variant()], data()),
        lambda trajectory: ls.materialize(model, trajectory, ls.Variant()),
    ):
        with pytest.raises(UseError, match=message):
            use(ls.Trajectory.of(**states))
    assert same(before, everything(model))


def wrong_label() -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = data()
    batches[-1][1][-1] = 3
    return batches


@pytest.mark.parametrize(
    ("batches", "metrics", "message"),
    [
        ([], None, "data gives no batch"),
        (wrong_label(), None, "label 3 .* is not one of 0 to 2"),
        ([(x, y.float()) for x, y in data()], None, "class numbers"),
        ([(x, y[:, None]) for x, y in data()], None, r"targets \[16, 1\]"),
        ([x for x, _ in data()], None, "not none; say what they are with targets="),
        ([(x, y, y) for x, y in data()], None, "a batch is a tuple of 3"),
        (data(), [lambda outputs, targets: outputs], "must give one number a sample"),
        (data(), [ls.SquaredError()], "of one shape"),
    ],
)  # fmt: skip
def test_data_and_metrics_that_do_not_fit(batches, metrics, message):
    model = net()
    before = everything(model)
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    with pytest.raises(UseError, match=message):
        ls.evaluate(model, trajectory, [ls.Variant()], batches, metrics)
    assert same(before, everything(model))


def test_half_precision_that_overflows_is_a_row_with_a_status():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).half()
    start = {name: torch.full_like(tensor, 6e4) for name, tensor in ls.state_of(model).items()}
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    parts = ls.Partition.by_layer(model)
    batches = [(x.half(), y) for x, y in data()]
    variants = [ls.Variant(), *(ls.Variant.of(part, ls.Rewind()) for part in parts)]
    table = ls.evaluate(model, trajectory, variants, batches)
    losses = table.where(metric="cross_entropy")
    assert losses["status"].tolist() == ["ok", "not finite", "not finite"]
    assert losses["reason"].str.contains("overflow").tolist() == [False, True, True]


class Picky(nn.Module):
    """Its forward refuses large numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        if hidden.abs().max() > 100:
            raise ValueError("hidden values\nare too large")
        return self.head(hidden)


def test_a_forward_that_raises_for_one_variant_is_a_row_and_the_others_are_measured():
    model = Picky()
    start = {name: 1000 * tensor for name, tensor in ls.state_of(model).items()}
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    before = everything(model)
    table = ls.robustness(model, trajectory, data(), ls.RobustnessSpec(draws=1))
    assert same(before, everything(model))
    failed = table.frame.loc[table.frame["status"] == "failed"]
    assert set(failed["part"]) == {"first", "whole network"}
    assert failed["reason"].str.endswith("ValueError: hidden values are too large").all()
    assert len(table.where(part="head", metric="error", step=0)) == 1
    with pytest.raises(ValueError, match="too large"):  # of the unmodified network it is the model's own error
        ls.evaluate(model, ls.Trajectory.of(final=start), [ls.Variant()], data())
    assert same(before, everything(model))


def test_a_model_on_several_devices_or_nowhere():
    model = net()
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    model[3].to("meta")
    with pytest.raises(
        UseError, match=r"several devices \(2\.num_batches_tracked on cpu, 3\.bias on meta\); move it to one"
    ):
        ls.evaluate(model, trajectory, [ls.Variant()], data())
    model.to("meta")
    with pytest.raises(UseError, match="have no values"):
        ls.evaluate(model, trajectory, [ls.Variant()], data())


def test_tied_tensors_that_differ_in_a_checkpoint():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    state = {"0.weight": torch.ones(4, 4), "1.weight": torch.zeros(4, 4)}
    with pytest.raises(
        UseError, match=r"0\.weight and 1\.weight are one tensor in the model, but have different values"
    ):
        ls.evaluate(model, ls.Trajectory.of(final=state), [ls.Variant()], [(torch.ones(2, 4), torch.zeros(2).long())])


def test_a_lazy_model_must_see_a_batch_first():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(UseError, match="must see one batch first"):
        ls.Partition.by_layer(model)


def test_the_note_of_a_probe_that_was_overridden_is_kept():
    class Noisy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.randn(len(x), 1)

    model = nn.Sequential(Noisy(4, 3))
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    with pytest.raises(UseError, match=r"draws random numbers in evaluation mode.*0 \(Noisy\).*anyway=True"):
        ls.evaluate(model, trajectory, [ls.Variant()], data())
    table = ls.evaluate(model, trajectory, [ls.Variant()], data(), anyway=True)
    assert "random numbers" in table.provenance["probe"]["note"]
    assert not table.provenance["probe"]["identical"]


def test_parts_that_are_never_used_are_said_to_be():
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = Spare()
    trajectory = ls.Trajectory.of(initial=ls.state_of(Spare()), final=ls.state_of(model))
    table = ls.robustness(model, trajectory, data(), ls.RobustnessSpec(draws=1))
    assert set(table.provenance["unused"]) == {"spare"}
    assert "does not use it" in table.where(part="spare", metric="error_delta", step=0)["reason"].item()
    assert not table.where(part="used", metric="error_delta", step=0)["reason"].item()


class Cached(nn.Module):
    """Keeps what it computed from its table in a private dictionary."""

    def __init__(self, cache: dict | None = None) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 3)
        self._cache = {} if cache is None else cache

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "doubled" not in self.cache:
            self.cache["doubled"] = (2 * self.table).detach()
        return self.head(x @ self.cache["doubled"])

    @property
    def cache(self) -> dict:
        return self._cache


OUTSIDE: dict = {}


class CachedOutside(Cached):
    """Keeps it where nobody looks."""

    @property
    def cache(self) -> dict:
        return OUTSIDE


def test_caches_of_a_module_are_emptied_between_variants_and_others_refused():
    torch.manual_seed(0)
    model = Cached()
    start = {name: tensor + 1 for name, tensor in ls.state_of(model).items()}
    trajectory = ls.Trajectory.of(initial=start, final=ls.state_of(model))
    part = ls.Partition.by_layer(model)["(root)"]
    changed = [ls.Variant(), ls.Variant.of(part, ls.Rewind())]
    losses = ls.evaluate(model, trajectory, changed, data()).where(metric="cross_entropy")["value"].tolist()
    fresh = Cached()
    fresh.load_state_dict(trajectory[ls.FINAL] | {"table": start["table"]})
    x, y = (torch.cat(column) for column in zip(*data(), strict=True))
    assert losses[1] == pytest.approx(nn.functional.cross_entropy(fresh(x), y).item(), rel=1e-5)
    assert losses[0] != losses[1]
    assert model._cache == {}
    outside = CachedOutside()
    with pytest.raises(UseError, match=r"keeps what it computes from table from one forward to the next \(a cache\)"):
        ls.evaluate(outside, ls.Trajectory.of(final=ls.state_of(outside)), changed[:1], data())
    OUTSIDE.clear()


def test_rows_that_an_embedding_shortens_in_a_late_batch_stay_the_users():
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(9, 4, max_norm=1.0), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.nn.functional.normalize(model[0].weight) * 0.5)
        model[0].weight[8] *= 10
    start = {name: 7 * tensor for name, tensor in ls.state_of(model).items()}
    kept = {name: tensor.clone() for name, tensor in start.items()}
    before = everything(model)
    trajectory = ls.Trajectory.of(initial=start, final=model.state_dict())
    batches = [(torch.full((5, 2), i), torch.zeros(5).long()) for i in (1, 2, 3, 8)]
    ls.robustness(model, trajectory, batches, ls.RobustnessSpec(draws=1))
    assert same(before, everything(model))
    assert all(torch.equal(start[name], tensor) for name, tensor in kept.items())


def test_edits_under_two_names_of_one_tensor_collide():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    trajectory = ls.Trajectory.of(initial={k: v + 1 for k, v in ls.state_of(model).items()}, final=ls.state_of(model))
    edits = tuple(ls.Edit(ls.Part(name, (name,)), ls.Rewind()) for name in ("0.weight", "1.weight"))
    with pytest.raises(UseError, match="two edits of one variant change the same tensor"):
        ls.materialize(model, trajectory, ls.Variant(edits))


def test_variants_of_what_is_not_there():
    model = net()
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    for part, message in (
        (ls.Part("x", ("0.wieght",)), r"unknown tensor '0\.wieght'; did you mean 0\.weight"),
        (ls.Part("x", (ls.Slice("0.weight", 0, ((0, 7),)),)), r"0\.weight has shape \[6, 4\]"),
    ):
        with pytest.raises(UseError, match=message):
            ls.evaluate(model, trajectory, [ls.Variant.of(part, ls.Rewind(ls.FINAL), buffers="keep")], data())
    with pytest.raises(UseError, match="no initial state"):
        ls.evaluate(model, trajectory, [ls.Variant.of(ls.Part("x", ("0.bias",)), ls.Rewind(), buffers="keep")], data())


def test_masks_of_minus_infinity_are_meant():
    model = nn.Sequential(nn.Linear(4, 3))
    model.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
    ls.evaluate(model, ls.Trajectory.of(final=ls.state_of(model)), [ls.Variant()], data())


def test_a_map_has_whole_epochs_only():
    model = net()
    state = ls.state_of(model)
    trajectory = ls.Trajectory.of(initial=state, epoch_00000_it_000100=state, final=state)
    with pytest.raises(UseError, match="lies within an epoch"):
        ls.robustness(model, trajectory, {"test": data(), "train": data()})
    part = ls.Partition.by_layer(model)["0"]
    variants = [ls.Variant.of(part, ls.Rewind(step)) for step in trajectory.steps]
    table = ls.evaluate(model, trajectory, variants, data(), calibration=data())
    assert table.where(metric="error")["iteration"].tolist()[1] == 100


def test_one_failed_draw_leaves_no_mean_of_any_metric():
    torch.manual_seed(0)
    model = Picky()
    laws = {"first.weight": ls.Law("normal", 20.0)}
    trajectory = ls.Trajectory.of(final=ls.state_of(model))
    table = ls.robustness(model, trajectory, data(), ls.RobustnessSpec(draws=6), laws=laws)
    rows = table.where(part="first", perturbation="rerandomize")
    assert {"ok", "failed"} <= set(rows.loc[rows["draw"].notna(), "status"])
    assert set(rows.loc[rows["draw"].isna() & rows["metric"].str.startswith("error"), "status"]) == {"failed"}


def test_data_that_shuffle_can_be_gone_on_with_and_are_then_the_same_for_all():
    model = net()
    x, y = (torch.cat(column) for column in zip(*data(), strict=True))
    shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16, shuffle=True)
    trajectory = ls.Trajectory.of(initial={k: v + 1 for k, v in ls.state_of(model).items()}, final=ls.state_of(model))
    variants = [ls.Variant.of(ls.Partition.by_layer(model)["3"], ls.Rewind(), buffers="keep")] * 2
    with pytest.raises(UseError, match=r"other batches on each pass.*anyway=True"):
        ls.evaluate(model, trajectory, variants, shuffled)
    table = ls.evaluate(model, trajectory, variants, shuffled, anyway=True)
    steady = ls.evaluate(model, trajectory, variants, data())
    for metric in ("error", "error_delta", "cross_entropy_delta"):
        # A sample's outputs may differ in their last bit with its place in a batch.
        assert table.where(metric=metric)["value"].tolist() == pytest.approx(
            steady.where(metric=metric)["value"].tolist(), abs=1e-6
        )
    assert table.provenance["probe"]["held"]
