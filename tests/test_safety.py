"""What is let in: no file or parameter of a run can make the package execute code of its own."""

import ast
import importlib.util
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt
from playwright.sync_api import sync_playwright

from nomalib import records

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(path for path in ROOT.glob("book/**/*.ipynb") if "/." not in str(path))
SOURCES = [*ROOT.glob("nomalib/*.py"), *ROOT.glob("book/_ext/*.py"), *ROOT.glob(".ci/*.py")]
SOURCES = sorted(SOURCES) + NOTEBOOKS
FORBIDDEN = set(
    "eval exec compile __import__ os.system os.popen yaml.load yaml.full_load yaml.unsafe_load "
    "np.load numpy.load".split()
)
# keywords that are safe with one value only
SAFE = {"allow_pickle": "False", "safe_mode": "True", "shell": "False"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unsafe(source):
    """Imports and calls by which data can become code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            yield from UNSAFE_MODULES & {name.split(".")[0] for name in names}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield from (n for n, value in SAFE.items() if keywords.get(n, value) != value)
            loads_data = called.endswith("np.load") and "allow_pickle" in keywords
            if called in FORBIDDEN and not loads_data or "enable_unsafe" in called:
                yield called


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


BAD = """import pickle
from dill import loads
import yaml; yaml.load(text)
eval(text)
np.load(path)
np.load(path, allow_pickle=True)
keras.models.load_model(path, safe_mode=False)
keras.config.enable_unsafe_deserialization()
subprocess.run(text, shell=True)"""


@pytest.mark.parametrize("bad", BAD.splitlines())
def test_the_search_finds_what_it_looks_for(bad):
    assert list(unsafe(bad))
    assert not list(unsafe("np.load(path, allow_pickle=False)\nyaml.safe_load(text)"))


HOSTILE = [
    "<script>ran = true</script>",
    "</code><img src=x onerror='ran = true'>",
    "` <script>ran = true</script> `",
    "``` | <b onmouseover=ran=1>x</b> | ```",
    "a\n\n<script>ran = true</script>\n\nb",
    "[x](javascript:ran=1)",
]


@pytest.fixture(scope="module")
def page_of_records(tmp_path_factory):
    """What the page "This build" prints of records whose every string is hostile, as HTML."""
    path = ROOT / "book/_ext/this_build.py"
    spec = importlib.util.spec_from_file_location("this_build", path)
    this_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(this_build)
    folder = tmp_path_factory.mktemp("records")
    for at, text in enumerate(HOSTILE):
        records.write(folder / f"tiny/{at}.json", {"fading": text}, {"r": 1.0})
        records.write(folder / f"alone_{at}/0.json", {"fading": text, text: 1}, {"r": 1.0})
    backup = folder / "tiny/0.json.unfinished/state.json"  # what a run that was stopped leaves
    backup.parent.mkdir()
    backup.write_text("{}")
    # as MyST reads it, raw HTML included
    return MarkdownIt("commonmark").enable("table").render(this_build.experiments(folder))


def test_html_made_of_records_is_text(page_of_records):
    page = BeautifulSoup(page_of_records, "html.parser")
    made = {tag.name for tag in page.find_all()}
    assert made == {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert len(page.select("tbody tr")) == 1 + len(HOSTILE)
    assert all(len(row.find_all("td")) == 4 for row in page.select("tbody tr"))
    for text in HOSTILE:
        assert " ".join(text.split()) in " ".join(page.get_text().split())


def test_a_script_in_a_record_does_not_run(page_of_records):
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("NOT TESTED IN A BROWSER: no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        for html, runs in ((page_of_records, False), (HOSTILE[0], True), (HOSTILE[1], True)):
            page.set_content(f"<!doctype html><title>records</title>{html}")
            page.wait_for_timeout(100)
            assert page.evaluate("window.ran === true") == runs
        browser.close()
