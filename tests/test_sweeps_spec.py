"""A grid and its members: which there are, in which order, under which names; and what is refused before anything is done."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layerscope as ls
from layerscope.errors import UseError
from layerscope.spec import canonical_json
from layerscope.sweeps.folder import coordinates_of, grid_columns
from layerscope.sweeps.spec import SweepSpec, read

VALUES = {
    "hidden": st.integers(1, 10**6),
    "noise": st.floats(0, 1) | st.integers(0, 1),
    "seed": st.integers(0, 2**31),
    "lr": st.floats(1e-6, 10),
    "optimizer": st.sampled_from(["sgd", "adam", "rmsprop"]),
    "checkpoints": st.none() | st.lists(st.integers(0, 9), unique=True, max_size=3),
}
BASE = {"model": "fcn-2x{hidden}", "data": "digits?shuffled={noise}", "epochs": 9}


def by_value(value):
    """1 and 1.0 are the same training; lists are compared by what they hold."""
    return float(value) if isinstance(value, int | float) else repr(value)


@st.composite
def grids(draw):
    names = [
        "hidden",
        "noise",
        *draw(st.permutations(["seed", "lr", "optimizer", "checkpoints"]))[: draw(st.integers(0, 4))],
    ]
    names = draw(st.permutations(names))
    return {name: draw(st.lists(VALUES[name], min_size=1, max_size=2, unique_by=by_value)) for name in names}


@settings(deadline=None)  # of time, which other processes take too
@given(grids())
def test_every_combination_is_a_member_in_order(grid):
    members = SweepSpec(BASE, grid).members()
    assert [tuple(m.coordinates.values()) for m in members] == list(itertools.product(*grid.values()))
    assert all(list(m.coordinates) == list(grid) for m in members)
    for member in members:
        assert member.spec.model == f"fcn-2x{member.coordinates['hidden']}"
        assert member.spec.data == f"digits?shuffled={member.coordinates['noise']}"
        assert member.spec.epochs == 9
        for name in set(grid) & {"seed", "lr", "optimizer"}:
            assert getattr(member.spec, name) == member.coordinates[name]


@settings(deadline=None)  # of time, which other processes take too
@given(grids())
def test_names_are_unique_and_fit_every_file_system(grid):
    names = [member.name for member in SweepSpec(BASE, grid).members()]
    assert len({name.casefold() for name in names}) == math.prod(len(values) for values in grid.values())
    assert all(len(name) <= 200 and not set(name) & set('/\\:*?"<>| \n\0') for name in names)


@settings(deadline=None)  # of time, which other processes take too
@given(grids())
def test_the_written_spec_is_the_spec(grid):
    """Also the order of the grid's names, which JSON's canonical form would sort."""
    spec = SweepSpec(BASE, grid)
    again = SweepSpec.from_dict(json.loads(canonical_json(spec.to_dict())))
    assert (again, again.fingerprint) == (spec, spec.fingerprint)
    assert [member.name for member in again.members()] == [member.name for member in spec.members()]


def test_names_and_columns():
    grid = {"width": [8, 16], "lr": [0.1, 1], "freeze": [[], ["layer1"]], "decayed": [True, False]}
    spec = SweepSpec({"model": "fcn-1x{width}", "data": "digits?seed=1{decayed}"}, grid)
    names = [member.name for member in spec.members()]
    assert names[:3] == [
        "width=8,lr=0.1,freeze=empty,decayed=yes",
        "width=8,lr=0.1,freeze=empty,decayed=no",
        "width=8,lr=0.1,freeze=layer1,decayed=yes",
    ]
    assert spec.members()[-1].spec.freeze == ("layer1",)
    assert grid_columns(spec) == [["width", "Int64"], ["lr", "float64"], ["freeze", "string"], ["decayed", "boolean"]]
    assert coordinates_of(spec)[names[2]] == {"width": 8, "lr": 0.1, "freeze": "layer1", "decayed": True}


def test_values_of_numpy_are_numbers():
    spec = SweepSpec(BASE, {"hidden": np.arange(2, 4), "noise": np.linspace(0, 0.5, 2), "seed": range(1)})
    assert spec.members()[0].name == "hidden=2,noise=0.0,seed=0"
    assert canonical_json(spec.to_dict())


SEEDS = {"seed": [0]}
WRONG = [
    ({"epoch": 3}, SEEDS, "unknown field of base 'epoch'; did you mean epochs"),
    ({}, {}, "grid must name at least one"),
    ({}, {"seed": []}, "grid: seed has no values"),
    ({}, {"seed": 3}, "grid: seed must be a list of values, not 3"),
    ({}, {"optimizer": "adam"}, "grid: optimizer must be a list of values, not 'adam'"),
    (
        {},
        {"hidden": [8]},
        r"'hidden' of the grid is no field of a training and stands nowhere in base: write \{hidden\}",
    ),
    ({}, {"seeds": [0]}, "or did you mean seed"),
    ({"model": "fcn-{depth}x8"}, SEEDS, r"base has \{depth\}, but the grid has no 'depth'; it has seed"),
    ({"seed": 0}, SEEDS, "seed is in base and in grid"),
    ({"model": "fcn-1x{n}"}, {"n": [8]}, "'n' cannot be a name of the grid"),
    ({}, {"seed": [1, 1]}, "two members of the sweep would be called 'seed=1'"),
    ({"model": "{model_}"}, {"model_": ["A", "a"]}, "two members of the sweep would be called 'model_=a'"),
    ({}, {"lr": [1, 1.0]}, r"members lr=1 and lr=1\.0 are the same training"),
    ({}, {"seed": [1.5]}, r"member seed=1\.5: seed must be a whole number, not 1\.5"),
    ({}, {"seed": [True]}, "member seed=yes: seed must be a whole number, not True"),
    ({"epochs": "many"}, SEEDS, "epochs must be a whole number, not 'many'"),
    ({"freeze": ["a", 1]}, SEEDS, "freeze must be a list, each a text, not"),
    ({"lr": None}, SEEDS, "lr must be a number, not None"),
    ({"smoothing": "x"}, SEEDS, r"smoothing must be a number or nothing \(null\), not 'x'"),
    ({}, {"lr": [0.1, -1]}, "member lr=-1: lr must be above 0"),
    ({}, {"lr": [math.nan]}, "nan is no value of a sweep"),
    ({"model": {"a": 1}}, SEEDS, "is no value of a sweep"),
    ({"data": "{where}"}, {"where": ["x" * 300]}, "is too long for the name of a folder"),
]


@pytest.mark.parametrize(("base", "grid", "message"), WRONG)
def test_wrong_sweeps_are_told_what_would_be_right(base, grid, message):
    with pytest.raises(UseError, match=message):
        SweepSpec(base, grid)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_a_file(tmp_path):
    """YAML 1.1 reads 1e-3 as a text."""
    text = "base: {model: 'fcn-1x{hidden}', weight_decay: 1e-4}\ngrid: {hidden: [2, 4], lr: [1e-3, 0.1]}\nout: runs/x\n"
    spec, out = read(written(tmp_path, text))
    assert out == Path("runs/x")
    assert spec == SweepSpec({"model": "fcn-1x{hidden}", "weight_decay": 1e-4}, {"hidden": [2, 4], "lr": [0.001, 0.1]})
    assert spec.members()[0].spec == ls.TrainSpec(model="fcn-1x2", weight_decay=1e-4, lr=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: {}\ngird: {seed: [0]}\ngrid: {seed: [0]}", "unknown key of .*: 'gird'; did you mean grid"),
        ("base: {}", "must have base and grid"),
        ("- 1", "must have base and grid"),
        ("base: {}\ngrid: {seed: [0]}\nout: [1]", "out must be the name of a folder"),
        ("base: {", "is no YAML"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    with pytest.raises(UseError, match=message):
        read(written(tmp_path, text))
    with pytest.raises(UseError, match="cannot read"):
        read(tmp_path / "none.yaml")
