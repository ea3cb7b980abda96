"""The built book in a real browser: `make site-test`, after `make book`."""

import functools
import http.server
import json
import os
import re
import shutil
import threading
from pathlib import Path

import axe_playwright_python
import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from nomalib import baselines, learning, rates, water_filling
from nomalib.network import Network

if "SITE" not in os.environ:
    pytest.skip(
        "SITE IS NOT TESTED: run `make site-test` after `make book`", allow_module_level=True
    )

SITE = Path(os.environ["SITE"]).resolve()
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()
PHONE, DESK = {"width": 375, "height": 800}, {"width": 1300, "height": 900}
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()

# index.html at the top only leads on to the first page
PAGES = sorted(
    str(path.relative_to(SITE))
    for path in SITE.rglob("*.html")
    if path != SITE / "index.html" and "_static" not in path.parts
)
# those that a person wrote, and not Sphinx
CHAPTERS = [page for page in PAGES if page.startswith("book/")]


def each(pages):
    """A test for every page; one process has all tests of a page, and visits it once."""
    grouped = [pytest.param(page, marks=pytest.mark.xdist_group(page)) for page in pages]
    return pytest.mark.parametrize("page", grouped)


@functools.cache
def soup(page):
    return BeautifulSoup((SITE / page).read_text(), "html.parser")


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        no_browser = pytest.fail if "CI" in os.environ else pytest.skip
        no_browser(f"THE SITE IS NOT TESTED: it takes one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture(params=["file", "server"])
def root(request):
    return SITE.as_uri() if request.param == "file" else request.getfixturevalue("server")


class Visit:
    """A page that is open, with what it asked for and what it complained about."""

    def __init__(self, browser, address):
        self.requests, self.complaints = [], []
        self.context = browser.new_context(viewport=DESK)
        self.page = self.context.new_page()
        self.page.add_init_script("localStorage.mode = localStorage.theme = 'light'")
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda message: message.type == "error" and self.complaints.append(message.text),
        )
        self.page.goto(address)
        self.page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise }")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.context.close()


CUT = """() => [...document.querySelectorAll("mjx-container[display=true]")]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"""
# formulas within a line, which do not scroll
OVERHANG = """() => [...document.querySelectorAll("article p > mjx-container:not([display])")]
    .filter(e => !e.closest("table") && e.getBoundingClientRect().right
        > e.parentElement.getBoundingClientRect().right + 1).map(e => e.textContent)"""
# TeX that is no formula on the page; code may hold it
RAW = r"""() => [...document.querySelectorAll("article :is(p, td, th, figcaption)")]
    .map(e => e.innerText)
    .filter(text => /\$[^$\n]*[\\_^][^$\n]*\$|\\(mathrm|min|frac|sum)\b/.test(text))"""
THEME = "theme => { document.documentElement.dataset.theme = theme }"
# Most elements of a page are glyphs of formulas and words of code. axe, which looks at them all,
# gets the formulas without glyphs, and one word of code of each kind.
LIGHTEN = """() => {
    document.querySelectorAll("mjx-container svg").forEach(e => e.replaceChildren());
    const kinds = new Set();
    document.querySelectorAll("pre span[class]").forEach(e => {
        if (kinds.has(e.className)) e.replaceWith(e.textContent);
        kinds.add(e.className);
    });
}"""
RUN_AXE = "async rules => (await axe.run({resultTypes: ['violations'], ...rules})).violations"
# what the theme changes; colours are also what takes long to check
OF_COLOUR = {"runOnly": ["color-contrast", "link-in-text-block"]}


@pytest.fixture(scope="session")
def survey(browser):
    """What one visit of a page by file:// shows, asked once for all tests."""

    @functools.cache
    def look(name):
        with Visit(browser, f"{SITE.as_uri()}/{name}") as visit:
            page = visit.page
            found = {
                "typeset": page.locator("mjx-container").count(),
                "mistyped": page.locator("mjx-merror, [data-mjx-error]").count(),
                "cut": page.evaluate(CUT),
                "raw": page.evaluate(RAW),
                "text": page.locator("body").inner_text(),
                "requests": list(visit.requests),
                "complaints": list(visit.complaints),
            }
            page.set_viewport_size(PHONE)
            found["width"] = page.evaluate("document.documentElement.scrollWidth")
            found["overhang"] = page.evaluate(OVERHANG)
            page.set_viewport_size(DESK)
            page.evaluate(LIGHTEN)
            page.add_style_tag(content="* { transition: none !important }")  # no colour half way
            page.evaluate(AXE)
            for theme in ("light", "dark"):
                page.evaluate(THEME, theme)
                found[theme] = [
                    (violation["id"], node["html"][:200])
                    for violation in page.evaluate(RUN_AXE, OF_COLOUR if theme == "dark" else {})
                    if violation["impact"] in ("serious", "critical")
                    for node in violation["nodes"]
                ]
        return found

    return look


