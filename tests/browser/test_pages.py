"""The built pages in a real browser, over file://, as a reader without a network opens them."""

import os
import re
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
FOLDERS = ("book", "book/methods", "notebooks", "api", "api/modules")
PAGES = sorted(p.relative_to(HTML).as_posix() for folder in FOLDERS for p in (HTML / folder).glob("*.html"))
KINDS = {
    "book/index.html", "book/trust.html", "book/glossary.html", "book/references.html", "book/ledger.html",
    "book/methods/pdam.html", "notebooks/D_tilt_series.html", "notebooks/B_every_row.html", "api/index.html",
    "api/commands.html", "api/modules/denoising.html",
}  # fmt: skip
"""One page of each kind, with figures to turn, tables, formulas and long lines among them; slow trials take all pages."""


def of_each_kind():
    """All pages; those that are not in ``KINDS`` are slow trials."""
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in PAGES or ["no page"]]


FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    program = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if program is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine: install the system's package")
    assert program, "continuous integration must have Chromium"
    assert PAGES, "the book is not built: run `make book`"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield launched
        launched.close()


DRAWN = """() =>
    document.querySelectorAll(".math mjx-container").length >= document.querySelectorAll(".math").length
    && [...document.querySelectorAll(".plotly-graph-div")].every(figure => figure.querySelector("canvas, image, .point"))
"""
"""Whether every formula and every figure of a page is drawn."""


@pytest.fixture
def open_page(browser):
    """Open a page of the book; collects requests to other places and everything that goes wrong."""
    context = browser.new_context()
    page = context.new_page()
    page.outside, page.errors = [], []
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else page.outside.append(r.url))
    page.on("requestfailed", lambda r: page.errors.append(f"{r.url} failed"))
    page.on("pageerror", lambda e: page.errors.append(str(e)))
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)

    def visit(name, width=1300):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto((HTML / name).as_uri(), wait_until="load")
        page.wait_for_function(DRAWN)  # an error after half a minute
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")  # for what scripts still ask
        return page

    yield visit
    context.close()


def barriers(page, context=None):
    """What axe-core calls serious or critical for people who do not see, hear or point."""
    found = Axe().run(page, context=context).response["violations"]
    return [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]


CUT_OFF = """() => {
    const edge = document.querySelector("article").getBoundingClientRect().right + 2;
    return [...document.querySelectorAll("article :is(table, pre, img, svg, mjx-container[display], .plotly-graph-div)")]
        .filter(e => e.checkVisibility())
        .filter(e => {
            const {left, width} = e.getBoundingClientRect();
            return left + Math.max(e.matches("table, pre") ? e.scrollWidth : 0, width) > edge;
        })
        .map(e => `${e.tagName} ${e.innerText}`.slice(0, 60));
}"""


HIDDEN = """() => [...document.querySelectorAll("article :is(" +
        "pre, .output, .pst-scrollable-table-container, mjx-container[display], .method-figure, .plotly-graph-div)")]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX != "visible")
    .filter(e => !(e.matches(".pst-scrollable-table-container, mjx-container") && e.matches(".cut-right")))
    .map(e => `${e.className} ${e.innerText}`.slice(0, 60))
"""
"""What does not fit its box, but for tables and formulas that scroll and fade at the edge where they go on."""


def whole(page):
    """A page asks no other place for anything, has no error, one heading, and scrolls up and down alone."""
    assert page.outside == [] and page.errors == []
    assert page.locator("article h1").count() == 1
    scrolls = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    assert scrolls <= 0, f"the page is {scrolls} px wider than the screen"


def test_each_kind_has_its_page(browser):
    assert set(PAGES) >= KINDS


@pytest.mark.parametrize("name", PAGES or ["no page"])
def test_a_page_is_whole_on_the_screen_and_on_paper(open_page, name):
    page = open_page(name)
    whole(page)
    page.set_viewport_size({"width": 718, "height": 1047})  # A4 within margins of 1 cm, at 96 dots an inch
    page.emulate_media(media="print")
    assert page.evaluate(CUT_OFF) == [], "on paper nothing scrolls"


