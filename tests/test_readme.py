"""The README's examples run as they are printed."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_examples(capsys):
    blocks = re.findall(r"<!-- test -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert "verdict" in capsys.readouterr().out
    assert set(names["table"].frame["n"]) == {2000}  # type: ignore[attr-defined]


def test_the_two_commands():
    makefile = (README.parent / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", README.read_text(), re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