def test_there_is_a_site():
    assert len(CHAPTERS) > 5


def test_the_site_is_small():
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < 25e6


def test_the_first_page_is_readable_within_a_second(browser):
    took = []
    for _ in range(3):  # of the processor's time, which nothing else on the machine stretches
        page = browser.new_page(viewport=DESK)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(f"{SITE.as_uri()}/book/index.html", wait_until="domcontentloaded")
        metrics = session.send("Performance.getMetrics")["metrics"]
        took += [metric["value"] for metric in metrics if metric["name"] == "ThreadTime"]
        assert page.locator("article h1").is_visible()
        page.close()
    assert 0 < min(took) < 1, f"{took} s"


@each(PAGES)
def test_every_page_says_what_build_it_is_of(page):
    line = soup(page).select_one(".bd-header-announcement")
    assert "Profile" in line.get_text()
    target = (SITE / page).parent / line.a["href"]
    assert target.resolve() == SITE / "book/this_build.html" or page == "book/this_build.html"


@each(PAGES)
def test_links_lead_somewhere(page):
    for element, attribute in (("a", "href"), ("img", "src"), ("link", "href"), ("script", "src")):
        for tag in soup(page).find_all(element, **{attribute: True}):
            link = tag[attribute]
            if re.match(r"[a-z]+:", link):
                assert element == "a" or link.startswith("data:"), f"{tag} leaves the site"
                continue
            path, _, anchor = link.partition("#")
            path = path.partition("?")[0]
            target = (SITE / page).parent / path if path else SITE / page
            assert target.is_file(), f"{link} leads nowhere"
            if anchor and target.suffix == ".html":
                there = soup(os.path.relpath(target, SITE))
                assert there.find(id=anchor) or there.find(attrs={"name": anchor}), link


def leaving(requests, root):
    return [url for url in requests if not url.startswith((root, "data:", "blob:"))]


@each(PAGES)
def test_nothing_leaves_and_nothing_fails(survey, page):
    found = survey(page)
    assert leaving(found["requests"], SITE.as_uri()) == []
    assert found["complaints"] == []


@each(CHAPTERS)
def test_nothing_leaves_and_nothing_fails_from_a_server(browser, server, page):
    with Visit(browser, f"{server}/{page}") as visit:
        assert leaving(visit.requests, server) == []
        assert visit.complaints == []


@each(CHAPTERS)
def test_mathematics_is_typeset(survey, page):
    found = survey(page)
    assert found["typeset"] >= len(soup(page).select(".math"))
    assert found["mistyped"] == 0
    assert found["cut"] == []
    assert found["raw"] == []
    assert not re.search(r"\$\$|\\\(|\\\[|\\(eqref|frac|begin|sum)\b", found["text"])


@each(CHAPTERS)
def test_no_leftovers_of_a_run(page):
    seen = soup(page).select_one("article").get_text()
    for leftover in (
        r"Traceback \(most recent",
        r"<[\w.]+ (object )?at 0x",
        r"<matplotlib",
        r"\bText\(\d",
        r"<function ",
        r"np\.float64\(",
    ):
        assert not re.search(leftover, seen), leftover
    code = ["pre", "code", "dt", "script"]
    prose = [
        text for text in soup(page).article.find_all(string=True) if not text.find_parent(code)
    ]
    assert [text for text in prose if re.search(r"\de[+-]\d", text)] == []


@each(CHAPTERS)
def test_images_say_what_they_show(page):
    for image in soup(page).select("article img"):
        assert len(image.get("alt", "")) > 20 and not image["alt"].startswith(("_images", "../"))


@each(CHAPTERS)
def test_notebooks_can_be_downloaded(page):
    name = Path(page).stem
    sources = list((SITE / "_sources/book").glob(f"{name}.*"))
    assert len(sources) == 1
    links = [tag["href"] for tag in soup(page).select(".btn-download-source-button")]
    assert any(link.endswith(sources[0].name) for link in links)


