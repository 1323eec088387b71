"""Ambient, critical, destroyed or undecided: the rule, apart from where its numbers come from."""

from layerscope.stats import Interval


def verdict(delta: Interval, gap: float, ambient: float = 0.1, destroyed: float = 0.5) -> str:
    """The verdict on a change of error with an interval, where `gap` is chance error minus unmodified error.

    `ambient` if the upper bound is below `ambient` x gap, `critical` if the lower bound is above it, and `destroyed` if
    that is above `destroyed` x gap; else `undecided`, as always where the network is no better than chance.
    Source: zhang2022 gives no threshold (footnote 1); this rule is ours. Ambient does not mean removable.
    """
    if not gap > 0:
        return "undecided"
    if delta.low > destroyed * gap:
        return "destroyed"
    if delta.low > ambient * gap:
        return "critical"
    return "ambient" if delta.high < ambient * gap else "undecided"
