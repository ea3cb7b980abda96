"""The built book in a real browser: `make site-test`, after `make book`."""

import functools
import http.server
import json
import os
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import axe_playwright_python
import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from nomalib import breakeven, fairness, learning, matching, polytope, rates, water_filling
from nomalib.joint_bound import upper_bound
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
A4 = {"width": 718, "height": 1047}  # at 96 dpi, within Chromium's margins
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()

# index.html at the top only leads on to the first page
PAGES = sorted(
    str(path.relative_to(SITE))
    for path in SITE.rglob("*.html")
    if path != SITE / "index.html" and "_static" not in path.parts
)
CHAPTERS_YML = Path(__file__).parents[1] / "book/chapters.yml"
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

    def __init__(self, browser, address, viewport=DESK, **about):
        self.requests, self.complaints = [], []
        self.context = browser.new_context(viewport=viewport, **about)
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
OVERHANG = """() => [...document.querySelectorAll("article p mjx-container:not([display])")]
    .filter(e => !e.closest("table") && e.getBoundingClientRect().right
        > e.closest("p").getBoundingClientRect().right + 1).map(e => e.textContent)"""
# tables of which a column lies beyond the paper's edge
OFF_PAPER = """() => [...document.querySelectorAll("article table")]
    .filter(e => [...e.querySelectorAll("td, th")]
        .some(cell => cell.getBoundingClientRect().right > innerWidth)).map(e => e.innerText)"""
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
            page.set_viewport_size(A4)
            page.emulate_media(media="print")
            found["off_paper"] = page.evaluate(OFF_PAPER)
            page.emulate_media(media="screen")
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


def test_the_first_page_has_the_picture_to_play_with(browser):
    with Visit(browser, f"{SITE.as_uri()}/book/index.html") as visit:
        reading = visit.page.locator("#planes .reading")
        before = reading.inner_text()
        visit.page.get_by_role("button", name="ε eats the gain").click()
        assert before and reading.inner_text() not in ("", before)


@each(PAGES)
def test_every_page_says_what_build_it_is_of(page):
    line = soup(page).select_one(".bd-header-announcement")
    assert "Profile" in line.get_text()
    target = (SITE / page).parent / line.a["href"]
    assert target.resolve() == SITE / "book/this_build.html" or page == "book/this_build.html"


@pytest.mark.parametrize("name", yaml.safe_load(CHAPTERS_YML.read_text(encoding="utf-8")))
def test_a_chapter_begins_with_what_it_needs_and_is_for(name):
    (head,) = soup(f"book/{name}.html").select("article div.head")
    assert all(word in head.get_text() for word in ("Before: ", "Time to read: ", "Afterwards "))


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


@each(PAGES)
def test_paper_has_all_columns_of_a_table(survey, page):
    assert survey(page)["off_paper"] == []


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


# The two pictures of the playground. They leave their numbers in window.planes and window.swaps.


@pytest.fixture
def playground(browser):
    with Visit(browser, f"{SITE.as_uri()}/book/playground.html") as visit:
        yield visit.page
        assert visit.complaints == []


def set_control(page, name, value):
    control = page.locator(f"#planes form [name={name}]").first
    control.evaluate(
        "(c, v) => { c.value = v; c.dispatchEvent(new Event('input', {bubbles: true})) }",
        str(value),
    )


def seen_planes(page):
    """The state of the planes, its scenario, and its users' gains and SNRs."""
    seen = page.evaluate("JSON.parse(JSON.stringify(window.planes))")  # infinite numbers are None
    net = Network(
        *(1, 2, 2, 1),
        sic_residual=seen["epsilon"],
        min_rate=seen["minRate"],
        interference_gain="receiver",
    )
    gains = np.sqrt(np.array([seen["snr"]]) * net.noise / net.budget)
    return seen, net, gains


def levels_of(seen, rate):
    """What the objective makes of rates (…, 2)."""
    weights = {"sum": [1, 1], "weighted": [1 - seen["weight"], seen["weight"]]}
    if seen["goal"] in weights:
        return rate @ weights[seen["goal"]]
    return fairness.mean_rate(rate, {"proportional": 1.0, "maxmin": np.inf}[seen["goal"]])


def best_split(seen, net, gains):
    """The best level of the longest side of the triangle, and the share of user 1; or None."""
    shares = polytope.reduce(net, [gains] * 2, PAIR)
    corners = polytope.allocation(net, shares, np.eye(2)[:, None]).power
    if np.isnan(corners).any():
        return None
    low, high = 0.0, 1.0
    for _ in range(3):
        u = np.linspace(low, high, 20_001)
        power = u[:, None, None] * corners[0] + (1 - u[:, None, None]) * corners[1]
        same = np.broadcast_to(gains, power.shape)
        level = levels_of(seen, rates.rates(net, same, PAIR, power)[:, 0])
        at = level.argmax()
        low, high = u[max(at - 1, 0)], u[min(at + 1, 20_000)]
    return level.max(), power[at, 0, 0] / net.budget


