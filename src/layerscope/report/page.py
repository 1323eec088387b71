"""The page: what the run's files say, put into the template."""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from layerscope.report.claims import study
from layerscope.report.content import content
from layerscope.report.shown import of_another, pictures
from layerscope.run import REPORT, Run
from layerscope.store import Folder
from layerscope.table import Table

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from layerscope.plots.weights import Listing


def make(run: Run) -> Path:
    """Write the report of a run as report.html in its folder, and return its path.

    The same files give the same bytes. A run that is not analysed or not trained gets one that says so.
    """
    return run.folder.write(REPORT, render(run).encode())


def make_study(
    folder: Folder,
    runs: Sequence[Run],
    verdicts: Table,
    names: Collection[str],
    figures: "Mapping[str, Figure]",
    listings: "Sequence[Listing]" = (),
) -> Path:
    """Write the report of a reproduction as report.html: the claims with their verdicts, figures and tables of the study, and of
    each run the analyses of these names; the first has the whole map."""
    return folder.write(REPORT, render(runs[0], verdicts, names, runs[1:], figures, listings).encode())


def render(
    run: Run,
    verdicts: Table | None = None,
    names: Collection[str] | None = None,
    others: Sequence[Run] = (),
    figures: "Mapping[str, Figure] | None" = None,
    listings: "Sequence[Listing]" = (),
) -> str:
    """The report of a run as one HTML page without outside requests; with verdicts, figures and tables of the study it belongs
    to, and with what was found of its other runs."""
    from markupsafe import Markup

    script = _source("script.js")
    parts = {
        f"{name}_css": Markup(_source(f"{name}.css")) for name in ("style", "figure")
    }  # our own files, not the run's
    page = _environment().get_template("page.html.j2")
    found = content(run, names)
    found["shown"] += [each for other in others for each in of_another(other, names or ())]
    return page.render(
        **found,
        study=None if verdicts is None else study(verdicts),
        figures=pictures(dict(figures or {})),
        listings=listings,
        **parts,
        script=Markup(script),
        script_hash=_hash(script),
    )


@cache
def _environment() -> "Environment":
    from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound

    class Packaged(BaseLoader):
        """Templates as files of this package, also where the package is a zip file."""

        def get_source(self, environment: "Environment", template: str) -> tuple[str, None, None]:
            try:
                return _source(template), None, None
            except FileNotFoundError:
                raise TemplateNotFound(template) from None

    environment = Environment(
        loader=Packaged(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["tojson_text"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(name: str) -> "Markup":
    """A name as text; a long one may go on in the next line after its dots and underscores."""
    from markupsafe import Markup, escape

    if len(name) <= 16:
        return escape(name)
    return Markup(re.sub(r"(?<=[._])(?=\w)", "<wbr>", str(escape(name))))


def _source(name: str) -> str:
    return resources.files("layerscope.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What the page's own policy lets run: this script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
