"""A chapter's head: what it builds on, how long it takes to read, what one can do afterwards.

The first two are in book/chapters.yml. The values that a run was given stand in a cell of their
own, which papermill puts below the chapter's: both are folded. Folded cells in a row are one bar.
"""

import json
import math
import re
from pathlib import Path

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

PARAMETERS = {"parameters", "injected-parameters"}  # tags of a chapter's values, and of a run's
WORDS_A_MINUTE = 130  # of a text with formulas and figures


def minutes(document):
    """To read a page, in fives."""
    words = sum(len(text.astext().split()) for text in document.findall(nodes.paragraph))
    return 5 * max(1, math.ceil(words / WORDS_A_MINUTE / 5))


def link(page, docname):
    about = {"refdomain": "std", "reftype": "doc", "reftarget": f"/book/{page}"}
    about |= {"refdoc": docname, "refexplicit": False, "refwarn": True}
    found = addnodes.pending_xref("", nodes.inline(), **about)
    return found


class Head(SphinxTransform):
    default_priority = 700

    def apply(self, **kwargs):
        at = Path(self.env.docname)
        known = yaml.safe_load(
            Path(self.env.srcdir, "book/chapters.yml").read_text(encoding="utf-8")
        )
        if at.name not in known:
            return
        head = known[at.name]
        builds_on = [link(page, self.env.docname) for page in head.get("after", [])]
        builds_on += [nodes.Text(head["needs"])] if "needs" in head else []
        before = nodes.paragraph("", "", nodes.strong("", "Before: "))
        for part in builds_on:
            before += [part, nodes.Text("; ")]
        before.pop()
        time = nodes.paragraph("", "", nodes.strong("", "Time to read: "))
        time += nodes.Text(f"{minutes(self.document)} minutes")
        goal = nodes.paragraph("", "", nodes.strong("", "Afterwards you can "))
        goal += nodes.Text(f"{head['goal']}.")
        title = next(self.document.findall(nodes.title))
        question = next(n for n in title.parent.children if isinstance(n, nodes.paragraph))
        box = nodes.container("", before, time, goal, classes=["head"])
        question.parent.insert(question.parent.index(question) + 1, box)


def shows(cell):
    """Whether a page has an output of the cell; what is only glued is in none."""
    data = [out.get("data", {"text": ""}) for out in cell.get("outputs", [])]
    return any(not kind.startswith("application/papermill") for kinds in data for kind in kinds)


def join(cells):
    """Moves folded code without an output of its own to the folded cell below it."""
    kept, above, given = [], None, False
    for cell in cells:
        tags = {*cell["metadata"].get("tags", [])}
        if tags - PARAMETERS == {"hide-input"}:
            if above and given == bool(tags & PARAMETERS):
                kept.remove(above)
                cell["source"] = "\n\n\n".join("".join(c["source"]) for c in (above, cell))
                cell["outputs"] = above["outputs"] + cell["outputs"]
            above, given = None if shows(cell) else cell, bool(tags & PARAMETERS)
        elif not tags & {"remove-input", "remove-cell"} or shows(cell):
            above = None
        kept.append(cell)
    return kept


def fold(app, docname, source):
    if re.match(r'\{\s*"cells"', source[0]):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            tags = cell["metadata"].get("tags", [])
            if PARAMETERS & {*tags}:
                tags.append("hide-input")
        notebook["cells"] = join(notebook["cells"])
        source[0] = json.dumps(notebook)


def setup(app):
    app.add_transform(Head)
    app.connect("source-read", fold)
    return {"parallel_read_safe": True}
