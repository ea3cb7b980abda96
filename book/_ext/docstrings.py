"""Lets Sphinx read nomalib's docstrings, which are written to be read in the source.

Their formulas are plain text: a bar is a magnitude and no reStructuredText substitution, and an
indented block after an empty line is a displayed equation, to be kept as it stands.
"""

import re

# code and *emphasised words*, which are as reStructuredText has them
KEPT = re.compile(r"(`[^`]*`|(?<!\w)\*[A-Za-z][\w ().]*\*)")


def _indent(line):
    return len(line) - len(line.lstrip())


def as_rest(app, what, name, obj, options, lines):
    out, literal_at, previous, example = [], None, "", False
    for at, line in enumerate(lines):
        # an example goes on, with what it prints, to the next empty line
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if line.strip():
            opens = at > 0 and not lines[at - 1].strip() and _indent(line) > _indent(previous)
            if literal_at is not None and _indent(line) <= literal_at:
                literal_at = None
            if literal_at is None and opens:
                literal_at = _indent(previous)
                out += [" " * literal_at + "::", ""]
            if literal_at is None and not example:
                code = KEPT.split(line)
                code[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in code[::2]]
                # nor is a number of the paper's one of a list
                code[0] = re.sub(r"^(\s*)\((\w+)\)", r"\1\\(\2)", code[0])
                # "N." alone would count as an item of a numbered list
                line = re.sub(r"(: [A-Z])\.$", r"\1", "".join(code))
            previous = line
        out.append(line)
    lines[:] = out


def skip(app, what, name, obj, skipped, options):
    # The fields of a NamedTuple: its docstring lists them, their own say "Alias for field number".
    # And what Keras asks of a layer to be saved, with Keras's own words.
    return True if type(obj).__name__ == "_tuplegetter" or name == "get_config" else None


def setup(app):
    app.connect("autodoc-skip-member", skip)
    # before napoleon, which listens at the default priority
    app.connect("autodoc-process-docstring", as_rest, priority=400)
    return {"parallel_read_safe": True}