@pytest.mark.parametrize("name", of_each_kind())
def test_a_page_is_whole_on_a_phone(open_page, name):
    page = open_page(name, width=390)
    whole(page)
    assert page.evaluate(HIDDEN) == []


@pytest.mark.parametrize("width", [1300, 390], ids=["wide", "phone"])
def test_the_drawing_of_the_method_is_large_enough(open_page, width):
    drawing = open_page("book/index.html", width=width).locator(".method-figure svg >> visible=true")
    heights = drawing.locator("text").evaluate_all("texts => texts.map(text => text.getBoundingClientRect().height)")
    assert min(heights) > 10, f"letters of {min(heights)} px"


@pytest.mark.parametrize("name", of_each_kind())
def test_a_page_keeps_no_one_out(open_page, name):
    assert barriers(open_page(name), {"exclude": [[".highlight"]]}) == []


def test_the_interactive_figure_is_drawn_whole_and_on_the_dark_page_itself(browser):
    """The picture of the figure has more than one colour, no background, and nothing at its edge that a phone might cut."""
    page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="dark")
    page.goto((HTML / "notebooks" / "02_subtomogram.html").as_uri())
    figure = page.locator(".plotly-graph-div").first
    figure.scroll_into_view_if_needed()
    page.wait_for_selector(".plotly-graph-div canvas")
    found = page.evaluate(
        """async () => {
            const div = document.querySelector('.plotly-graph-div');
            const [width, height] = [div.clientWidth, div.clientHeight];
            const picture = new Image();
            picture.src = await Plotly.toImage(div, {format: 'png', width, height});
            await picture.decode();
            const canvas = Object.assign(document.createElement('canvas'), {width, height});
            const context = canvas.getContext('2d');
            context.drawImage(picture, 0, 0);
            const pixels = (...box) => new Uint32Array(context.getImageData(...box).data.buffer);
            const edges = [[0, 0, width, 1], [0, height - 1, width, 1], [0, 0, 1, height], [width - 1, 0, 1, height]];
            return {
                colours: new Set(pixels(0, 0, width, height)).size,
                edge: edges.flatMap(edge => [...pixels(...edge)]).filter(pixel => pixel).length,
                behind: getComputedStyle(div.closest('.output')).backgroundColor,
                letters: getComputedStyle(div.querySelector('.legendtext')).fill,
            };
        }"""
    )
    page.close()
    assert found["colours"] > 100 and found["edge"] == 0
    assert found["behind"] == "rgba(0, 0, 0, 0)" and min(map(int, re.findall(r"\d+", found["letters"])[:3])) > 150


