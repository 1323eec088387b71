"""The rooms of the package: nothing imports upward, no cycles, files are touched in one place, torch loads late."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "layerscope"

LEVELS = [
    {
        "entry",
        "errors",
        "step",
        "stats",
        "ranking",
        "spec",
        "rng",
        "state",
        "partition",
        "query",
        "sequential",
        "device",
    },
    {"store", "runtime", "imported", "memory"},
    {"table", "checkpoints", "trajectory", "data", "models", "run"},
    {"perturb", "metrics", "measures", "plots"},
    {"engine", "training", "recording", "report"},
    {"analyses"},
    {"sweeps"},
    {"studies"},
    {"console", "cli_options", "cli_sweep", "cli_modules", "cli", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

WITHOUT_TORCH = [
    "layerscope",
    "layerscope.cli",
    "layerscope.measures.bounds",
    "layerscope.plots",
    "layerscope.plots.bounds",
    "layerscope.plots.compare",
    "layerscope.plots.measures",
    "layerscope.report",
    "layerscope.run",
    "layerscope.table",
    "layerscope.partition",
    "layerscope.store",
    "layerscope.stats",
    "layerscope.ranking",
    "layerscope.sequential",
    "layerscope.training.spec",
    "layerscope.recording.spec",
    "layerscope.analyses.spec",
    "layerscope.analyses.compare",
    "layerscope.runtime",
    "layerscope.sweeps.spec",
    "layerscope.sweeps.folder",
    "layerscope.sweeps.summary",
    "layerscope.sweeps.status",
]


@cache
def modules() -> dict[str, Path]:
    names = {
        path: ".".join(("layerscope", *path.relative_to(ROOT).with_suffix("").parts)) for path in ROOT.rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


@cache
def imports(path: Path, lazily: bool = True) -> set[str]:
    """The modules of the package that a file imports, anywhere in it (with `lazily`) or when it is loaded."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazily else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "layerscope":
            found |= {resolve(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "layerscope"}
    return found


def resolve(module: str, name: str) -> str:
    return f"{module}.{name}" if f"{module}.{name}" in modules() else module


def test_the_entry_starts_the_command_line_and_nothing_else():
    assert imports(modules()["layerscope.entry"]) == {"layerscope.cli"}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_level():
    assert {room(name) for name in modules()} - {""} <= set(LEVEL)


def test_nothing_imports_upward():
    edges = [
        (a, b) for a, path in modules().items() if room(a) for b in imports(path) if room(b) and room(a) != "entry"
    ]
    assert len(edges) > 50
    assert [(a, b) for a, b in edges if LEVEL[room(a)] < LEVEL[room(b)]] == []


def test_engine_and_training_are_siblings():
    between = {("engine", "training"), ("training", "engine"), ("analyses", "training.loop")}
    found = {(room(a), room(b)) for a, path in modules().items() for b in imports(path)}
    assert not found & between


def test_no_cycles():
    graph = {name: imports(path, lazily=False) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


FILE_CALLS = {
    "open",
    "read_bytes",
    "read_text",
    "write_bytes",
    "write_text",
    "unlink",
    "mkdir",
    "rename",
    "rmtree",
}


def test_only_the_store_touches_files():
    touches = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                owner = getattr(getattr(node.func, "value", None), "id", "")
                if called in FILE_CALLS and owner not in {"Table", "Trajectory", "Run", "Sweep"}:
                    touches.add((room(name), called))
    of_the_kernel = {("memory", "read_text"), ("memory", "write_text")}  # it asks of the process: no files of ours
    assert {room for room, _ in touches - of_the_kernel} - {"report"} <= {"store"}, touches


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_importable_without_torch(module: str):
    heavy = "'pandas' in sys.modules, 'matplotlib' in sys.modules"
    code = f"import sys; sys.modules['torch'] = None; import {module}; print({heavy})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


def test_every_public_name_exists():
    code = "import layerscope as ls; print(all(getattr(ls, name) is not None for name in ls.__all__))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
