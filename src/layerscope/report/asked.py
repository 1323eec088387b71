"""What was asked of a run, in words, and its provenance as pairs."""

import re
from collections.abc import Mapping
from typing import Any

from layerscope.plots import words
from layerscope.plots.about import About
from layerscope.plots.grid import Grid, records
from layerscope.plots.names import counted
from layerscope.query import in_words
from layerscope.report import foreign
from layerscope.table import Table

Facts = Mapping[str, Any]


def training(spec: Facts, provenance: Facts) -> list[str]:
    """What was trained on what, in sentences; what the files do not say is left out."""
    if spec.get("kind") != "train":
        return []
    facts = provenance.get("training", {})
    return [
        f"The network {_model(spec['model'])} was trained on {_data(spec, facts.get('data', {}))}.",
        _how(spec, facts.get("ending", {})),
        *_ended(spec, facts.get("ending", {})),
        _kept(spec, facts.get("ending", {}).get("epoch", spec["epochs"])),
    ]


def analysis(spec: Facts, table: Table) -> list[str]:
    """What was changed and measured, in sentences."""
    about = About.of(table)
    measured = set(table.frame["split"])
    splits = [split for split in ("test", "train") if split in measured]
    level = f"{100 * spec['level']:g} %"
    return [
        *filter(None, [foreign.division(table)]),
        f"Each {about.part} alone was {_changes(spec, table)}. All other {about.part}s kept their trained values. "
        "Nothing was trained again.",
        *filter(None, [foreign.buffers(table)]),
        f"The {about.noun} was measured on {words.listed(splits)} data. Intervals are at the {level} level.",
        *_certified(spec, table),
    ]


def _certified(spec: Facts, table: Table) -> list[str]:
    """What part of the data was used, where not all were."""
    about = table.provenance.get("certified")
    if not about:
        return []
    stop = "its verdict was settled" if about["asked"] == "verdicts" else f"it was known to {about['asked']}"
    if spent := about.get("budget"):
        said = _budget(spec["budget"], spent["cells"], about, "" if about["asked"] == IN_TIME else stop)
    else:
        said = f"Samples were taken in a random order (seed {about['order']}), for each change only until {stop}."
    left = words.listed([str(name).replace("_", " ") for name in about["not_measured"]])
    return [
        f"{said} The intervals of changes hold for all {about['answers']} at once, and for the whole of these data."
        + (f" Not measured for this reason: {left}." if left else "")
    ]


IN_TIME = "the best in time"
"""What was asked of a budget alone."""


def _budget(budget: str, cells: Facts, about: Facts, stop: str) -> str:
    """What was to be had in a time."""
    how = "more where intervals were widest" + (f", and no more for a change once {stop}" if stop else "")
    states = {
        "settled": "settled as asked",
        "exact": "known exactly, from all samples",
        "open": "known to within their intervals",
        "failed": "failed",
        "not measured": "not measured for lack of time",
    }
    told = words.listed([f"{words.count(cells[state])} {said}" for state, said in states.items() if cells[state]])
    return (
        f"This is the best answer within {in_words(budget)} of evaluation: samples were taken in a random order (seed "
        f"{about['order']}), first a few for each change, then {how}. Of {words.count(sum(cells.values()))} answers (each "
        f"change on each split): {told}. How many samples each rests on depends on the speed of the machine. Intervals over "
        "draws are wider by what is not known of each draw."
    )


DRAWN = {
    "law": "drawn afresh from its initial law",
    "permutation": "given its own trained values in random order",
    "moments": "drawn afresh from laws with the moments of its trained values",
}
"""Where random values come from -> what was done to each Part."""


def _changes(spec: Facts, table: Table) -> str:
    """What was done to each Part: put back, drawn afresh, or both."""
    steps = table.where(perturbation="rewind")["step"].dropna() if "step" in table.frame.columns else ()
    checkpoints = len(set(steps))
    draws = f"in {words.plural(spec['draws'], 'draw')} (seed {spec['seed']})" if spec["draws"] else ""
    drawn = [f"{DRAWN[About.of(table).redraw]} {draws}"] if draws else []
    first = ", the first of them the pretrained network" if About.of(table).pretrained else ""
    back = (
        [f"put back to its values of {words.plural(checkpoints, 'checkpoint')}{first}"]
        if checkpoints or not drawn
        else []
    )
    return ", and ".join([*back, *drawn])


def rests_on(table: Table, grid: Grid, curves: bool = False) -> str:
    """The data and counts that a picture's numbers rest on."""
    if not grid.split:
        return "Computed from the parameters; no data were used."
    data = f"{words.data_name(table.provenance)} {grid.split} data".strip()
    draws = grid.rests_on(True) if grid.has_random and not curves else 0
    more = f", {words.plural(draws, 'draw')} {grid.about.randomised}" if draws else ""
    return f"{data}, n = {words.samples(table, grid)} {counted(grid.metric)}s{more}."