def best_time_shared(seen, net, gains):
    """The level of the best OMA: by `fairness`, and where nothing is owed by `breakeven`, too."""
    alpha = {"proportional": 1.0, "maxmin": np.inf}.get(seen["goal"], 0.0)
    weights = [1 - seen["weight"], seen["weight"]] if seen["goal"] == "weighted" else None
    alone = replace(net, max_users_per_subchannel=1, min_rate=0.0)
    frame = fairness.optimum(alone, gains, alpha, seen["minRate"], tol=1e-6, weights=weights)
    return levels_of(seen, frame.rates) if frame.feasible else None


PAIR = np.array([[True, True]])
SETTINGS = [  # of the controls, after the scene of this number
    (0, {}),
    (1, {}),
    (2, {}),
    (3, {}),
    (4, {}),
    (1, {"goal": "maxmin", "epsilon": -3}),
    (1, {"goal": "sum"}),
    (1, {"goal": "weighted", "weight": 0.7, "snr1": 30, "rate": 0.5}),
    (0, {"snr1": 8, "snr2": 20, "rate": 1.5}),
    (2, {"snr1": 16, "epsilon": 0}),
]


@pytest.mark.parametrize("scene, controls", SETTINGS)
def test_the_planes_show_what_nomalib_computes(playground, scene, controls):
    playground.locator("#planes .scenes button").nth(scene).click()
    for name, value in controls.items():
        set_control(playground, name, value)
    seen, net, gains = seen_planes(playground)
    reading = playground.locator("#planes .reading").inner_text()
    schemes = {"you": {"powers": seen["point"], "rates": seen["rates"]}, **seen["schemes"]}
    for name, scheme in schemes.items():
        power = net.budget * np.array([scheme["powers"]])
        exact = rates.rates(net, gains, PAIR, power)[0]
        np.testing.assert_allclose(scheme["rates"], exact, rtol=1e-6, err_msg=name)
    model = json.loads(playground.locator("#planes-network").text_content())
    assert seen["schemes"]["network"]["powers"] == pytest.approx(network_split(model, net, gains))

    expected = best_split(seen, net, gains)
    assert (seen["noma"] is None) == (expected is None)
    if expected:
        assert seen["noma"]["level"] == pytest.approx(expected[0], rel=1e-6)
        assert seen["noma"]["t"] == pytest.approx(expected[1], abs=1e-4)
        if seen["goal"] == "sum":  # the exact optimum's powers, too
            power = water_filling.allocate(net, gains, PAIR).power[0] / net.budget
            np.testing.assert_allclose(seen["schemes"]["optimum"]["powers"], power, atol=1e-6)
    target = best_time_shared(seen, net, gains)
    assert (seen["oma"] is None) == (target is None)
    if target:
        assert seen["oma"]["level"] == pytest.approx(target, rel=2e-6)
    alpha = {"proportional": 1.0, "maxmin": np.inf}.get(seen["goal"])
    if alpha and seen["minRate"] == 0:
        weak, strong = sorted(seen["snr"])
        found = breakeven.time_shared(strong, weak, alpha)
        assert seen["oma"]["level"] == pytest.approx(found.level, rel=1e-9)
        assert seen["breakeven"] == pytest.approx(breakeven.fixed(strong, weak, alpha), rel=1e-6)
        level = breakeven.fixed_level(strong, weak, seen["epsilon"], alpha)
        assert seen["gain"] == pytest.approx(level / found.level - 1, abs=1e-6)
    elif target and seen["breakeven"]:
        there = best_split(seen, replace(net, sic_residual=seen["breakeven"]), gains)
        assert there[0] == pytest.approx(seen["oma"]["level"], rel=1e-6)

    # the sentence says just this
    if expected and target and abs(seen["gain"]) > 1e-5:
        said = re.match(r"At ε = ([\d.]+) NOMA gives ([\d.]+) % (more|less)", reading)
        assert float(said[1]) == pytest.approx(seen["epsilon"], rel=0.05)
        signed = float(said[2]) / 100 * (1 if said[3] == "more" else -1)
        assert signed == pytest.approx(seen["gain"], rel=0.05)
    if edge := re.search(r"break-even at ε = ([\d.]+\d)", reading):
        assert float(edge[1]) == pytest.approx(seen["breakeven"], rel=0.05)
    if needed := re.search(r"would take ([\d.]+) times the power", reading):
        scaled = replace(net, power_dbm=net.power_dbm + 10 * np.log10(float(needed[1])))
        bigger, smaller = (replace(scaled, power_dbm=scaled.power_dbm + db) for db in (0.1, -0.1))
        assert water_filling.allocate(bigger, gains, PAIR).feasible
        assert not water_filling.allocate(smaller, gains, PAIR).feasible
    below = [name for name in schemes if min(schemes[name]["rates"]) < seen["minRate"] * (1 - 1e-5)]
    listed = reading.partition("Below")[2]
    assert all((label in listed) == (name in below) for name, label in LABELS.items())


