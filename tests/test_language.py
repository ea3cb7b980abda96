"""What a page says: sentences that are read once, references by number, and code that is an idea.

The counters are simple and strict: what they cannot tell from prose counts as prose.
"""

import ast
import builtins
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md")) + CHAPTERS
LONGEST = 45  # words of a sentence
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)

# directives whose body is prose; the body of any other is dropped
PROSE = r"prf:\w+|admonition|note|tip|warning|important|dropdown|margin|sidebar|grid.*|tab.*|card"
SHORT = r"\b(?:al|[Ff]igs?|[Cc]h|[Ee]qs?|[Ss]ec|vs|e\.g|i\.e|cf|No|arXiv|approx|resp)\.\s"


def prose_of(path):
    """The markdown of a page as it is written."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def without_code(text):
    """Fences are dropped; of directives whose body is prose only the fences are."""
    text = re.sub(r"^(?:```+|:::+)\{(?:" + PROSE + r")\}.*$", "\n", text, flags=re.M)
    text = re.sub(r"^(```+|:::+)[\{\w].*?^\1\s*$", "\n", text, flags=re.M | re.S)
    text = re.sub(r"^(?:```+|:::+)\s*$", "\n", text, flags=re.M)
    return re.sub(r"^:[\w-]+:.*$", "", text, flags=re.M)  # options of a directive


def sentences(text):
    """Of a page: without code, tables, targets and addresses; mathematics is one word."""
    text = re.sub(r"<(style|script)\b.*?</\1>|<!--.*?-->", " ", without_code(text), flags=re.S)
    text = re.sub(r"^\s*\|.*$|^\(\S+\)=$", "\n", text, flags=re.M)
    # a displayed equation ends a sentence where it ends with a full stop, and only there
    shown = r"\s*\$\$(.*?)\$\$(?:[ \t]*\([\w-]+\))?\s*"
    text = re.sub(shown, lambda m: ".\n\n" if m[1].strip().endswith(".") else " ", text, flags=re.S)
    text = re.sub(r"\$[^$]+\$", "x", text)
    text = re.sub(
        r"\{[\w:]+\}`([^`<]*?)\s*(?:<[^`>]*>)?`", lambda m: m[1].split(":")[0] or "x", text
    )
    text = re.sub(r"`[^`]*`", "x", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^>]+>", " ", text)
    text = re.sub(r"^\s*(?:[-*+]|\d+\.)\s+|^#+\s.*$", "\n\n", text, flags=re.M)
    text = re.sub(r"[*_]{1,3}", "", text)
    for block in re.split(r"\n\s*\n", text):
        block = re.sub(
            SHORT, lambda m: m[0].replace(".", "").strip() + " ", " ".join(block.split())
        )
        for sentence in re.split(r"(?<=[.!?])[\"”)]?\s+", block):
            if words := [word for word in sentence.split() if re.search(r"\w", word)]:
                yield words


@every_page
def test_no_sentence_is_long(path):
    long = [" ".join(words) for words in sentences(prose_of(path)) if len(words) > LONGEST]
    assert long == []


def test_the_counter_counts():
    text = (
        "One *two* $x + y$ of {doc}`a <b>`, Fig. 2\n\n$$\nx = 1\n$$ (eq-one)\n\nwhere. Next [l](u)."
    )
    rest = "\n| a | b |\n\n```python\nx = 1\n```\n- item"
    assert [len(words) for words in sentences(text + rest)] == [8, 2, 1]
    stop = "We have\n\n$$x = 1.$$\n\nNext `code` here. {glue:text}`name:.1f` % of it"
    assert [len(words) for words in sentences(stop)] == [2, 3, 3]


def titles():
    """What a reference without a text of its own is shown as, by page."""
    found = {}
    for path in PAGES:
        found[path.stem] = re.search(r"^# (.+)$", prose_of(path), flags=re.M)[1]
    return found


@every_page
def test_no_title_of_a_page_is_a_noun(path):
    """A reference says the number of a chapter, or has words that fit its sentence."""
    text, known = without_code(prose_of(path)), titles()
    text = re.sub(r"^\s*\|.*$", "", text, flags=re.M)  # in a table a title names a page
    assert re.findall(r"\{doc\}`[^`<]+`", text) == []
    for shown, page in re.findall(r"\{doc\}`([^`<]+)<([^`>]+)>`", text):
        title = known[Path(page).name]
        assert shown.strip().lower() != title.lower(), f"{page} by its title"


def visible(path):
    """Code cells that show their source without a click; not those of parameters."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        folded = any(tag.startswith(("hide-", "remove-")) for tag in tags)
        if cell.cell_type == "code" and not folded and "parameters" not in tags:
            yield cell


