"""The checkpoints that a user names, and the moments they are of."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerscope.checkpoints.formats import is_checkpoint, source_of
from layerscope.checkpoints.hugging_face import OTHERS, WEIGHTS, weights_of
from layerscope.checkpoints.names import ends_of, steps_of
from layerscope.checkpoints.source import Source
from layerscope.errors import UseError
from layerscope.state import content_hash
from layerscope.step import FINAL, INIT, PRETRAINED, Step, parsed, unit_of
from layerscope.store import SUMS, Folder

MAGIC = set("*?[")
"""What makes a text that is no path a glob."""


@dataclass(frozen=True)
class Found:
    """Checkpoints by their moments, which are counted in `unit`: epoch, iteration, or checkpoint where nobody knows. `notes`
    say what was decided about them. `pretrained` if the first is a pretrained network, and no random start."""

    sources: dict[Step, Source]
    unit: str
    notes: tuple[str, ...]
    pretrained: bool = False


@dataclass(frozen=True)
class Moment:
    """A checkpoint and when it was; `said` if the user wrote that, and not its name."""

    path: Path
    step: Step
    unit: str = ""
    said: bool = False
    pretrained: bool = False


def find(texts: Sequence[str]) -> Found:
    """The checkpoints that a user names: folders, files, globs, and STEP=FILE. All that are not STEP=FILE are one series,
    whose names say the steps. One checkpoint alone, whatever its name, is the trained network."""
    said = [moment for text in texts if (moment := _said(text))]
    notes: list[str] = []
    series: list[Path] = []
    ends: list[Moment] = []
    alone = len(texts) == 1
    for text in (text for text in texts if not _said(text)):
        path = Path(text)
        if not path.exists() and MAGIC & set(text):
            series += _matching(text)
        elif members := _members(path, notes):
            series += members
            ends += [Moment(path, FINAL)] if weights_of(path) else []
            alone = False
        else:
            series.append(path)
    series = list(dict.fromkeys(series))
    sources = [source_of(path) for path in series]  # that they are checkpoints comes before what their names say
    if alone and len(sources) == 1:
        return Found({Step(1): sources[0]}, "checkpoint", tuple(notes))
    stems = {str(path): path.resolve().name if path.is_dir() else path.stem for path in series}
    steps, unit = steps_of(stems, {str(path) for path in series if path.is_dir()})
    steps = _from_one(steps, unit, ends_of(stems), notes)
    moments = [*said, *(Moment(path, steps[str(path)], unit) for path in series), *ends]
    return _placed(moments, notes)


def _said(text: str) -> Moment | None:
    """The moment of a text STEP=FILE; None for any other, such as a path with an = in it."""
    before, equals, after = text.partition("=")
    try:
        step, unit = parsed(before)
    except ValueError:
        return None
    return Moment(Path(after), step, unit, said=True, pretrained=before == PRETRAINED) if equals else None


def _matching(text: str) -> list[Path]:
    """The files and folders that a glob means, whose * is for the shell where it is not quoted, and for us where it is."""
    root = Path(text).anchor
    found = sorted(path for path in Path(root).glob(text.removeprefix(root)) if not path.name.startswith("."))
    if not found:
        raise UseError(f"nothing matches {text}")
    return found


def _members(path: Path, notes: list[str]) -> list[Path]:
    """The checkpoints in a folder; none if it is one itself and there are no others in it, or if it is no folder."""
    if not path.is_dir():
        return []
    folder = Folder(path)
    names = folder.names()
    if (path / "checkpoints").is_dir() and "spec.json" in names:
        raise UseError(f"{path} is a run; its checkpoints are in {path / 'checkpoints'}")
    listed = {name for name in folder.listed() if "/" not in name}
    if absent := sorted(listed - set(names)):
        raise UseError(f"{path / absent[0]} is listed in {SUMS} but missing: it was deleted, or never finished")
    files = [path / name for name in names if is_checkpoint(path / name)]
    folders = [inner for inner in sorted(path.iterdir()) if inner.is_dir() and is_checkpoint(inner)]
    beside = [file for file in files if OTHERS.fullmatch(file.name)]
    own = [file for file in files if WEIGHTS.fullmatch(file.name) and weights_of(path)]
    members = [file for file in files if file not in (*beside, *own)] + folders
    if not members and not own:
        raise UseError(f"{path} holds no checkpoint, neither files of a known kind nor folders of Hugging Face")
    if members and beside:
        notes.append(f"not read, as they hold no network: {', '.join(file.name for file in beside)}")
    return members


def _from_one(steps: dict[str, Step], unit: str, ends: Collection[str], notes: list[str]) -> dict[str, Step]:
    """The steps of a series counted from 1, where the names count from 0 what was done: the file of epoch 0 says itself that
    steps of the optimizer were taken before it was written, so that it is that of the first epoch, and no start."""
    first = next((shown for shown, step in steps.items() if step == INIT and shown not in ends), None)
    done = source_of(Path(first)).iterations() if first and unit != "iteration" else 0
    if not done:
        return steps
    notes.append(
        f"the names count from 0: {first} says itself that {done} steps of the optimizer were done, so that it is no start but "
        f"{unit} 1, and the others are one later too"
    )
    return {shown: step if shown in ends else Step.of(step.number(unit) + 1, unit) for shown, step in steps.items()}


def _check_start(start: Moment, done: int) -> None:
    """Refuse a start of which the file itself says that it was trained."""
    if done and not start.pretrained:
        raise UseError(
            f"{start.path} is taken for the start, but says itself that {done} steps of the optimizer were done: write "
            f"step-{done}={start.path} or epoch-1={start.path}, or pretrained={start.path} if a fine-tuning began there"
        )


def _placed(moments: Sequence[Moment], notes: list[str]) -> Found:
    """The checkpoints in their order. The end is a step like the others: that after the last one known; or that one itself,
    where it was found there and holds the same values."""
    unit = _unit(moments)
    steps: dict[Step, Moment] = {}
    for moment in moments:
        if moment.step in steps:
            raise UseError(
                f"{steps[moment.step].path} and {moment.path} are both said to be the checkpoint {moment.step}"
            )
        steps[moment.step] = moment
    sources = {step: source_of(moment.path) for step, moment in steps.items()}
    if start := steps.get(INIT):
        _check_start(start, sources[INIT].iterations())
    if end := steps.get(FINAL):
        last = max((step for step in steps if step != FINAL), default=INIT)
        source = sources.pop(FINAL)
        if not end.said and last != INIT and _same(source, sources[last]):
            notes.append(f"{end.path} holds the values of {steps[last].path} and is that checkpoint")
        else:
            after = Step.of(last.number(unit) + 1, unit)
            sources[after] = source
            notes.append(f"{end.path} is the end; that its {unit} is {after.number(unit)} is only for the order")
    return Found(sources, unit, tuple(notes), any(moment.pretrained for moment in moments))


def _unit(moments: Iterable[Moment]) -> str:
    """What all steps are counted in; an error if some are counted in one thing and some in another."""
    counted = {moment.unit: moment.path for moment in moments if moment.unit}
    if len(counted) > 1:
        (one, path), (other, another) = list(counted.items())[:2]
        raise UseError(
            f"{path} counts {one}s and {another} {other}s: the checkpoints of one trajectory are counted in one thing"
        )
    known = [moment.step for moment in moments if moment.step not in (INIT, FINAL)]
    return next(iter(counted), unit_of(known) if known else "checkpoint")


def _same(one: Source, other: Source) -> bool:
    """Whether two checkpoints hold the same values; one at a time is in memory."""
    return one.shapes() == other.shapes() and content_hash(one.read(None)) == content_hash(other.read(None))
