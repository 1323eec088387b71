"""Slices, Parts and Partitions; one Part for each layer, of networks where that is not obvious."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from layerscope.errors import UseError
from layerscope.partition import BY, Part, Partition, Slice, every_tensor, first_names, overlap, rows, whole

from .networks import module_trees

RANGES = st.sets(st.integers(0, 9)).map(lambda cuts: tuple(zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=False)))
SLICES = st.builds(Slice, st.sampled_from("ab"), st.integers(0, 1), RANGES)


def contents(partition: Partition) -> dict[str, list[str]]:
    """Name of each Part -> its slices, as people read them."""
    return {part.name: [str(each) for each in part.slices] for part in partition}


def cells(where: Slice) -> set[tuple[str, int, int]]:
    """The scalars of a Slice of a 10 x 10 tensor."""
    inside = [index for start, stop in where.ranges or [(0, 10)] for index in range(start, stop)]
    pairs = [(i, j) if where.axis == 0 else (j, i) for i in inside for j in range(10)]
    return {(where.tensor, *pair) for pair in pairs}


@given(SLICES, SLICES)
def test_slices_overlap_where_they_have_a_scalar_in_common(a, b):
    assert overlap(a, b) == overlap(b, a) == bool(cells(a) & cells(b))


@pytest.mark.parametrize("ranges", [((2, 1),), ((1, 1),), ((-1, 1),), ((0, 2), (1, 3)), ((2, 3), (0, 1))])
def test_ranges_that_make_no_sense_are_refused(ranges):
    with pytest.raises(UseError, match="in order and without overlap"):
        Slice("w", 0, ranges)


def test_an_axis_is_counted_from_0():
    with pytest.raises(UseError, match="axis -1 of w"):
        Slice("w", -1)


def test_a_slice_reads_like_an_index():
    assert str(Slice("w")) == "w"
    assert str(Slice("w", 0, ((0, 4), (8, 12)))) == "w[0:4+8:12]"
    assert str(Slice("w", 1, ((0, 4),))) == "w[:, 0:4]"


def test_a_name_stands_for_a_whole_tensor():
    part = Part("a", ("w", Slice("v", 0, ((0, 1),)), Slice("v", 0, ((2, 3),))))
    assert part.slices[0] == Slice("w")
    assert part.tensors == ("w", "v")


def test_parts_are_disjoint():
    with pytest.raises(ValueError, match="no tensor in common: 'a' has w, 'b' has w"):
        Partition((Part("a", ("w",)), Part("b", ("w",))))
    with pytest.raises(ValueError, match=r"different names .* several are named 'a'"):
        Partition((Part("a", ("w",)), Part("a", ("v",))))
    with pytest.raises(ValueError, match=r"'a' has w\[0:2\], 'b' has w\[1:3\]"):
        Partition((Part("a", (Slice("w", 0, ((0, 2),)),)), Part("b", (Slice("w", 0, ((1, 3),)),))))
    with pytest.raises(KeyError, match="no Part 'c'; there are: a"):
        Partition((Part("a", ("w",)),))["c"]
    assert len(Partition((Part("a", (Slice("w", 0, ((0, 2),)),)), Part("b", (Slice("w", 0, ((2, 3),)),))))) == 2


@given(module_trees())
def test_layers_account_for_all_tensors(model):
    partition = Partition.by_layer(model)
    placed = [name for part in partition for name in part.tensors]
    assert sorted([*placed, *partition.left_out]) == sorted(model.state_dict())
    assert all(partition.left_out.values())


def test_layers_of_a_small_network():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2, bias=False))
    partition = Partition.by_layer(model)
    assert contents(partition) == {
        "0": ["0.weight", "0.bias"],
        "1": ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"],
        "3": ["3.weight"],
    }
    assert partition["3"].modules == ("3",)
    assert whole(model).tensors == tuple(model.state_dict())
    assert whole(model).modules == ("",)


def test_a_module_with_buffers_only_is_left_out_with_the_reason():
    partition = Partition.by_layer(nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 2)))
    assert set(partition.left_out) == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    assert set(partition.left_out.values()) == {"a buffer of a module without parameters"}


class Bare(nn.Module):
    """Tensors of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.layer = nn.Linear(1, 1)
        self.register_buffer("mask", torch.zeros(2))
        self.register_buffer("positions", torch.zeros(3), persistent=False)
        self.scale = torch.ones(4)


