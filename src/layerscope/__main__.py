"""`python -m layerscope` is the command line."""

from layerscope.entry import entry

entry()