def test_code_is_readable_too(browser):
    """Code has the same colours on every page, and checking their contrast takes seconds, so one page is checked with it."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.goto((HTML / "notebooks" / "05_voxresnet.html").as_uri())
    assert barriers(page) == []
    page.close()


IN_THE_DARK = [("notebooks/05_voxresnet", ()), ("book/index", ())]
IN_THE_DARK += [(name, pytest.mark.slow) for name in ("notebooks/B_every_row", "book/trust")]


@pytest.mark.parametrize("name", [pytest.param(f"{name}.html", marks=marks) for name, marks in IN_THE_DARK])
def test_a_page_is_readable_in_the_dark(browser, name):
    page = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="dark")
    page.goto((HTML / name).as_uri())
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.wait_for_function("document.getAnimations().length === 0")  # colours may still be changing
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 60
    assert barriers(page) == []
    page.close()


def test_a_hint_and_a_solution_unfold(browser):
    page = browser.new_page()
    page.goto((HTML / "notebooks" / "03_noise_generation.html").as_uri())
    for folded in (".admonition.tip.dropdown", ".solution.dropdown"):
        box = page.locator(folded).first
        assert "toggle-hidden" in box.get_attribute("class")
        box.locator("button").first.click()
        assert "toggle-hidden" not in box.get_attribute("class")
    page.close()


def test_the_front_door_leads_to_the_preface(browser):
    page = browser.new_page()
    page.goto((HTML / "index.html").as_uri())
    page.wait_for_url("**/book/index.html")
    assert "Vox-UDA" in page.locator("article h1").inner_text()
    page.close()


def test_the_search_finds_a_chapter(browser):
    page = browser.new_page()
    page.goto((HTML / "search.html").as_uri() + "?q=bilateral")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results").inner_text()
    assert "Bilateral and improved bilateral filter" in found and "voxuda.denoising.bilateral" in found
    page.close()


FOCUSED = """() => {
    const focused = document.activeElement;
    const shown = focused.tagName == "SUMMARY" ? (focused.querySelector("span") || focused) : focused;
    const {left, right, width, height} = shown.getBoundingClientRect(), style = getComputedStyle(shown);
    return {
        name: focused.getAttribute("aria-label") || focused.innerText || focused.className,
        page: focused == document.body,
        inside: width > 0 && height > 0 && left > -1 && right < innerWidth + 1,
        ring: style.outlineStyle != "none" || style.boxShadow != "none",
    };
}"""


@pytest.mark.parametrize("width", [1300, pytest.param(390, marks=pytest.mark.slow)], ids=["wide", "phone"])
def test_the_keyboard_is_enough(browser, width):
    """Tab leads past the menu, then to everything that can be pressed, each time where one can see it."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((HTML / "notebooks" / "03_noise_generation.html").as_uri())
    reached = []
    for _ in range(500):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUSED)
        if at["page"]:
            break
        reached.append(at)
    assert [at["name"] for at in reached if not (at["inside"] and at["ring"])] == []
    names = [at["name"] for at in reached]
    assert names[0] == "Skip to main content" and len(names) < 500
    assert {"Search", "light/dark", "Download this page", "Toggle hidden content"} <= set(names)
    assert names[-1].startswith("Next") or width == 1300, "on a phone the folded contents are not walked through"
    page.goto(page.url)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/*#main-content")  # an error after half a minute
    box = page.locator(".admonition.tip.dropdown").first
    box.locator("button").first.focus()
    page.keyboard.press("Enter")
    assert "toggle-hidden" not in box.get_attribute("class")
    page.close()


def test_the_arrow_keys_move_a_slider(open_page):
    page = open_page("notebooks/01_what_cryo_et_sees.html")
    slider = page.locator(".plotly-graph-div[role=slider]").first
    slider.focus()
    last = int(slider.get_attribute("aria-valuemax"))
    pictures = {}
    ends = {"Home ArrowLeft": [0, 0], "ArrowRight End": [1, last], "ArrowRight ArrowLeft": [last, last - 1]}
    for key, at in ((key, at) for keys, steps in ends.items() for key, at in zip(keys.split(), steps, strict=True)):
        slider.press(key)
        page.wait_for_function("([figure, at]) => figure.ariaValueNow == at", arg=[slider.element_handle(), at])
        active, picture, label = slider.evaluate("f => [f.layout.sliders[0].active, f.data[0].source, f.ariaValueText]")
        assert active == at and pictures.setdefault(at, picture) == picture
        assert slider.locator(".slider-label").first.text_content().endswith(label)
    assert len(set(pictures.values())) == len(pictures) == 4


def test_a_printed_page_is_the_article_alone(browser):
    page = browser.new_page(viewport={"width": 794, "height": 1123})  # A4 at 96 dots an inch
    page.goto((HTML / "notebooks" / "03_noise_generation.html").as_uri())
    page.emulate_media(media="print")
    assert not page.locator(".bd-sidebar-primary").is_visible() and not page.locator(".bd-header-article").is_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 794
    assert page.locator("article img").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


def own_bytes(page):
    """Bytes of a page and of the pictures that it shows, without the scripts and fonts that all pages share."""
    text = page.read_text()
    pictures = {page.parent / source for source in re.findall(r'<img[^>]+src="([^":?]+)"', text)}
    return page.stat().st_size + sum(picture.stat().st_size for picture in pictures)


def test_no_page_is_heavy():
    weights = {name: own_bytes(HTML / name) for name in PAGES}
    assert {name: weight for name, weight in weights.items() if weight > 1e6 and not name.startswith("notebooks/")} == {}
    assert {name: weight for name, weight in weights.items() if weight > 3e6} == {}