def test_bare_parameters_of_the_model_itself():
    parts = Partition.by_layer(Bare())
    assert contents(parts) == {"(root)": ["w", "mask"], "layer": ["layer.weight", "layer.bias"]}
    assert parts["(root)"].modules == ("",)


def test_what_no_checkpoint_has_is_left_out_with_the_reason():
    assert every_tensor(Bare()) == ["w", "mask", "layer.weight", "layer.bias", "positions", "scale"]
    assert Partition.by_layer(Bare()).left_out == {
        "positions": "a non-persistent buffer: no checkpoint has it",
        "scale": "a plain tensor attribute: neither a parameter nor a buffer, so no checkpoint has it",
    }


def test_extra_state_and_hidden_parameters_are_left_out_with_the_reason():
    class Odd(nn.Linear):
        extra = "not a tensor"

        def get_extra_state(self) -> object:
            return torch.zeros(3) if self.extra == "a tensor" else self.extra

    def hide(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, _: object) -> None:
        del state[f"{prefix}bias"]

    model = nn.Sequential(Odd(1, 1), Odd(1, 1))
    model[0].extra = "a tensor"
    model[1].register_state_dict_post_hook(hide)
    partition = Partition.by_layer(model)
    assert contents(partition) == {"0": ["0.weight", "0.bias"], "1": ["1.weight"]}
    assert partition.left_out == {
        "0._extra_state": "extra state of a module: neither a parameter nor a buffer",
        "1._extra_state": "extra state of a module: neither a parameter nor a buffer",
        "1.bias": "a parameter that the state dict does not list: no checkpoint has it",
    }
    left_out = rows(model, partition)["left_out"]
    assert [(row["tensor"], row["size"]) for row in left_out] == [
        ("0._extra_state", 3),
        ("1._extra_state", 0),
        ("1.bias", 1),
    ]


