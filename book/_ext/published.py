"""Where the book can be had and how it is cited, all from the top of _config.yml.

With the address of the repository, pages have buttons to it, and chapters to Binder and Colab.
Without one there is nothing to link to, and the theme would warn.
"""

from importlib.metadata import version

CITATION = """```bibtex
@software{{nomalib,
  author  = {{{{{author}}}}},
  title   = {{{{nomalib}}: {title}}},
  version = {{{version}}},
  year    = {{{year}}},{address}
}}
```"""


def address(config):
    return config.html_theme_options.get("repository_url", "")


def buttons(app, config):
    options = config.html_theme_options
    published = bool(address(config))
    options["use_repository_button"] = options["use_issues_button"] = published
    if not published:
        options["launch_buttons"] = {}


def cite(app, docname, source):
    config = app.config
    about = {"author": config.author, "title": config.html_title, "year": config.copyright}
    where = f"\n  url     = {{{address(config)}}}," if address(config) else ""
    entry = CITATION.format(version=version("nomalib"), address=where, **about)
    source[0] = source[0].replace("<!-- citation -->", entry)


def setup(app):
    app.connect("config-inited", buttons)
    app.connect("source-read", cite)
    return {"parallel_read_safe": True}
