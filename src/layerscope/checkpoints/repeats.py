"""Whether checkpoints differ: published ones have been found to hold the values of others."""

from collections.abc import Mapping, Sequence

from layerscope.checkpoints.notes import listed

Hashes = Mapping[str, str]
"""Name of a tensor -> a hash of its values."""

LARGE = 1000
"""Entries from which on a tensor does not come back to the same values by chance; of a few biases in half precision it might."""


def repeats(hashes: Mapping[str, Hashes], large: Sequence[str]) -> list[str]:
    """What is odd about checkpoints, given the hashes of their tensors in the order of training: those that hold the same
    values, in all tensors or in some (of those that are `large`) that had others in between."""
    names, found = list(hashes), list(hashes.values())
    said = [
        f"checkpoints {listed([names[place] for place in places])} hold the same values: one may be mislabelled"
        for places in equal(found)
    ]
    for places, tensors in returned(found, large).items():
        said.append(
            f"checkpoints {listed([names[place] for place in places])} hold the same values in {len(tensors)} of "
            f"{len(found[0])} tensors ({listed(tensors, 3)}), and those in between do not: one may be mislabelled"
        )
    return said


def equal(hashes: Sequence[Hashes]) -> list[list[int]]:
    """The places of checkpoints that are equal in all tensors, two or more together."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, found in enumerate(hashes):
        groups.setdefault(tuple(sorted(found.items())), []).append(place)
    return [places for places in groups.values() if len(places) > 1]


def returned(hashes: Sequence[Hashes], large: Sequence[str]) -> dict[tuple[int, ...], list[str]]:
    """Places of checkpoints -> the tensors that are equal there and others in between, which no training does. What goes
    without saying, because those checkpoints are equal in all tensors, is left out."""
    whole = {place: group[0] for group in equal(hashes) for place in group}
    found: dict[tuple[int, ...], list[str]] = {}
    for name in large:
        places: dict[str, list[int]] = {}
        for place, each in enumerate(hashes):
            places.setdefault(each[name], []).append(place)
        for same in places.values():
            apart = same[-1] - same[0] >= len(same)
            if apart and len({whole.get(place, place) for place in same}) > 1:
                found.setdefault(tuple(same), []).append(name)
    return found