def tree(cell):
    lines = cell.source.splitlines()
    return ast.parse("\n".join("" if line[:1] in ("%", "!") else line for line in lines))


PLUMBING = re.compile(
    r"^(?:glued?|plots\.\w+|plt\.\w+|(?:ax|axes|fig|left|right)\b.*\.\w+|Markdown|HTML|display|print"
    r"|(?:lines|rows)\.(?:append|extend))$"
)


def is_plumbing(node):
    """An import, a call that glues, draws or prints, or what only names or formats a table."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return bool(PLUMBING.match(ast.unparse(node.value.func)))
    if isinstance(node, ast.Assign):
        name = ast.unparse(node.targets[0])
        return name in ("head", "rows", "lines", "line", "evidence", "fig, ax", "fig, axes")
    return False


def lines_of(cell):
    """Number of its lines of code, and of those among them that are plumbing and imports."""
    code = {n for n, line in enumerate(cell.source.splitlines(), 1) if line.split("#")[0].strip()}
    plumbing, imports = set(), set()
    for node in ast.walk(tree(cell)):
        if isinstance(node, ast.stmt) and is_plumbing(node):
            span = set(range(node.lineno, node.end_lineno + 1))
            plumbing |= span
            imports |= span if isinstance(node, (ast.Import, ast.ImportFrom)) else set()
    return len(code), len(plumbing & code), len(imports & code)


@every_chapter
def test_visible_code_is_ideas(path):
    """At least three lines of five; and no visible cell is plumbing alone, but imports."""
    lines = plumbing = 0
    for cell in visible(path):
        of_all, of_plumbing, of_imports = lines_of(cell)
        assert of_plumbing < of_all or of_imports > 0, f"{cell.id} is plumbing"
        lines, plumbing = lines + of_all - of_imports, plumbing + of_plumbing - of_imports
    assert lines - plumbing >= 0.6 * lines, f"{plumbing} of {lines} lines"


def names(node, context):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def bound(node):
    """Names that a cell gives to those after it, and arguments of its functions."""
    found = names(node, ast.Store) | {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    for n in ast.walk(node):
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)):
            found.add(n.name)
        if isinstance(n, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in n.names}
    return found


@every_chapter
def test_a_visible_cell_can_be_copied_and_run(path):
    """What it uses stands above it on the page, and its imports show without a click."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    known, imported, used = set(dir(builtins)), set(), set()
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type != "code" or {"remove-input", "remove-cell"} & tags:
            continue
        known |= bound(tree(cell))
        if all(isinstance(node, ast.Assert) for node in tree(cell).body):
            continue  # of the chapter's claims, about what it measured
        if not any(tag.startswith("hide-") for tag in tags):
            assert names(tree(cell), ast.Load) - known == set(), cell.id
            used |= names(tree(cell), ast.Load)
        else:
            nodes = [n for n in ast.walk(tree(cell)) if isinstance(n, (ast.Import, ast.ImportFrom))]
            imported |= set().union(*map(bound, nodes))
    assert imported & used == set(), "these imports are folded"


MAIN = "system_model interior_point convexity exact_optimum imitation beyond_imitation"
MAIN += " user_scheduling schedule_bounds weights when_noma_pays"


@pytest.mark.parametrize("name", MAIN.split())
def test_a_main_chapter_has_exercises_with_solutions(name):
    text = prose_of(ROOT / f"book/{name}.ipynb")
    exercises = re.findall(r"\{admonition\} Exercise \d", text)
    solutions = re.findall(r"\{admonition\} Solution \d\n:class: \w+ dropdown", text)
    assert len(exercises) == len(solutions) >= 2
