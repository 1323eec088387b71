"""Specs: one canonical JSON each, and a fingerprint that changes with every field."""

import dataclasses
import inspect
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscope.analyses.spec import (
    BoundsSpec,
    CompareSpec,
    LandscapeSpec,
    MeasuresSpec,
    RobustnessSpec,
    SimilaritySpec,
    SpectraSpec,
)
from layerscope.errors import UseError
from layerscope.spec import Spec, canonical_json, fingerprint
from layerscope.sweeps.spec import SweepSpec
from layerscope.training.spec import TrainSpec

OTHER = {
    "model": "fcn-1x2",
    "data": "mnist",
    "epochs": 7,
    "batch_size": 7,
    "lr": 0.7,
    "momentum": 0.7,
    "weight_decay": 0.7,
    "milestones": (0.7,),
    "decay": 0.7,
    "initialiser": "he",
    "seed": 7,
    "checkpoints": (7,),
}


TOGETHER = [
    {"optimizer": "adam", "smoothing": 0.5},
    {"schedule": "constant"},
    {"every": 2},
    {"augment": "flip"},
    {"precision": "bfloat16"},
    {"until": "loss", "target_loss": 0.1},
    {"until": "loss", "target_loss": 0.2},
    {"until": "convergence", "patience": 3},
    {"until": "convergence", "tolerance": 0.5},
    {"freeze": ("layer1",)},
    {"freeze": ("layer1",), "freeze_by": "block"},
]
"""Fields that mean something only together with others; each beside what it is without them."""
WITHOUT = [{"optimizer": "adam"}, {"until": "convergence"}]


def test_every_field_changes_the_fingerprint():
    given = [{}, *({name: value} for name, value in OTHER.items()), *TOGETHER, *WITHOUT]
    assert {name for fields in given for name in fields} == {field.name for field in dataclasses.fields(TrainSpec)}
    prints = [TrainSpec(**fields).fingerprint for fields in given]
    assert len(set(prints)) == len(prints)


OTHER_ROBUSTNESS = {
    "draws": 7,
    "steps": (7,),
    "redraw": "moments",
    "train": False,
    "seed": 7,
    "level": 0.7,
    "ambient": 0.07,
    "destroyed": 0.7,
    "by": "block",
    "groups": ("a=b",),
    "join": ("a=b|c",),
    "buffers": "keep",
    "calibrate": 7,
    "metrics": ("error",),
    "within": 0.7,
    "decide": True,
    "budget": "7m",
}


def test_every_field_of_an_analysis_changes_the_fingerprint():
    assert set(OTHER_ROBUSTNESS) == {field.name for field in dataclasses.fields(RobustnessSpec)}
    specs = [RobustnessSpec(), *(RobustnessSpec(**{name: value}) for name, value in OTHER_ROBUSTNESS.items())]
    assert len({spec.fingerprint for spec in specs}) == len(specs)


OTHER_SPECTRA = {"layers": ("a",), "steps": (7,), "values": 7}
OTHER_SIMILARITY = {
    "by": "block",
    "groups": ("a=b",),
    "join": ("a=b|c",),
    "steps": (7,),
    "at": ("a",),
    "n": 7,
    "kernel": "rbf",
    "debiased": False,
    "block": 7,
    "seed": 7,
}


OTHER_BOUNDS = {
    "eps": (0.07,),
    "by": "block",
    "groups": ("a=b",),
    "join": ("a=b|c",),
    "alphas": (0.7,),
    "sigmas": (0.7,),
    "objective": "ratio",
    "rounds": 7,
    "block": 7,
    "most": 7,
    "draws": 7,
    "gamma": 7.0,
    "radius": 7.0,
    "independent": True,
    "seed": 7,
    "level": 0.7,
}


@pytest.mark.parametrize(
    ("spec", "other"),
    [(SpectraSpec, OTHER_SPECTRA), (SimilaritySpec, OTHER_SIMILARITY), (BoundsSpec, OTHER_BOUNDS)],
)
def test_every_field_of_what_is_seen_of_layers_changes_the_fingerprint(spec, other):
    assert set(other) == {field.name for field in dataclasses.fields(spec)}
    specs = [spec(), *(spec(**{name: value}) for name, value in other.items())]
    assert len({one.fingerprint for one in specs}) == len(specs)


OTHER_LANDSCAPE = {
    "parts": ("a",),
    "by": "block",
    "groups": ("a=b",),
    "join": ("a=b|c",),
    "alphas": (0.7,),
    "sigmas": (0.7,),
    "draws": 7,
    "train": False,
    "metrics": ("error",),
    "seed": 7,
    "level": 0.7,
}


