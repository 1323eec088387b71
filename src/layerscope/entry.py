"""Where the command line starts. The overview is printed without loading what the commands need, so that it comes at once."""

import sys

QUESTION = "Which layers of a trained network matter, and which can be put back to their random start?"
COMMANDS = {
    "demo": "Which layers of a small network matter? Train on embedded digits, analyse and report, in about a minute.",
    "train": "How did a network get where it is? Train one and keep its checkpoints, from before any data is seen.",
    "sweep": "How does what is learned depend on width, noise or seed? Train a grid of networks together; table and picture.",
    "status": "How far is a run or sweep? Say what is complete, what is being done, and when it was last saved.",
    "models": "Which networks can be trained here? List the architectures, their options and sizes.",
    "analyze": "Which layers of a run or any model matter? Put each back to its start and checkpoints, draw it afresh; report.",
    "criticality": "How critical is each module? Find how near its start it works, and how much noise it bears there.",
    "landscape": "What lies between the start and the trained network? Error and loss along the way, with noise beside it.",
    "spectra": "How does each layer stretch its inputs? Singular values of layers as linear maps, over the checkpoints.",
    "similarity": "Does a network with a layer put back still compute the same? CKA of its activations with the trained one's.",
    "cka": "How alike are the layers of two networks? CKA of each layer of a run with each of another run, trained or not.",
    "measures": "What do norms, distances, margins, flatness and criticality say of a network? All measures in one table.",
    "bounds": "What is proven about the error on new data? Generalisation bounds as numbers, each with its conditions checked.",
    "compare": "Which measure ranks your networks as their generalisation does? Kendall's tau of all measures, with intervals.",
    "bench": "How much does the exact engine save on your model, and are its numbers the same? Try it on a slice of the map.",
    "parts": "What can be changed in a network? List its Parts and their tensors, and what is left out, with the reason.",
    "materialize": "What does the network look like with a layer put back or drawn afresh? Write its values to a file.",
    "report": "What was found? Make the report of a run again from the run's files.",
    "reproduce": "Do the claims of a paper's figure or table hold? Run it and judge each claim.",
}
"""Command -> what it answers: the first line of its help."""


def overview() -> str:
    """What `layerscope --help` prints."""
    import shutil
    import textwrap

    width = min(100, shutil.get_terminal_size().columns)
    lines = ["Usage: layerscope COMMAND [OPTIONS]", "", *textwrap.wrap(QUESTION, width), "", "Commands:"]
    for name, answers in COMMANDS.items():
        lines += textwrap.wrap(answers, width, initial_indent=f"  {name:11} ", subsequent_indent=" " * 14)
    settings = "train and analyze take settings from a file too: --spec FILE.yaml or FILE.toml; a flag beside it wins."
    return "\n".join([*lines, "", "layerscope COMMAND --help tells all about one.", *textwrap.wrap(settings, width)])


def entry() -> None:
    """The program `layerscope`."""
    if sys.argv[1:] in ([], ["--help"], ["-h"]):
        print(overview())
        return
    from layerscope.cli import main

    sys.exit(main())
