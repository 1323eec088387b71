"""Shared by the tests: every annotation of the package is checked while they run, and where real data may lie."""

import os
from pathlib import Path

# Tiny networks: more threads only wait for each other, above all when a test starts other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_package

LAZY = (
    *("layerscope.table", "layerscope.partition", "layerscope.plots", "layerscope.report", "layerscope.console"),
    *(
        "layerscope.cli",
        "layerscope.cli_sweep",
        "layerscope.cli_modules",
        "layerscope.sweeps.folder",
        "layerscope.studies",
    ),
)
"""Their annotations name pandas, matplotlib or rooms that they import late, and cannot be resolved when they are loaded."""

beartype_package("layerscope", conf=BeartypeConf(is_pep484_tower=True, claw_skip_package_names=LAZY))

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("unhurried")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """The folder with the real MNIST, where there is one."""
    for root in (os.environ.get("LAYERSCOPE_DATA"), SHARED):
        if root and (Path(root) / "mnist" / "train-images-idx3-ubyte.gz").is_file():
            return Path(root)
    pytest.skip("no real MNIST: set LAYERSCOPE_DATA to a folder that has mnist/*.gz")
