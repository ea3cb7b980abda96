"""What this very build was made by: a banner on every page, and the page book/this_build.md."""

import json
import re
import subprocess
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

from nomalib import records

PAGE = "book/this_build"
TOOLS = ("jupyter-book", "sphinx", "myst-nb", "papermill", "snakemake", "matplotlib")


def table(head, rows):
    marks = ["---:" if name in ("runs", "run time [s]") else "---" for name in head]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, marks, *rows)]
    return "\n".join(lines)


def code(text):
    """Any text as code in a cell of a table: nothing in it is Markdown or HTML."""
    text = " ".join(str(text).split()).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def as_code(parameters):
    listed = [code(f"{name}={value}") for name, value in parameters.items()]
    return ", ".join(listed) or "–"


def commit():
    """The sources' tag or commit; what was changed since then says "dirty"."""
    asked = ["git", "describe", "--tags", "--always", "--dirty"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else "not from a clone"


def sizes(app):
    """Profile, seeds and draws of the run that the book quotes, in one line."""
    folder = Path(app.srcdir).parent  # the workflow builds the site beside the records
    seen = defaultdict(list)
    for path in sorted(folder.glob("records/scenario/*.json")):
        given = records.read(path)["parameters"]
        seen[given["n_users"], given["n_subchannels"]].append(given)
    if not seen:
        return "The chapters as they stand, without the records of experiments"
    # the book quotes the size with the most draws to test on, and of these that with the most seeds
    runs = max(seen.values(), key=lambda runs: (runs[0]["n_test"], len(runs)))
    seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
    drawn = f"{runs[0]['n_train']:,} draws to train on, {runs[0]['n_test']:,} to test on"
    return f"Profile “{folder.name}”: {seeds}, {drawn}"


def banner(app, pagename, templatename, context, doctree):
    link = f'<a href="{context["pathto"](PAGE)}">This build</a>'
    context["theme_announcement"] = f"{app.config.this_build_sizes}. {link}"


def machine():
    made_by = records.environment()
    versions = made_by["versions"] | {tool: version(tool) for tool in TOOLS}
    rows = [["commit", code(commit())]]
    rows += [[f"`{name}`", number] for name, number in versions.items()]
    rows += [[name, code(value)] for name, value in made_by["machine"].items()]
    return table(
        ["part", "version or value"], [*rows, ["source of `nomalib`", code(made_by["source"][:16])]]
    )


def chapters(app):
    rows = []
    for page in app.config.external_site_map:  # in the order of the book
        path = Path(app.srcdir, page).with_suffix(".ipynb")
        if not path.exists():
            continue
        run = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {})
        seconds = f"{run['duration']:.1f}" if "duration" in run else "not timed"
        rows.append([f"[](/book/{path.name})", seconds, as_code(run.get("parameters", {}))])
    return table(["chapter", "run time [s]", "parameters"], rows)


def kind(value):
    """Orders values of one kind by size, and keeps kinds apart."""
    return type(value).__name__, value


def is_table(value):
    """What a run says of the rows of its metrics, too long for a cell of the page."""
    return isinstance(value, list) and any(isinstance(row, dict) for row in value)


def experiments(folder):
    if not folder.is_dir():
        return "This build had no records of experiments to read."
    runs = defaultdict(list)
    for path in records.paths(folder):
        runs[path.parent.name].append(records.read(path))
    rows = []
    for name, made in runs.items():
        values = {
            key: list(
                dict.fromkeys(map(str, sorted((run["parameters"][key] for run in made), key=kind)))
            )
            for key, value in made[0]["parameters"].items()
            if not is_table(value)
        }
        # what is varied first
        listed = {
            k: ", ".join(values[k]) for k in sorted(values, key=lambda k: len(values[k]) == 1)
        }
        seconds = sum(run["provenance"]["wall_time_s"] for run in made)
        rows.append([code(name), len(made), f"{seconds:.0f}", as_code(listed)])
    return table(["experiment", "runs", "run time [s]", "parameters, first what is varied"], rows)


def fill(app, docname, source):
    if docname == PAGE:
        source[0] = (
            source[0]
            .replace("<!-- sizes -->", app.config.this_build_sizes)
            .replace("<!-- machine -->", machine())
            .replace("<!-- chapters -->", chapters(app))
            .replace("<!-- experiments -->", experiments(Path(app.srcdir).parent / "records"))
        )


def setup(app):
    app.add_config_value("this_build_sizes", sizes(app), "html")
    app.connect("source-read", fill)
    app.connect("html-page-context", banner)
    return {"parallel_read_safe": True}
