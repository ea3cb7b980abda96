"""The logo and the favicon: three signals of different power on one subchannel, at one place."""

from pathlib import Path

COLOURS = ("#0072B2", "#E69F00", "#009E73")
HEIGHTS = (8, 16, 28)
TEXT = {"light": "#1f2328", "dark": "#f0f0f0"}


def blocks():
    parts, top = [], 58
    for colour, height in zip(COLOURS, HEIGHTS, strict=True):
        top -= height
        parts.append(
            f'<rect x="8" y="{top}" width="48" height="{height - 2}" rx="3" fill="{colour}"/>'
        )
    return "".join(parts)


def svg(width, inside):
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 64" '
        f'width="{width}" height="64">{inside}</svg>'
    )


def draw(app, config):
    folder = Path(app.outdir).parent / "logo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "favicon.svg").write_text(svg(64, blocks()))
    for theme, colour in TEXT.items():
        name = (
            '<text x="70" y="43" font-family="sans-serif" font-size="31" font-weight="600" '
            f'fill="{colour}">nomalib</text>'
        )
        (folder / f"logo-{theme}.svg").write_text(svg(230, blocks() + name))
    config.html_static_path.append(str(folder))
    config.html_favicon = str(folder / "favicon.svg")
    config.html_theme_options["logo"] = {
        "image_light": "_static/logo-light.svg",
        "image_dark": "_static/logo-dark.svg",
        "alt_text": "nomalib, to the first page",
    }


def setup(app):
    app.connect("config-inited", draw, priority=400)
    return {"parallel_read_safe": True}
