"""Buttons to the repository, and to Binder and Colab, where _config.yml says its address.

Without one there is nothing to link to, and the theme would warn.
"""


def buttons(app, config):
    options = config.html_theme_options
    published = bool(options.get("repository_url"))
    options["use_repository_button"] = options["use_issues_button"] = published
    if not published:
        options["launch_buttons"] = {}


def setup(app):
    app.connect("config-inited", buttons)
    return {"parallel_read_safe": True}