@each(CHAPTERS)
def test_binder_and_colab_need_the_address_of_the_repository(page):
    address = yaml.safe_load(Path("_config.yml").read_text())["repository"]["url"]
    is_notebook = (SITE / "_sources" / page).with_suffix(".ipynb").exists()
    launch = soup(page).select(".dropdown-launch-buttons a")
    assert len(launch) == (2 if address and is_notebook else 0)


@pytest.mark.parametrize("theme", ["light", "dark"])
@each(PAGES)
def test_axe_finds_nothing_serious(survey, page, theme):
    assert survey(page)[theme] == []


@each(PAGES)
def test_no_sideways_scrolling_on_a_phone(survey, page):
    assert survey(page)["width"] <= PHONE["width"]
    assert survey(page)["overhang"] == []


def test_search_finds_water_filling(browser, root):
    with Visit(browser, f"{root}/search.html?q=water-filling") as visit:
        visit.page.wait_for_selector("#search-results li a")
        assert visit.page.locator("#search-results li").count() > 1
        assert visit.complaints == []


def test_the_theme_switches(browser):
    with Visit(browser, f"{SITE.as_uri()}/book/index.html") as visit:
        colours = set()
        for _ in range(3):
            visit.page.locator("button.theme-switch-button:visible").first.click()
            colours.add(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2


def test_paper_is_light(browser):
    with Visit(browser, f"{SITE.as_uri()}/book/index.html") as visit:
        visit.page.evaluate(THEME, "dark")
        visit.page.evaluate(
            "addEventListener('beforeprint', () =>"
            " { window.printed = document.documentElement.dataset.theme })"
        )
        visit.page.pdf()
        assert visit.page.evaluate("window.printed") == "light"
        assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_keyboard_reaches_the_text(browser):
    with Visit(browser, f"{SITE.as_uri()}/book/index.html") as visit:
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.textContent.trim()") == (
            "Skip to main content"
        )


SCENES = [
    {},
    {"noise": -2.0, "epsilon": 0.3, "min_rate": 0.8},
    {"g11": 0.35, "g12": 1.4, "g23": 2.0, "g24": 0.8, "min_rate": 0.5},
    {"convention": "receiver", "epsilon": 0.5},
    {"g11": 0.05, "noise": 0.5, "min_rate": 3.0},
]


@pytest.mark.parametrize("scene", SCENES)
def test_the_playground_computes_what_nomalib_computes(browser, scene):
    with Visit(browser, f"{SITE.as_uri()}/book/playground.html") as visit:
        for name, value in scene.items():
            control = visit.page.locator(f"#play-{name}")
            if name == "convention":
                control.select_option(value)
            else:
                control.evaluate(
                    "(c, v) => { c.value = v; c.dispatchEvent(new Event('input')) }", str(value)
                )
        seen = visit.page.evaluate("window.playground")
        status = visit.page.locator("#play-status").inner_text()
        weights = json.loads(visit.page.locator("#play-network").text_content())
    net = Network(
        2,
        4,
        noise=seen["noise"],
        sic_residual=seen["epsilon"],
        min_rate=seen["min_rate"],
        interference_gain=seen["convention"],
    )
    gains = np.array(seen["gains"])
    pairs = np.array([[True, True, False, False], [False, False, True, True]])
    optimum = water_filling.allocate(net, gains, pairs)
    assert seen["feasible"] == bool(optimum.feasible)
    assert ("cannot be met" in status) == (not optimum.feasible)
    checked = {"equal": (baselines.equal_power(net, pairs), 1e-7)}
    if optimum.feasible:
        model = learning.imitation_network(net)
        model.set_weights([np.array(part) for layer in weights for part in layer])
        checked["optimum"] = (optimum.power, 1e-7)
        checked["network"] = (learning.allocate(model, net, gains, pairs).power, 1e-3)  # float32
    else:
        assert seen["optimum"] is None
    for scheme, (power, tolerance) in checked.items():
        np.testing.assert_allclose(seen[scheme]["power"], power, atol=tolerance)
        np.testing.assert_allclose(
            seen[scheme]["rates"], rates.rates(net, gains, pairs, power), atol=tolerance
        )
        assert seen[scheme]["violation"] == rates.qos_violation(net, gains, pairs, power)
