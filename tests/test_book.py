"""The notebooks as they are committed: what every chapter and experiment must hold to."""

import ast
import importlib
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from docutils import nodes
from sphinx.project import Project
from sphinx_external_toc.parsing import parse_toc_yaml

from nomalib import plots, records

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
EXPERIMENTS = sorted((ROOT / "book/experiments").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md")) + CHAPTERS
# roots of absolute paths, in pieces so that this file holds none
ELSEWHERE = re.compile(r"(?<![\w.:/])/" + r"(work|root|home|tmp|mnt|Users|private)/")
# calls of pyplot that start a figure, and with it an image on the page
FIGURES = {"plt.figure", "plt.subplots", "plt.subplot_mosaic", "plt.subplot"}

every_notebook = pytest.mark.parametrize("path", CHAPTERS + EXPERIMENTS, ids=lambda path: path.stem)
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells(path, kind):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def code_cells(path):
    return cells(path, "code")


def parsed(cell):
    """Without the lines that are IPython's own."""
    lines = cell.source.splitlines()
    return ast.parse("\n".join("" if line.lstrip()[:1] in ("%", "!") else line for line in lines))


def tagged(path, tag):
    return [cell for cell in code_cells(path) if tag in cell.metadata.get("tags", [])]


def calls(tree):
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@every_notebook
def test_a_notebook_is_valid_and_holds_no_outputs(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"
    ids = Counter(cell.id for cell in notebook.cells)
    assert [name for name, count in ids.items() if count > 1] == []
    for cell in code_cells(path):
        assert cell.outputs == [] and cell.execution_count is None, cell.id


@every_notebook
def test_no_code_cell_has_more_than_fifteen_lines(path):
    lengths = {cell.id: len(cell.source.splitlines()) for cell in code_cells(path)}
    assert {name: lines for name, lines in lengths.items() if lines > 15} == {}


@every_notebook
def test_one_cell_holds_the_parameters_each_with_its_meaning(path):
    (cell,) = tagged(path, "parameters")
    lines = cell.source.splitlines()
    for statement in parsed(cell).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        ast.literal_eval(statement.value)  # what papermill can replace
        said = any("#" in line for line in lines[statement.lineno - 1 : statement.end_lineno])
        assert said or statement.targets[0].id == "seed", ast.unparse(statement)
    # papermill reads them by a pattern of its own, which an "=" in a comment breaks
    known = {statement.targets[0].id for statement in parsed(cell).body}
    assert set(papermill.inspect_notebook(str(path))) == known


@every_chapter
def test_a_chapter_ends_with_an_assertion_of_its_claim(path):
    last = parsed(code_cells(path)[-1])
    checks = [node for node in ast.walk(last) if isinstance(node, ast.Assert)]
    assert checks or any("assert" in name for name in calls(last)), path.name


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_ends_with_its_record(path):
    (cell,) = tagged(path, "parameters")
    record = next(s for s in parsed(cell).body if s.targets[0].id == "record")
    assert ast.literal_eval(record.value) == ""
    assert "records.write" in set().union(*(calls(parsed(c)) for c in code_cells(path)[-2:]))


@every_chapter
def test_every_figure_says_in_words_what_it_shows(path):
    drawers = set(FIGURES)  # and the chapter's own functions that start one
    for cell in code_cells(path):
        functions = [node for node in parsed(cell).body if isinstance(node, ast.FunctionDef)]
        drawers |= {f.name for f in functions if calls(f) & drawers}
        top = [node for node in parsed(cell).body if not isinstance(node, ast.FunctionDef)]
        draws = any(calls(node) & drawers for node in top)
        about = cell.metadata.get("mystnb", {})
        if draws or "figure" in about or "image" in about:
            assert len(about["image"]["alt"]) > 40, cell.id
            assert about["figure"]["caption"].strip(), cell.id
            assert about["figure"]["name"].startswith("fig-"), cell.id


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_picture_of_the_prose_has_alt_text(path):
    prose = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        prose = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    assert re.findall(r"!\[\s*\]\(", prose) == []
    for block in re.findall(r"```+\{(?:figure|image)\}.*?```", prose, flags=re.DOTALL):
        assert re.search(r"^:alt: \S", block, flags=re.MULTILINE), block
    for tag in re.findall(r"<img[^>]*>", prose):
        assert re.search(r"alt=\"[^\"]+\"", tag), tag


def test_every_page_is_in_the_contents_and_every_entry_is_a_page():
    listed = [Path(page).name for page in parse_toc_yaml(ROOT / "_toc.yml")]
    assert sorted(listed) == sorted(path.stem for path in PAGES)


def test_every_chapter_says_what_it_builds_on_and_builds_only_on_what_stands_before():
    heads = yaml.safe_load((ROOT / "book/chapters.yml").read_text(encoding="utf-8"))
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    numbered = [Path(at["file"]).name for p in parts if p.get("numbered") for at in p["chapters"]]
    notebooks = [name for name in numbered if (ROOT / f"book/{name}.ipynb").exists()]
    assert set(heads) == set(notebooks)
    for at, name in enumerate(notebooks):
        assert set(heads[name]) <= {"after", "needs", "goal"} and len(heads[name]) > 1
        assert set(heads[name].get("after", [])) <= set(notebooks[:at]), name


def test_what_runs_and_tools_leave_behind_is_no_page(tmp_path):
    left = [".pytest_cache/README", ".venv/lib/README", "_runs/quick/site/book/index", "README"]
    left += ["book/.ipynb_checkpoints/errata", "book/experiments/scenario"]
    for name in (*left, "book/errata"):
        path = tmp_path / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    excluded = yaml.safe_load((ROOT / "_config.yml").read_text())["exclude_patterns"]
    assert Project(tmp_path, {".md": "markdown"}).discover(excluded) == {"book/errata"}


def test_numbers_in_the_text_are_printed_as_in_books(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    printed = importlib.import_module("numerals").printed
    for text, as_printed in {
        "7e-08 points": "7 × 10⁻⁸ points",
        "of 1.0e-03, 1e+12": "of 1.0 × 10⁻³, 10¹²",
        "0.0e+00": "0",
        "-208.4 (-0.5)": "−208.4 (−0.5)",
        "5.8% to 7 % ± 2, [%]": "5.8\u00a0% to 7\u00a0%\u00a0±\u00a02, [%]",
        "in ch. 5, Table I: 3 dB": "in ch.\u00a05, Table\u00a0I: 3\u00a0dB",
        "N = 10, 5 MHz, × 2": "N\u00a0=\u00a010, 5\u00a0MHz, ×\u00a02",
        "1-2, a-3, 0xe-5, faf1e-03b": "1-2, a-3, 0xe-5, faf1e-03b",
    }.items():
        assert printed(text).replace("\u202f", " ") == as_printed


def test_a_stop_stays_with_its_formula(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    parts = [nodes.strong("", "1"), nodes.Text(". "), nodes.math("", "x"), nodes.Text(". ")]
    parts += [nodes.math("", "y = 2"), nodes.Text("\u00a0W, and")]
    parts += [nodes.math("", "M ="), nodes.Text("\n"), nodes.strong("", "10"), nodes.Text(" on")]
    paragraph = nodes.paragraph("", "", *parts)
    importlib.import_module("numerals").keep_stops(paragraph)
    found = [part.astext() for part in paragraph]
    assert found == ["1", ". ", "x.", " ", "y = 2\u00a0W,", " and", "M =\u00a010", " on"]


def test_values_that_a_run_was_given_are_folded(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    tags = [["parameters"], ["injected-parameters"], ["hide-input"], []]
    empty = {"source": "", "outputs": []}
    source = [json.dumps({"cells": [{"metadata": {"tags": each}} | empty for each in tags]})]
    importlib.import_module("heads").fold(None, "", source)
    shown = [cell["metadata"]["tags"] for cell in json.loads(source[0])["cells"]]
    assert shown == [["injected-parameters", "hide-input"], ["hide-input"], []]


def test_folded_cells_in_a_row_are_one_bar(monkeypatch):
    """Code without an output moves down to the next folded cell, past cells that do not show."""
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    shown, glued = {"data": {"text/plain": "1"}}, {"data": {"application/papermill.record/x": "1"}}

    def cell(source, tags, *outputs):
        return {"metadata": {"tags": tags}, "source": source, "outputs": list(outputs)}

    folded = ["hide-input"]
    cells = [cell("a", folded, glued), cell("b", ["remove-cell"]), cell(["c", "d"], folded, shown)]
    cells += [cell("e", folded, shown), cell("f", folded), cell("g", []), cell("h", folded)]
    cells = importlib.import_module("heads").join(cells)
    assert ["".join(at["source"]) for at in cells] == ["b", "a\n\n\ncd", "e", "f", "g", "h"]
    assert cells[1]["outputs"] == [glued, shown]


def test_this_build_names_the_size_that_is_quoted_and_prints_no_rows(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book/_ext")
    this_build, shared = importlib.import_module("this_build"), {"n_subchannels": 10, "n_train": 7}
    for n_users, n_test, seed in ((20, 2000, 0), (20, 2000, 1), (10, 5000, 0)):
        given = {"n_users": n_users, "n_test": n_test, "seed": seed, "rows": [{"batch": 1}]}
        records.write(tmp_path / f"records/scenario/{n_users}_{seed}.json", given | shared, {})
    said = this_build.sizes(SimpleNamespace(srcdir=tmp_path / "site"))
    assert said.endswith(": 1 seed, 7 draws to train on, 5,000 to test on")
    page = this_build.experiments(tmp_path / "records")
    assert "`n_train=7`" in page and "batch" not in page


@pytest.mark.parametrize("page", ["README.md", "book/index.md"])
def test_the_lines_print_what_stands_below_them(page, capsys):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"```python\n([^`]*?)```\n+```text\n(.*?)```", text, flags=re.DOTALL)
    assert len(found) == text.count("```python")
    assert sum(not re.match(r"import|from|$", line) for line in found[0][0].splitlines()) == 5
    names = {}
    for code, printed in found:
        exec(code, names)
        assert capsys.readouterr().out == printed


def glued_names(tree):
    """Of glue("name", …) and glued("prefix", name=…), as far as they stand in the call."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            first, function = node.args[0].value, ast.unparse(node.func).rpartition(".")[2]
            names |= {first} if function == "glue" else set()
            if function == "glued":
                names |= {f"{first}_{keyword.arg}" for keyword in node.keywords if keyword.arg}
    return names


def test_a_number_of_another_page_has_a_format():
    """Without one, the name of its page is taken for the number's."""
    pages = [*ROOT.glob("book/*.md"), *CHAPTERS]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    used = re.findall(r"{glue:text}`(\S+\.ipynb::[^`]+)`", text)
    assert len(used) > 20 and [name for name in used if not re.search(r"::\w+:", name)] == []


def test_names_are_unique_in_the_whole_book():
    figures, glued = Counter(), Counter()
    for path in CHAPTERS:
        for cell in code_cells(path):
            figures[cell.metadata.get("mystnb", {}).get("figure", {}).get("name")] += 1
            glued.update(glued_names(parsed(cell)))
    del figures[None]
    assert [name for name, count in (figures + glued).items() if count > 1] == []
    assert len(figures) > 10 and len(glued) > 10


def committed():
    parts = ("book", "nomalib", "tests", "benchmarks", "profiles", ".ci", ".github")
    files = [path for part in parts for path in (ROOT / part).rglob("*")]
    made = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split("\n")} | {".git"}
    files += [path for path in ROOT.iterdir() if path.name not in made]
    written = (".py", ".ipynb", ".md", ".yml", ".toml", ".txt", ".bib", ".html", ".css", ".js", "")
    return [path for path in files if path.is_file() and path.suffix in written]


def test_no_file_names_a_path_of_one_machine():
    found = {
        str(path.relative_to(ROOT)): ELSEWHERE.findall(path.read_text(encoding="utf-8"))
        for path in committed()
        if "/." not in str(path.relative_to(ROOT)) and "__pycache__" not in str(path)
    }
    assert {path: roots for path, roots in found.items() if roots} == {}
    assert len(found) > 60
    assert ELSEWHERE.search("open('/" + "home/me/data')")


def test_every_test_that_the_page_on_reliability_names_exists():
    page = cells(ROOT / "book/reliability.ipynb", "markdown")
    text = "\n".join(cell.source for cell in page)
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


def items_of_the_paper():
    """Rows of the matrix: item, what it is, verdict, where."""
    text = (ROOT / "book/paper_items.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_every_item_of_the_paper_has_a_place_in_the_book_and_a_verdict():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    for row in items_of_the_paper():
        assert len(row) == 4 and all(part.strip() for part in row), row
        places = re.findall(r"\{(?:eq|numref|prf:ref|doc)\}`(?:[^`<]+<)?([^`>]+)>?`", row[3])
        assert places, row
        for place in places:
            labels = f"({place})", f":label: {place}", f'"name": "{place}"'
            there = (ROOT / f"book/{place}.ipynb").exists()
            assert there or any(label in sources for label in labels), f"{place} is nowhere"


def test_no_equation_algorithm_figure_or_table_of_the_paper_is_left_out():
    listed = " ".join(row[0] for row in items_of_the_paper())
    for first, last in re.findall(r"\((\d+)\)–\((\d+)\)", listed):
        listed += "".join(f" ({n})" for n in range(int(first), int(last)))
    wanted = [f"({n})" for n in range(1, 30)] + [f"Fig. {n}" for n in range(1, 10)]
    wanted += ["Algorithm 1", "Algorithm 2", "Table I", "Table IV", "Tables II, III"]
    wanted += ["Table II", "Table III", "Proposition 3", "future 1", "future 2"]
    assert [item for item in wanted if item not in listed] == []


def test_times_are_taken_on_every_device_and_shown_in_a_column_each(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    small = {"sizes": [[2, 2]], "batches": [1], "n_draws": 10, "n_epochs": 2}
    small["trainings"] = [[2, 2, 20, 10]]
    records.run_experiment("times", tmp_path / "times.json", **small)
    (row,) = records.table(tmp_path)
    passes = [what for what in row["rows"] if what["what"] == "network, XLA"]
    assert row["devices"] == ["CPU", "CPU 1"] == [what["device"] for what in passes]
    assert [what["device"] for what in row["trained"]] == ["CPU", "CPU 1"]
    assert np.min(row["time_s"]) > 0 and np.min(row["epoch_s"]) > 0
    shown = plots.device_table(row["rows"], row["time_s"], "network, XLA")
    assert "| batch | CPU [µs] | CPU 1 [µs] |" in shown and "There was no GPU" in shown
    named = [what | {"device": what["device"].replace("CPU 1", "GPU (A)")} for what in row["rows"]]
    shown = plots.device_table(named, row["time_s"], "network, XLA")
    assert "| batch | CPU [µs] | GPU (A) [µs] |" in shown and "no GPU" not in shown
