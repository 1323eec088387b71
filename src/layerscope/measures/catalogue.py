"""What is measured of a whole network to predict how well it generalises: names, what they are called, which way is worse."""

from typing import NamedTuple


class About(NamedTuple):
    """What a measure is called; `direction` is 1 where a larger value predicts a larger generalisation gap and -1 where it
    predicts a smaller one; who proposed it; and whether it takes many passes over data (`dear`)."""

    label: str
    direction: int
    source: str
    dear: bool = False


_CHATTERJI = "Chatterji et al. 2020, Table 1"
_BARTLETT = "Bartlett et al. 2017"

MEASURES = {
    "log_pfn": About("log product of Frobenius norms", 1, _CHATTERJI),
    "log_psn": About("log product of spectral norms", 1, _CHATTERJI),
    "distance_squared": About("squared distance from the start", 1, _CHATTERJI),
    "distance_sum": About("sum of distances from the start", 1, _CHATTERJI),
    "parameters": About("number of parameters", 1, _CHATTERJI),
    "sosp": About("parameters x sum of spectral norms of the change", 1, "Long and Sedghi 2019"),
    "log_sosp": About("log of parameters x sum of spectral norms of the change", 1, "Long and Sedghi 2019"),
    "pac_bayes": About("PAC-Bayes, noise around the trained network", 1, _CHATTERJI, True),
    "pac_bayes_joint": About("PAC-Bayes, noise of the criticality", 1, _CHATTERJI, True),
    "criticality": About("network criticality", 1, _CHATTERJI, True),
    "margin_q10": About("margin, 10 % quantile", -1, _BARTLETT),
    "margin_median": About("margin, median", -1, _BARTLETT),
    "margin_q10_normalised": About("margin / product of spectral norms, 10 % quantile", -1, _BARTLETT),
    "margin_median_normalised": About("margin / product of spectral norms, median", -1, _BARTLETT),
    "log_spectral_margin": About("log spectrally-normalised margin bound", 1, _BARTLETT),
    "log_path_norm": About("log path norm", 1, "Neyshabur et al. 2015"),
    "flatness_gaussian": About("flatness under Gaussian noise", -1, "Jiang et al. 2020", True),
    "flatness_worst": About("flatness in the worst direction found", -1, "Keskar et al. 2017", True),
}
"""Name of a measure -> what there is to know of it, in the order of tables."""

LABELS = {name: about.label for name, about in MEASURES.items()}
DIRECTION = {name: about.direction for name, about in MEASURES.items()}
SOURCES = {name: about.source for name, about in MEASURES.items()}
CHEAP = tuple(name for name, about in MEASURES.items() if not about.dear)
DEAR = tuple(name for name, about in MEASURES.items() if about.dear)