class Tied(nn.Module):
    """A language model's embedding and head."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.wte, self.mlp, self.lm_head = nn.Embedding(5, 2), nn.Linear(2, 2), nn.Linear(2, 5, bias=bias)
        self.lm_head.weight = self.wte.weight


def test_a_tied_layer_is_named_after_all_its_owners():
    partition = Partition.by_layer(Tied(bias=False))
    assert contents(partition) == {
        "wte = lm_head": ["wte.weight", "lm_head.weight"],
        "mlp": ["mlp.weight", "mlp.bias"],
    }
    assert partition["wte = lm_head"].modules == ("wte", "lm_head")
    assert partition.left_out == {}
    assert first_names(Tied(bias=False))["lm_head.weight"] == "wte.weight"


def test_what_a_later_owner_has_for_itself_is_a_part():
    assert contents(Partition.by_layer(Tied(bias=True))) == {
        "wte = lm_head": ["wte.weight", "lm_head.weight"],
        "mlp": ["mlp.weight", "mlp.bias"],
        "lm_head": ["lm_head.bias"],
    }


def test_the_first_owner_keeps_what_else_it_has():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    model["b"].weight, model["c"].bias = model["a"].weight, model["b"].bias
    assert contents(Partition.by_layer(model)) == {
        "a = b": ["a.weight", "a.bias", "b.weight"],
        "b = c": ["b.bias", "c.bias"],
        "c": ["c.weight"],
    }


def test_a_module_that_is_used_twice():
    shared = nn.BatchNorm1d(2)
    partition = Partition.by_layer(nn.ModuleDict({"a": shared, "b": nn.ModuleList([shared])}))
    assert [part.name for part in partition] == ["a = b.0"]
    assert len(partition["a = b.0"].tensors) == 10
    assert partition["a = b.0"].modules == ("a", "b.0")


def test_a_shared_buffer_does_not_tie_layers():
    model = nn.ModuleDict({"none": nn.Module(), "a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    mask = torch.zeros(1)
    for module in model.values():
        module.register_buffer("mask", mask)
    assert contents(Partition.by_layer(model)) == {
        "a": ["none.mask", "a.weight", "a.bias", "a.mask", "b.mask"],
        "b": ["b.weight", "b.bias"],
    }


def test_a_buffer_follows_the_tied_parameters_of_its_module():
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1, bias=False)})
    model["b"].weight = model["a"].weight
    model["b"].register_buffer("mask", torch.zeros(1))
    assert contents(Partition.by_layer(model)) == {"a = b": ["a.weight", "a.bias", "b.weight", "b.mask"]}


@pytest.mark.parametrize(("way", "inside"), [("weight_norm", 2), ("spectral_norm", 3), ("orthogonal", 2)])
def test_parametrised_weights_belong_to_their_layer(way, inside):
    model = nn.Sequential(getattr(parametrizations, way)(nn.Linear(2, 2)), nn.Linear(2, 2))
    partition = Partition.by_layer(model)
    assert [part.name for part in partition] == ["0", "1"]
    assert partition["0"].modules == ("0",)
    assert len(partition["0"].tensors) == 1 + inside
    assert partition.left_out == {}
    assert [row["modules"] for row in rows(model, partition)["parts"]] == ["Linear", "Linear"]


def test_a_parametrisation_with_parameters_of_its_own():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return self.inner(weight.unsqueeze(-1)).squeeze(-1)

    model = nn.Module()
    model.w, model.last = nn.Parameter(torch.ones(2)), nn.Linear(1, 1)
    parametrize.register_parametrization(model, "w", Scaled())
    names = ["parametrizations.w.original", "parametrizations.w.0.inner.weight", "parametrizations.w.0.inner.bias"]
    assert contents(Partition.by_layer(model)) == {"(root)": names, "last": ["last.weight", "last.bias"]}


def test_norms_by_hooks_leave_a_plain_weight():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)), nn.utils.spectral_norm(nn.Linear(2, 2)))
    partition = Partition.by_layer(model)
    assert contents(partition) == {
        "0": ["0.bias", "0.weight_g", "0.weight_v"],
        "1": ["1.bias", "1.weight_orig", "1.weight_u", "1.weight_v"],
    }
    assert set(partition.left_out) == {"0.weight", "1.weight"}
    assert all("plain tensor attribute" in reason for reason in partition.left_out.values())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_each_layer_of_a_recurrent_stack_is_a_part(kind):
    model = nn.ModuleDict({"rnn": kind(2, 3, num_layers=2, bidirectional=True), "one": kind(2, 3)})
    partition = Partition.by_layer(model)
    assert [part.name for part in partition] == ["rnn.l0", "rnn.l1", "one"]
    assert contents(partition)["rnn.l1"] == [
        f"rnn.{what}_l1{side}" for side in ("", "_reverse") for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert partition["rnn.l1"].modules == ("rnn",)


def test_recurrent_projections_and_norms_stay_with_their_layer():
    model = parametrizations.weight_norm(nn.LSTM(2, 3, num_layers=2, proj_size=1), "weight_hh_l1")
    partition = Partition.by_layer(model)
    assert [part.name for part in partition] == ["l0", "l1"]
    assert {"weight_hr_l1", "parametrizations.weight_hh_l1.original0"} < set(partition["l1"].tensors)
    assert len(partition["l0"].tensors) == 5
    assert len(partition["l1"].tensors) == 6


@pytest.mark.parametrize("way", BY)
def test_a_model_that_has_seen_no_batch_is_refused(way):
    with pytest.raises(UseError, match=r"1\.weight has no shape yet: the model must see one batch first"):
        BY[way](nn.Sequential(nn.Linear(1, 1), nn.LazyLinear(2)))


def test_names_that_collide_are_numbered():
    model = nn.ModuleDict({"(root)": nn.Linear(1, 1)})
    model.bare = nn.Parameter(torch.zeros(1))
    assert [part.name for part in Partition.by_layer(model)] == ["(root)", "(root) (2)"]


CHECKED = {
    "names nothing: the model has no such tensor": ([Part("all", ("nothing",))], {}),
    "names positions: a non-persistent buffer": ([Part("all", ("positions",))], {}),
    r"names layer.weight\[0:2\], but the tensor has the shape \[1, 1\]": (
        [Part("all", (Slice("layer.weight", 0, ((0, 2),)),))],
        {},
    ),
    r"names w\[:, 0:1\], but the tensor has the shape \[1\]": ([Part("all", (Slice("w", 1, ((0, 1),)),))], {}),
    "names the module elsewhere: the model has none": ([Part("all", ("w",), ("elsewhere",))], {}),
    "left_out names nothing: the model has no such tensor": ([], {"nothing": "why"}),
    "mask is in no Part: put it in a Part or in left_out; scale is": (
        [Part("all", ("w", "layer.weight", "layer.bias"))],
        {"positions": "why"},
    ),
    "1 of 2 scalars of mask are in no Part: put it in a Part or in left_out$": (
        [Part("all", ("w", "layer.weight", "layer.bias", Slice("mask", 0, ((0, 1),))))],
        {"positions": "why", "scale": "why"},
    ),
    "w is in a Part and in left_out: it can be in one only": (
        [Part("all", ("w", "layer.weight", "layer.bias", "mask"))],
        {"positions": "why", "scale": "why", "w": "why"},
    ),
}


@pytest.mark.parametrize("fault", CHECKED)
def test_a_partition_that_does_not_fit_is_refused(fault):
    parts, left_out = CHECKED[fault]
    with pytest.raises(UseError, match=fault):
        Partition(tuple(parts), left_out).check(Bare())


def test_the_rest_of_a_tensor_may_be_left_out():
    parts = (Part("all", ("w", "layer.weight", "layer.bias", Slice("mask", 0, ((0, 1),)))),)
    partition = Partition(parts, {"positions": "why", "scale": "why", "mask": "the rest is padding"})
    partition.check(Bare())
    assert rows(Bare(), partition)["left_out"][-1] == {"tensor": "mask", "reason": "the rest is padding", "size": 1}


def test_tied_tensors_must_not_be_torn_apart():
    one, other = Part("a", ("wte.weight", "mlp.weight", "mlp.bias")), Part("b", ("lm_head.weight",))
    with pytest.raises(UseError, match=r"wte\.weight and lm_head\.weight are the same tensor: .* in the same Part"):
        Partition((one, other)).check(Tied(bias=False))


def test_rows_say_what_is_where_and_how_much():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False))
    found = rows(model, Partition.by_layer(model))
    assert found["parameters"] == 24
    assert found["parts"] == [
        {
            "part": "0",
            "modules": "Conv2d",
            "tensors": ["0.weight", "0.bias"],
            "parameters": 20,
            "buffers": 0,
            "share": pytest.approx(20 / 24),
        },
        {
            "part": "1",
            "modules": "BatchNorm2d",
            "tensors": ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"],
            "parameters": 4,
            "buffers": 5,
            "share": pytest.approx(4 / 24),
        },
    ]
    why = "a buffer of a module without parameters"
    assert found["left_out"][0] == {"tensor": "2.running_mean", "reason": why, "size": 2}


def test_rows_count_tied_tensors_once():
    model = Tied(bias=True)
    tied, *others = rows(model, Partition.by_layer(model))["parts"]
    assert (tied["modules"], tied["parameters"]) == ("Embedding, Linear", 10)
    assert [row["parameters"] for row in others] == [6, 5]
