"""The README's examples run as they are printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def run_blocks(tutorial: str) -> dict[str, object]:
    """The names that the Python of a tutorial leaves."""
    path = README.parent / "docs" / "tutorials" / f"{tutorial}.md"
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)```", path.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(path), "exec"), names)
    return names


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


def test_the_tutorial_on_any_network(capsys):
    pytest.importorskip("transformers")
    names = run_blocks("any-network")
    assert "transformer.wte = lm_head" in capsys.readouterr().out
    assert set(names["found"].frame["n"]) == {256}  # type: ignore[attr-defined]
    assert len(names["heads"]) == 12  # type: ignore[arg-type]


def test_the_tutorial_on_the_training_lab(capsys):
    names = run_blocks("training-lab")
    printed = capsys.readouterr().out
    assert "25557032" in printed
    assert "stage2.block1" in printed
    assert "stage2.block2" not in printed.splitlines()[0]
    assert names["run"].ending["reached"]  # type: ignore[attr-defined]


def test_the_tutorial_on_populations(capsys):
    names = run_blocks("populations")
    printed = capsys.readouterr().out
    assert "12 networks, the first: hidden=2,noise=0,seed=0" in printed
    assert "hidden=16,noise=0.2,seed=1 all epochs ['robustness']" in printed
    assert "12 networks on digits" in names["figure"].get_suptitle()  # type: ignore[attr-defined]


def test_the_tutorial_on_criticality(capsys):
    names = run_blocks("criticality")
    printed = capsys.readouterr().out
    assert "whole network" in printed
    assert "theorem_3.2" in printed
    alike = names["pairs"].frame  # type: ignore[attr-defined]
    assert set(alike["layer"]) == set(alike["layer_b"]) == {"layer1", "layer2", "layer3"}
    assert alike["value"].between(0.1, 1).all()
    assert set(names["contest"].where(metric="tau")["n"]) == {6}  # type: ignore[attr-defined]


def test_the_grid_of_the_tutorial_is_one(tmp_path):
    from layerscope.sweeps.spec import read

    tutorial = (README.parent / "docs" / "tutorials" / "populations.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)```", tutorial, re.DOTALL | re.MULTILINE)
    (tmp_path / "grid.yaml").write_text(text)
    spec, out = read(tmp_path / "grid.yaml")
    assert len(spec.members()) == 6 * 3 * 5
    assert str(out) == "runs/double-descent"


def test_links_within_the_documentation_lead_somewhere():
    root = README.parent
    pages = [README, *root.glob("docs/**/*.md"), root / "CHANGELOG.md"]
    links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())]
    assert len(links) > 15
    assert [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()] == []
