"""A run's report: one HTML file that needs nothing else, made from the run's files. Never imports torch."""

from layerscope.report.page import make, make_study, render

__all__ = ["make", "make_study", "render"]