def training_counts(training: Table, metric: str) -> str:
    """How many samples the numbers of the training rest on, by data."""
    counts = {row["split"]: row["n"] for row in records(training.where(metric=metric)) if row["n"]}
    told = ", ".join(f"{split} data: n = {words.count(n)}" for split, n in counts.items())
    return f"{told} samples." if told else "How many samples the numbers rest on was not said."


def flat(facts: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested facts as pairs of name and text."""
    if isinstance(facts, Mapping):
        return [pair for key, value in facts.items() for pair in flat(value, f"{name} {key}".strip())]
    if isinstance(facts, list):
        return [(name, ", ".join(str(value) for value in facts) or "none")]
    return [(name, str(facts))]


def warnings(provenance: Facts) -> list[str]:
    """What the reading of the data warned of."""
    found = (stage.get("data", {}).get("warnings", []) for stage in provenance.values() if isinstance(stage, Mapping))
    return list(dict.fromkeys(str(text) for texts in found for text in texts))


def _model(name: str) -> str:
    match = re.fullmatch(r"fcn-(\d+)x(\d+)", name)
    return f"{name} (fully connected, {match[1]} hidden layers of {match[2]} units)" if match else name


def _data(spec: Facts, data: Facts) -> str:
    if "n_train" not in data:
        return str(spec["data"])
    held = f", {words.count(data['n_validation'])} validation" if data.get("n_validation") else ""
    counts = f"{words.count(data['n_train'])} training{held} and {words.count(data['n_test'])} test samples"
    return f"{spec['data']} ({counts}, {data['classes']} classes{_noise(data)})"


def _noise(data: Facts) -> str:
    noise = data.get("noise")
    if not noise:
        return ""
    done = "shuffled among themselves" if noise["kind"] == "shuffled" else "replaced by random classes"
    chosen = f"{100 * noise['ratio']:g} % of the training labels {done}"
    return f"; {chosen}, {words.count(noise['differ'])} of them wrong now; errors on training data are against these labels"


OPTIMIZERS = {"sgd": "stochastic gradient descent", "adam": "Adam", "rmsprop": "RMSProp"}
AUGMENTED = {
    "flip": "mirrored left-right at random",
    "pad-crop": "moved by up to 4 pixels at random",
    "pad-crop-flip": "moved by up to 4 pixels and mirrored left-right at random",
    "imagenet": "cropped (8 to 100 % of the area), resized and mirrored left-right at random",
}


def _how(spec: Facts, end: Facts) -> str:
    decay = f"weight decay {spec['weight_decay']:g}" if spec["weight_decay"] else "no weight decay"
    optimizer = OPTIMIZERS[spec.get("optimizer", "sgd")]
    changed = AUGMENTED.get(spec.get("augment", "none"))
    epochs = words.plural(end.get("trained", spec["epochs"]), "epoch")
    most = f" (of at most {spec['epochs']})" if end.get("trained", spec["epochs"]) != spec["epochs"] else ""
    return (
        f"Training took {epochs}{most} of {optimizer} in batches of "
        f"{spec['batch_size']}, with learning rate {spec['lr']:g}{_schedule(spec)}, momentum {spec['momentum']:g} and {decay}. "
        + (f"Training images were {changed}. " if changed else "")
        + ("Products were computed in bfloat16. " if spec.get("precision") == "bfloat16" else "")
        + f"Initial values: {spec['initialiser']}. Seed: {spec['seed']}."
    )


def _schedule(spec: Facts) -> str:
    kind = spec.get("schedule", "step")
    if kind == "cosine":
        return " (falling to 0 as a cosine)"
    if kind == "exponential":
        return f" (times {spec['decay']:g} after every epoch)"
    if kind == "constant" or not (spec.get("every") or spec["milestones"]):
        return ""
    if spec.get("every"):
        return f" (times {spec['decay']:g} after every {words.plural(spec['every'], 'epoch')})"
    shares = words.listed([f"{100 * share:g} %" for share in spec["milestones"]])
    return f" (times {spec['decay']:g} after {shares} of the epochs)"


def _ended(spec: Facts, end: Facts) -> list[str]:
    """How the training ended, where not just by its epochs; and what was frozen."""
    frozen = []
    if spec.get("freeze"):
        names = words.listed(list(spec["freeze"]))
        frozen = [f"These kept their initial values, so that nothing changes where they are put back: {names}."]
    if not end or end["reason"] == "all epochs":
        return frozen
    return [*frozen, f"The trained network is that after epoch {end['epoch']}: {end['reason']}."]


def _kept(spec: Facts, last: int) -> str:
    kept = spec["checkpoints"]
    if kept is None:
        return f"Its values were kept before training and after every epoch until {last}."
    epochs = [str(epoch) for epoch in sorted({0, *(epoch for epoch in kept if epoch < last), last})]
    return f"Its values were kept at epochs {words.listed(epochs, 12)}; 0 is before training."
