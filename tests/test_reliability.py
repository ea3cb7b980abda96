"""The page "What you can rely on" names tests; each of them exists."""

import ast
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]


def test_every_test_named_on_the_page_exists():
    cells = nbformat.read(ROOT / "book/reliability.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", text))
    assert len(named) > 30 and text.count("::test_") >= len(named)
    for promise in re.split(r"\n- \*\*", text.partition("## What is not promised")[0])[1:]:
        assert "::test_" in promise, f"no test holds: {promise}"
    there = {
        (path.name, node.name)
        for path in ROOT.glob("tests/test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert named - there == set()