LABELS = {"you": "you", "network": "network", "equal": "equal power", "optimum": "optimum"}


def network_split(brought, net, gains):
    """The shares of `learning.allocate` with the weights that the page brings."""
    widths = [len(bias) for _, bias in brought["layers"][:-1]]
    model = learning.imitation_network(net, hidden=widths)
    model.set_weights([np.array(part) for layer in brought["layers"] for part in layer])
    return (
        learning.allocate(model, replace(net, min_rate=0.0), gains, PAIR).power[0] / net.budget
    ).tolist()


def test_the_five_scenes_show_what_their_names_say(playground):
    def after(scene):
        playground.locator("#planes .scenes button").nth(scene).click()
        pressed = playground.locator("#planes .scenes button[aria-pressed=true]")
        assert pressed.count() == 1 and playground.locator("#planes .told").inner_text()
        return seen_planes(playground)[0]

    assert playground.locator("#planes .scenes button").count() == 5
    assert after(0)["gain"] > 0.1
    assert after(1)["gain"] < -0.01
    crossing = after(2)["snr"]
    assert crossing[0] < crossing[1]
    assert after(3)["noma"] is None
    broken = after(4)
    assert min(broken["schemes"]["network"]["rates"]) < 0.91 * broken["minRate"]
    assert min(broken["schemes"]["optimum"]["rates"]) >= broken["minRate"] * (1 - 1e-9)


def centre(page, name):
    box = page.locator(f"#planes .{name} .handle circle").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def check_linked(page):
    """Both handles stand where nomalib's rates of the point are; returns the point."""
    seen, net, gains = seen_planes(page)
    exact = rates.rates(net, gains, PAIR, net.budget * np.array([seen["point"]]))[0]
    np.testing.assert_allclose(seen["rates"], exact, rtol=1e-6, atol=1e-12)
    assert min(seen["point"]) >= 0 and sum(seen["point"]) <= 1 + 1e-12
    return seen["point"]


def test_a_point_is_dragged_in_either_plane(playground):
    playground.locator("#planes").scroll_into_view_if_needed()
    for name, by, other in (("powers", (60, 90), "rates"), ("rates", (30, 40), "powers")):
        (x, y), before = centre(playground, name), centre(playground, other)
        playground.mouse.move(x, y)
        playground.mouse.down()
        playground.mouse.move(x + by[0] / 2, y + by[1] / 2)
        playground.mouse.move(x + by[0], y + by[1])
        playground.mouse.up()
        assert centre(playground, name) == pytest.approx((x + by[0], y + by[1]), abs=1)
        assert centre(playground, other) != pytest.approx(before, abs=3)
        check_linked(playground)
    for name in ("powers", "rates"):  # beyond the budget, the point stays at its edge
        x, y = centre(playground, name)
        playground.mouse.move(x, y)
        playground.mouse.down()
        playground.mouse.move(x + 150, y - 150)
        playground.mouse.up()
        assert sum(check_linked(playground)) == pytest.approx(1, abs=1e-9)


def test_the_planes_work_by_keyboard(playground):
    start = playground.locator("#planes .scenes button").first
    start.focus()
    playground.keyboard.press("Enter")
    before = np.array(check_linked(playground))
    playground.keyboard.press("Tab")
    for _ in range(4):
        playground.keyboard.press("Tab")
    handle = playground.locator("#planes .powers .handle")
    assert handle.evaluate("e => e === document.activeElement")
    playground.keyboard.press("ArrowRight")
    playground.keyboard.press("Shift+ArrowDown")
    assert check_linked(playground) == pytest.approx((before + (0.01, -0.1)).tolist())
    assert handle.get_attribute("aria-valuetext") == "user 1 7 %, user 2 70 % of the power"
    playground.keyboard.press("Home")
    seen = seen_planes(playground)[0]
    assert seen["point"] == seen["schemes"]["optimum"]["powers"]
    playground.keyboard.press("Tab")
    playground.keyboard.press("ArrowUp")
    assert 10 * np.log10(seen_planes(playground)[0]["snr"][0]) == pytest.approx(24.7)


