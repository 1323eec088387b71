"""Zhang, Bengio, Singer: Are All Layers Created Equal? JMLR 2022."""

from layerscope.studies.zhang2022 import fig1

STUDIES = (fig1.STUDY,)
