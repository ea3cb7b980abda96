"""The site works without a network and without a server; MathJax comes with it."""

import re
import shutil
from importlib.metadata import files
from pathlib import Path

# tex-svg.js leaves \boldsymbol and \cancel as raw TeX, without a warning.
BUNDLE = "tex-svg-full.js"


def copy_mathjax(app, exception):
    # Not by a source folder _static: Jupyter Book adds every script there to every page.
    if exception is None and app.builder.format == "html":
        (bundle,) = (file for file in files("sphinx-mathjax-offline") if file.name == BUNDLE)
        target = Path(app.outdir, "_static", "mathjax")
        target.mkdir(exist_ok=True)
        shutil.copy(bundle.locate(), target)


# The theme asks for its icon fonts ahead of need, in a mode that browsers refuse for a file; and
# Jupyter Book includes Thebe, twice, which would take a kernel and a script from the network.
UNWANTED = re.compile(
    r'<link rel="preload"[^>]*as="font"[^>]*>\n?'
    r"|<script>[^<]*THEBE_JS_URL[^<]*</script>\n?"
    r'|<script[^>]*src="[^"]*sphinx-thebe[^"]*"[^>]*></script>\n?'
)

SCROLLS = '<div class="pst-scrollable-table-container">'
REACHED = 'tabindex="0" role="group" aria-label="table, which may scroll sideways"'


def mend_pages(app, exception):
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = UNWANTED.sub("", page.read_text(encoding="utf-8"))
            # docutils puts entries into a list that are no items of a list to a screen reader
            text = text.replace('role="doc-biblioentry"', 'role="listitem"')
            # what scrolls must be reached by the keyboard
            text = text.replace(SCROLLS, f"{SCROLLS[:-1]} {REACHED}>")
            page.write_text(text, encoding="utf-8")


def setup(app):
    app.config.mathjax_path = f"mathjax/{BUNDLE}"
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True}
