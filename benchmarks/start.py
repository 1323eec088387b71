"""G8: how long a start takes."""

from benchmarks.frame import REPEATS, Result, process_seconds


def run() -> list[Result]:
    bare = process_seconds("-c", "pass")
    imported = process_seconds("-c", "import layerscope")
    helped = process_seconds("-m", "layerscope", "--help")
    return [
        Result(
            "import layerscope",
            f"{imported:.3f} s",
            f"bare Python {bare:.3f} s",
            "< 0.3 s in all",
            imported < 0.3,
            2 * REPEATS,
        ),
        Result(
            "layerscope --help",
            f"{helped:.3f} s",
            f"bare Python {bare:.3f} s",
            "< 0.3 s",
            helped < 0.3,
            2 * REPEATS,
        ),
    ]
