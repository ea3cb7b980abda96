"""What is let in: no file or parameter of a run can make the package execute code of its own."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(path for path in ROOT.glob("book/**/*.ipynb") if "/." not in str(path))
SOURCES = sorted(ROOT.glob("nomalib/*.py")) + sorted(ROOT.glob("book/_ext/*.py")) + NOTEBOOKS
FORBIDDEN = {"eval", "exec", "__import__", "os.system", "os.popen", "yaml.load", "yaml.full_load"}
FORBIDDEN |= {"yaml.unsafe_load", "np.load", "numpy.load", "enable_unsafe_deserialization"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unsafe(source):
    """Imports and calls by which data can become code: (line, what)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in UNSAFE_MODULES:
                yield node.lineno, f"import {name}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in ("np.load", "numpy.load") and keywords.get("allow_pickle") == "False":
                continue
            if called in FORBIDDEN or called.split(".")[-1] == "enable_unsafe_deserialization":
                yield node.lineno, called
            if keywords.get("allow_pickle", "False") != "False":
                yield node.lineno, "allow_pickle"
            if keywords.get("safe_mode", "True") != "True":
                yield node.lineno, "safe_mode"
            if keywords.get("shell", "False") != "False":
                yield node.lineno, "shell"


def code_of(path):
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return "\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in code.split("\n"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_that_is_read_can_become_code(path):
    assert list(unsafe(code_of(path))) == []


def test_the_workflow_reads_yaml_by_safe_load_only():
    text = (ROOT / "Snakefile").read_text(encoding="utf-8")
    bad = r"yaml\.(load|full_load|unsafe_load)\b|\bpickle\b|(?<![\w.])(eval|exec)\("
    assert not re.search(bad, text)
    assert re.search(bad, "yaml.load(text)") and re.search(bad, "x = eval(text)")


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "import yaml\nyaml.load(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(bad):
    assert list(unsafe(bad))
    assert not list(unsafe("np.load(path, allow_pickle=False)\nyaml.safe_load(text)"))