def test_on_a_phone_both_planes_are_in_view_and_follow_a_finger(browser):
    with Visit(browser, f"{SITE.as_uri()}/book/playground.html", PHONE, has_touch=True) as visit:
        page = visit.page
        page.locator("#planes .scenes").evaluate(
            "e => scrollBy({top: e.getBoundingClientRect().top - 70, behavior: 'instant'})"
        )
        for name in ("powers", "rates"):
            box = page.locator(f"#planes svg.{name}").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
            assert box["y"] >= 0 and box["y"] + box["height"] <= PHONE["height"]
        x, y = centre(page, "powers")
        page.touchscreen.tap(x + 20, y + 60)
        assert centre(page, "powers") == pytest.approx((x + 20, y + 60), abs=1)
        check_linked(page)
        finger = visit.context.new_cdp_session(page)
        x, y = centre(page, "rates")
        for kind, dx in (("touchStart", 0), ("touchMove", 10), ("touchMove", 20)):
            at = [{"x": x - dx, "y": y + dx}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        assert centre(page, "rates") == pytest.approx((x - 20, y + 20), abs=1)
        check_linked(page)
        assert visit.complaints == []


def seen_swaps(page):
    """The state of the game, its scenario, its gains and its schedule."""
    seen = page.evaluate("window.swaps")
    known = dict(noise=seen["noise"], sic_residual=seen["epsilon"], min_rate=seen["minRate"])
    net = Network(6, 6, 2, 4, **known, interference_gain="receiver")
    schedule = np.zeros((6, 6), dtype=bool)
    for i, users in enumerate(seen["seats"]):
        schedule[i, [j for j in users if j >= 0]] = True
    return seen, net, np.array(seen["gains"]), schedule


def check_swaps(page):
    """The state is worth what `water_filling` finds; returns it."""
    seen, net, gains, schedule = seen_swaps(page)
    found = water_filling.allocate(net, gains, schedule)
    assert found.feasible == (seen["worth"] > 0)
    if found.feasible:
        np.testing.assert_allclose(seen["power"], found.power / net.budget, atol=1e-6)
        np.testing.assert_allclose(
            seen["rates"], rates.rates(net, gains, schedule, found.power), atol=1e-6
        )
        assert seen["worth"] == pytest.approx(found.sum_rate, rel=1e-6)
    return seen["worth"], schedule


@pytest.mark.parametrize("draw", range(3))
def test_the_swap_game_is_that_of_nomalib(playground, draw):
    step = playground.locator("#swaps [name=step]")
    for _ in range(draw):
        playground.locator("#swaps [name=draw]").click()
    ends = {}
    for rule in ("all", "sum"):
        playground.locator("#swaps select").select_option(rule)
        playground.locator("#swaps [name=start]").click()
        _, start = check_swaps(playground)
        for _ in range(60):
            step.click()
            worth, schedule = check_swaps(playground)
            if seen_swaps(playground)[0]["stable"]:
                break
        seen, net, gains, _ = seen_swaps(playground)
        assert seen["stable"]
        ends[rule] = worth, schedule
        assert f"ends at {worth:.2f} bps/Hz" in playground.locator("#swaps .told").inner_text() or (
            f"alone at {worth:.2f} bps/Hz" in playground.locator("#swaps .told").inner_text()
        )
        if rule == "all":
            found = matching.swap_matching(net, gains, start, None, "optimum", moves=True)
            np.testing.assert_array_equal(schedule, found.assignment)
            trace = np.where(np.array(seen["trace"]) < 0, np.nan, seen["trace"])
            np.testing.assert_allclose(trace, found.trace, rtol=1e-6)
    (all_served, served), (alone, single) = ends["all"], ends["sum"]
    assert served.any(axis=0).all()
    assert single.sum(axis=1).max() == 1, "the sum rate alone shares no subchannel"
    assert all_served <= alone * (1 + 1e-9) <= upper_bound(net, gains) * (1 + 1e-8)


def test_the_swap_game_works_by_keyboard(playground):
    at_start, schedule = check_swaps(playground)
    i, j = np.argwhere(schedule)[0]
    cell = playground.locator("#swaps .cells button").nth(6 * i + j)
    assert f"user {j + 1}" in cell.get_attribute("aria-label")
    cell.focus()
    playground.keyboard.press("Enter")
    worth, after = check_swaps(playground)
    assert schedule[i, j] and not after[i, j] and (after != schedule).sum() == 1
    said = playground.locator("#swaps .told").inner_text()
    assert said.startswith(f"You: user {j + 1} leaves subchannel {i + 1}")
    if at_start > 0:
        assert f"{abs(worth - at_start):.2f} bps/Hz" in said
    (last,) = np.flatnonzero(after[:, j])
    playground.locator("#swaps .cells button").nth(6 * last + j).press("Enter")
    assert check_swaps(playground)[1][last, j], "nobody loses the last subchannel"
    playground.locator("#swaps [name=play]").press("Enter")
    playground.wait_for_function("n => window.swaps.trace.length > n", arg=2)
    playground.locator("#swaps [name=play]").press("Enter")
    check_swaps(playground)
