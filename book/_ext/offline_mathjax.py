"""Equations without a network: MathJax comes with the site."""

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


def setup(app):
    app.config.mathjax_path = f"mathjax/{BUNDLE}"
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True}
