"""Numbers in the text as books print them: 7 × 10⁻⁸, −3 and 5 %; Python says 7e-08, -3 and 5%.

The notebooks glue numbers, and their tables hold them, as Python formats them. Code stays code. A
line ends neither between a number and what it belongs to, nor before a comma.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

POWER = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([+-])0*(\d+)(?!\w)")
PERCENT = re.compile(r"(?<=\d)%(?!\w)")
UNITS = r"(?:%|µs|ms|W|dBm?|bps/Hz|kB|MB|MHz|km)(?!\w)"
# a glued number is a node of its own, and its unit begins the next
UNIT = re.compile(rf"(?:(?<=\d)|^) (?={UNITS})")
NAME = re.compile(r"(\b(?:ch|Figs?)\.|\b(?:Tables?|Theorem|Algorithm|Section)) (?=[\dIVX])")
STOP = re.compile(rf"(?=[\u00a0.,;:)?!’”])(?:\u00a0{UNITS})?[.,;:)?!’”]*")
MINUS = re.compile(r"(?:(?<=[\s(])|^)-(?=\d)")
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CODE = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.doctest_block)
CODE += (nodes.raw, addnodes.desc_signature)


def power_of_ten(match):
    mantissa, sign, exponent = match.groups()
    if float(mantissa) == 0.0:
        return "0"
    power = "10" + (sign.strip("+") + exponent).translate(SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}\u202f×\u202f{power}"


def printed(text):
    text = MINUS.sub("−", POWER.sub(power_of_ten, text))
    text = NAME.sub("\\1\u00a0", UNIT.sub("\u00a0", PERCENT.sub("\u00a0%", text)))
    text = re.sub(r" = (?=\d|$)", "\u00a0=\u00a0", text)
    return text.replace(" ± ", "\u00a0±\u00a0").replace("× ", "×\u00a0")


def keep_stops(document):
    """Puts a formula and the unit or stop behind it on one line, or the number that it equals."""
    for formula in list(document.findall(nodes.math)):
        beside = formula.parent.children
        # by identity: of equal texts, `index` finds the first
        at = next(i for i, node in enumerate(beside) if node is formula)
        after, number = [*beside[at + 1 : at + 3], None, None][:2]
        if not isinstance(after, nodes.Text):
            continue
        if number and not after.strip() and formula.astext().endswith("="):
            kept, rest = [nodes.Text("\u00a0"), number.deepcopy()], []
        elif stop := STOP.match(after):
            kept, rest = [nodes.Text(stop[0])], [nodes.Text(after[stop.end() :])]
        else:
            continue
        line = nodes.inline("", "", formula.deepcopy(), *kept, classes=["one-line"])
        formula.parent[at : at + 1 + len(kept)] = [line, *rest]


class Numerals(SphinxPostTransform):
    default_priority = 900  # after the glued numbers have come in

    def run(self, **kwargs):
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            while parent is not None and not isinstance(parent, CODE):
                parent = parent.parent
            if parent is None and printed(text) != text:
                text.parent.replace(text, nodes.Text(printed(text)))
        keep_stops(self.document)


def setup(app):
    app.add_post_transform(Numerals)
    return {"parallel_read_safe": True}
