"""Preview and report in headless Chromium: no request, no error, no overflow, no script needed, hostile titles inert."""

from __future__ import annotations

import pytest
from sample_shop import HOSTILE, full_report, view_of

from pagellm.reporting.preview import page_html

pytestmark = pytest.mark.browser

QUIET = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
BOXES = "[...document.querySelectorAll('.card, .row, .past, .foot, h2')].map(e => JSON.stringify(e.getBoundingClientRect()))"
OUTSIDE_CARDS = """slots => {
  const body = document.body.cloneNode(true);
  for (const slot of slots) body.querySelector(`[data-slot="${slot}"]`).remove();
  return body.innerHTML;
}"""


@pytest.fixture(scope="module")
def browser(chromium):
    """One headless browser for all tests of this file."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    with api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=chromium, args=QUIET.split())
        yield running
        running.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a document at a size; checks at the end that it asked for nothing and complained of nothing."""
    contexts, requests, complaints = [], [], []

    def open_page(html: str, size: str = "desktop", script: bool = True, **options):
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, java_script_enabled=script, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []
    assert len([url for url in requests if url.startswith("file://")]) == len(contexts)
    assert complaints == []


def spill(page) -> int:
    """How far the document runs out of the window to the side, in pixels."""
    return page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - window.innerWidth")


@pytest.mark.parametrize("size", SIZES)
def test_the_preview_fits_and_shows_all_slots(size, visit):
    page = visit(page_html(view_of(dict(enumerate(HOSTILE.values())), explained=True)), size)
    assert spill(page) <= 0
    assert page.locator(".card").count() == 18
    assert page.get_by_role("heading", name="For your kitchen").is_visible()
    assert page.title() == "Your shop: page preview"


@pytest.mark.parametrize("size", SIZES)
def test_the_report_fits(size, visit):
    page = visit(full_report(HOSTILE["long"]), size)
    assert spill(page) <= 0
    page = visit(full_report(), size)
    assert spill(page) <= 0
    assert page.locator(".sample").count() == 6
    assert page.locator("svg.chart").count() == 10


@pytest.mark.parametrize("size", SIZES)
def test_a_hostile_title_changes_nothing_but_itself(size, visit):
    slots = [f"r0c{c}" for c in range(8)] + [f"r1c{c}" for c in range(5)] + [f"r2c{c}" for c in range(3)]
    assert len(slots) == len(HOSTILE)
    clean = visit(page_html(view_of()), size)
    dirty = visit(page_html(view_of(dict(enumerate(HOSTILE.values())))), size)
    assert dirty.evaluate(OUTSIDE_CARDS, slots) == clean.evaluate(OUTSIDE_CARDS, slots)
    assert dirty.evaluate(BOXES) == clean.evaluate(BOXES)
    assert dirty.title() == "Your shop: page preview"


def test_titles_are_read_as_they_were_written(visit):
    page = visit(page_html(view_of({0: HOSTILE["script"]})))
    assert page.locator('[data-slot="r0c0"] .name').inner_text() == HOSTILE["script"]


@pytest.mark.parametrize("size", SIZES)
def test_why_opens_and_closes_without_script(size, visit):
    page = visit(page_html(view_of(explained=True)), size, script=False)
    why = page.locator('[data-slot="r0c1"] .why')
    panel = why.locator(".why-panel")
    assert not panel.is_visible()
    why.locator("summary").click()
    assert panel.is_visible()
    assert "similar text" in panel.inner_text()
    page.screenshot()
    why.get_by_text("Close").click()
    assert not panel.is_visible()


def test_one_panel_at_a_time_by_keyboard(visit):
    page = visit(page_html(view_of(explained=True)))
    for slot in ("r0c0", "r0c1"):
        page.locator(f'[data-slot="{slot}"] summary').focus()
        page.keyboard.press("Enter")
    assert page.locator(".why[open]").count() == 1
    assert page.locator('[data-slot="r0c1"] .why-panel').is_visible()


def test_a_row_scrolls_inside_itself_on_a_phone(visit):
    page = visit(page_html(view_of()), "phone")
    row = page.locator('[data-row="picks"] .cards')
    assert row.evaluate("e => e.scrollWidth > e.clientWidth")
    row.evaluate("e => { e.scrollLeft = e.scrollWidth }")
    assert page.evaluate("window.scrollX") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme, visit):
    page = visit(page_html(view_of(explained=True)), color_scheme=scheme)
    for selector in (".name", ".brand", ".price", ".why summary", ".notes li", ".foot dd", ".badge.sponsored", ".badge.pinned"):
        assert contrast(page, selector) >= 4.5, selector


def contrast(page, selector: str) -> float:
    """WCAG 2 contrast of the first match's text with the nearest painted ground behind it."""
    colors = page.locator(selector).first.evaluate(
        """e => {
          let ground = e;
          while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
          return [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor];
        }"""
    )
    light, dark = sorted((luminance(color) for color in colors), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    """Relative luminance of an `rgb(r, g, b)` value."""
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_print_shows_every_card_and_no_panel(visit):
    page = visit(page_html(view_of(explained=True)))
    page.emulate_media(media="print")
    assert page.locator('[data-row="picks"] .cards').evaluate("e => e.scrollWidth <= e.clientWidth")
    assert not page.locator(".why summary").first.is_visible()
