"""`python -m layerscope` is the command line."""

from layerscope.cli import entry

entry()
