"""Chatterji, Neyshabur, Sedghi: The intriguing role of module criticality in the generalization of deep networks. ICLR 2020."""

from layerscope.studies.chatterji2020 import activations, bounds, contest, criticality, path, rewinding, spectra

STUDIES = (
    *path.STUDIES,
    *rewinding.STUDIES,
    *spectra.STUDIES,
    *activations.STUDIES,
    *criticality.STUDIES,
    *contest.STUDIES,
    *bounds.STUDIES,
)