def test_every_field_of_a_landscape_changes_the_fingerprint():
    assert set(OTHER_LANDSCAPE) | {"valley"} == {field.name for field in dataclasses.fields(LandscapeSpec)}
    specs = [LandscapeSpec(), *(LandscapeSpec(**{name: value}) for name, value in OTHER_LANDSCAPE.items())]
    specs.append(LandscapeSpec(sigmas=(0.7,), valley=True))  # a valley needs noise
    assert len({spec.fingerprint for spec in specs}) == len(specs)


OTHER_COMPARE = {
    "target": "error",
    "measures": ("sosp",),
    "against": "sosp",
    "level": 0.7,
    "resamples": 700,
    "seed": 7,
}


def test_every_field_of_a_comparison_changes_the_fingerprint():
    assert set(OTHER_COMPARE) == {field.name for field in dataclasses.fields(CompareSpec)}
    specs = [CompareSpec(), *(CompareSpec(**{name: value}) for name, value in OTHER_COMPARE.items())]
    assert len({spec.fingerprint for spec in specs}) == len(specs)


OTHER_MEASURES = {
    "which": ("sosp",),
    "operator": "circular",
    "tolerance": 0.7,
    "eps": 0.7,
    "alphas": (0.7,),
    "sigmas": (0.7,),
    "search": "grid",
    "draws": 7,
    "block": 7,
    "most": 7,
    "samples": 7,
    "rise": 0.7,
    "climb": 0.7,
    "ascent": 7,
    "seed": 7,
    "level": 0.7,
}


def test_every_field_of_measures_changes_the_fingerprint():
    assert set(OTHER_MEASURES) == {field.name for field in dataclasses.fields(MeasuresSpec)}
    specs = [MeasuresSpec(), *(MeasuresSpec(**{name: value}) for name, value in OTHER_MEASURES.items())]
    assert len({spec.fingerprint for spec in specs}) == len(specs)


def test_every_field_of_a_sweep_changes_the_fingerprint():
    grid = {"lr": [0.1, 0.2], "seed": [0, 1]}
    other = {"base": {"epochs": 7}, "grid": {"seed": [0, 1], "lr": [0.1, 0.2]}}  # another order: other members
    assert set(other) == {field.name for field in dataclasses.fields(SweepSpec)}
    specs = [SweepSpec({}, grid), *(SweepSpec(**{"base": {}, "grid": grid, name: v}) for name, v in other.items())]
    assert len({spec.fingerprint for spec in specs}) == len(specs)


def test_the_fingerprint_is_stable():
    assert fingerprint({"b": 1, "a": [1, 2.5, None]}) == fingerprint({"a": [1, 2.5, None], "b": 1})
    assert canonical_json({"b": 1, "a": (True, "ü")}) == '{"a":[true,"\\u00fc"],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@given(st.integers(1, 10**6), st.lists(st.integers(0, 1), max_size=3), st.floats(1e-6, 10))
def test_json_round_trip(epochs, checkpoints, lr):
    spec = TrainSpec(epochs=epochs, checkpoints=tuple(checkpoints), lr=lr)
    assert TrainSpec.from_dict(json.loads(canonical_json(spec.to_dict()))) == spec


@dataclasses.dataclass(frozen=True)
class Several(Spec):
    KIND = "several"
    numbers: tuple[float, ...] = (0.5,)
    names: tuple[str, ...] | None = None
    other: float = 1.0


def test_one_value_alone_is_a_tuple_of_one():
    assert Several(numbers=0.2) == Several(numbers=(0.2,)) == Several(numbers=[0.2])
    assert Several(names="layer1").names == ("layer1",)
    assert (Several().names, Several().other, Several().numbers) == (None, 1.0, (0.5,))
    assert Several.from_dict(Several(numbers=[1, 2]).to_dict()).numbers == (1, 2)
    for spec in (BoundsSpec, LandscapeSpec, SpectraSpec, TrainSpec, SweepSpec):  # which have checks of their own
        assert "        super().__post_init__()" in inspect.getsource(spec)


def test_unknown_fields_and_other_kinds_are_refused():
    with pytest.raises(UseError, match="unknown field of a train spec 'epoch'; did you mean epochs"):
        TrainSpec.from_dict({"epoch": 3})
    with pytest.raises(UseError, match="'robustness' spec"):
        TrainSpec.from_dict(RobustnessSpec().to_dict())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": -1}, {"momentum": 1.0}, {"checkpoints": (101,)}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(UseError, match=next(iter(wrong))):
        TrainSpec(**wrong)


def test_schedule_of_the_paper():
    spec = TrainSpec()
    rates = [spec.learning_rate(epoch) for epoch in (0, 29, 30, 59, 60, 89, 90, 99)]
    assert rates == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004, 0.00008, 0.00008])
