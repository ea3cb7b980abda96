"""Takes the README's figure out of a chapter that ran.

python .ci/readme_figure.py _runs/quick/book/when_noma_pays.ipynb fig-pays-map
"""

import re
import sys
from pathlib import Path

import nbformat

chapter, name = sys.argv[1:]
(cell,) = (
    cell
    for cell in nbformat.read(chapter, as_version=4).cells
    if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name
)
(figure,) = (
    output.data["image/svg+xml"]
    for output in cell.outputs
    if "image/svg+xml" in output.get("data", {})
)
figure = re.sub(r"\s*<dc:date>.*?</dc:date>", "", figure)  # the same figure is the same file
# The book's figures are transparent; a README is shown on white and on black.
white = figure.replace("<svg ", '<svg style="background: white" ', 1)
Path("book/_static/readme.svg").write_text(white, encoding="utf-8")
