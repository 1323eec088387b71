"""What users write in one word: options of a name (`imagefolder:PATH?size=64&crop=56`), numbers of bytes, durations."""

import re
from collections.abc import Collection

from layerscope.errors import UseError, unknown


def parse(form: str, argument: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """What stands before the last `?` of an argument, and the options after it. Unknown and doubled ones are errors."""
    place, mark, text = argument.rpartition("?")
    if not mark:
        return argument, {}
    options: dict[str, str] = {}
    for item in filter(None, text.split("&")):
        key, equals, value = item.partition("=")
        if key not in known:
            raise unknown(f"option of {form}:", key, known)
        if not equals or not value:
            raise UseError(f"{form}: option {key} needs a value, as in ?{key}=VALUE")
        if key in options:
            raise UseError(f"{form}: option {key} is given twice")
        options[key] = value
    return place, options


def whole_number(form: str, key: str, value: str, highest: int) -> int:
    """An option that is a number from 1 to `highest`."""
    if not (value.isascii() and value.isdigit() and len(value) < 10 and 1 <= int(value) <= highest):
        raise UseError(f"{form}: option {key} must be a whole number from 1 to {highest}, not {value!r}")
    return int(value)


def number_of_bytes(what: str, text: str) -> int:
    """A number of bytes: 8GiB, 500MB, 0B. `what` it is, is for the error."""
    found = re.fullmatch(r"([0-9]{1,9})(B|[KMGT]i?B)", text)
    if found is None:
        raise UseError(f"{what} must be a number of bytes such as 500MB or 8GiB, not {text!r}")
    number, unit = found.groups()
    return int(number) * (1024 if "i" in unit else 1000) ** "BKMGT".index(unit[0])


UNITS = {"s": (1, "second"), "m": (60, "minute"), "h": (3600, "hour")}


def seconds_of(what: str, text: str) -> float:
    """A duration in seconds: 90s, 10m, 1.5h. `what` it is, is for the error."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text)
    if found is None or not float(found[1]):
        raise UseError(f"{what} must be a time above 0 such as 90s, 10m or 1h, not {text!r}")
    return float(found[1]) * UNITS[found[2]][0]


def in_words(text: str) -> str:
    """A duration as people say it: 10m is 10 minutes."""
    unit = UNITS[text[-1]][1]
    return f"{float(text[:-1]):g} {unit}{'' if float(text[:-1]) == 1 else 's'}"
