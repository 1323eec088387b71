"""Runs the benchmarks and writes the table: `python -m benchmarks [NAME ...]`; `certified`, of 8 minutes,
and `deep`, of half an hour, only by name."""

import sys
from importlib import import_module
from pathlib import Path

from benchmarks.frame import Result, machine

ALL = ["start", "training", "feeding", "engine", "replay", "population", "spectra", "criticality", "memory"]
HEAD = "| what | measured | against | goal | reached | n |\n|---|---|---|---|---|---|\n"


def line(result: Result) -> str:
    reached = "yes" if result.reached else "**no**"
    return f"| {result.what} | {result.measured} | {result.against} | {result.goal} | {reached} | {result.n} |\n"


def main() -> None:
    chosen = sys.argv[1:] or ALL
    lines = []
    for name in chosen:
        for result in import_module(f"benchmarks.{name}").run():
            lines.append(line(result))
            print(lines[-1], end="", file=sys.stderr, flush=True)
    about = f"Medians of n repeats, both sides in turn in one process. {machine()}."
    text = f"# Benchmarks\n\n{about}\n\n{HEAD}{''.join(lines)}"
    print(text)
    if chosen == ALL:
        Path(__file__).with_name("results.md").write_text(text)


if __name__ == "__main__":
    main()
