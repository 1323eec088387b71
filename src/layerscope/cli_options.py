"""Options that several commands have, each with what its help says."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

DataDir = Annotated[
    Path | None, Parameter(help="Folder with the data files. [default: environment variable LAYERSCOPE_DATA]")
]
Out = Annotated[Path, Parameter(help="Folder of the run. One that holds another run is never overwritten.")]
RunFolder = Annotated[Path, Parameter(help="Folder of a run.")]
Device = Annotated[str, Parameter(help="Where to train: cpu, cuda, cuda:1, ...")]
Anyway = Annotated[bool, Parameter(help="Go on where model or data give something else the second time.", negative=())]
Json = Annotated[bool, Parameter(help="Print the result as JSON on stdout, for machines.", negative=())]
DryRun = Annotated[bool, Parameter(help="Only say what it would take: time, memory, forwards.", negative=())]
