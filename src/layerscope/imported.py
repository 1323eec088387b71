"""Objects of the user's own code, by their import path."""

import importlib
import sys
from pathlib import Path
from typing import Any

from layerscope.errors import UseError, unknown
from layerscope.spec import fingerprint
from layerscope.store import read_file

FORM = "package.module:NAME, with the folder of the package on Python's path or the current one"


def is_path(name: str) -> bool:
    """Whether a name has the form of an import path, `package.module:NAME`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def imported(name: str, what: str) -> Any:
    """What the import path `package.module:NAME` means; the current folder is looked in too. `what` it should be is for the
    message, if there is no such thing."""
    if not is_path(name):
        raise UseError(f"{name!r} is not the import path of {what}; write {FORM}")
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        if not module_name.startswith(problem.name or "?"):
            raise  # their module is there, but imports another that is not
        raise UseError(f"there is no module {problem.name!r} for {what} {name!r}; write {FORM}") from None
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    if not hasattr(module, attribute):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise unknown(f"name in {module_name}", attribute, public)
    return getattr(module, attribute)


def source_of(thing: Any) -> str:
    """A fingerprint of the code of a function or class: of the whole file it is in, because it may use anything there. Of
    what has no file of its own (built in, typed in), its name."""
    import inspect

    try:
        path = inspect.getsourcefile(thing)
    except TypeError:
        path = None
    text = (
        read_file(path).decode(errors="replace")
        if path and Path(path).is_file()
        else getattr(thing, "__qualname__", "")
    )
    return fingerprint(text)


def made(name: str, what: str) -> Any:
    """What the factory at an import path gives when it is called without arguments."""
    factory = imported(name, what)
    try:
        return factory()
    except TypeError as problem:
        raise UseError(
            f"{name} must be a function that gives {what} when called without arguments: {problem}"
        ) from None
