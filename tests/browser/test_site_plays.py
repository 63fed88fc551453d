"""A reader opens the site from disk in a real browser: labs move by keyboard, search finds, axe finds nothing serious.

Of the labs three are rendered ahead here, with sliders and menus, to save minutes; all are what `make site` renders, and each
notebook's selftest draws. Skipped, with the reason, where there is no Chromium.
"""

import re
from pathlib import Path

import pytest
from test_site import check_lab

from website.__main__ import NOTEBOOKS, ROOT, build

SHOTS = ROOT / "results" / "browser"
PAGES = ["index", "notebooks/00_start_here", "docs/results", "reference/spp_lite.adapter", "workshop/README",
         "spp_lite/adapter/kernels.py"]  # fmt: skip

PLAYED = "0[028]_*"  # notebooks, as a file pattern

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"), ROOT / "dist" / "site-labs", PLAYED).parent


@pytest.fixture(scope="module")
def page(site, browser):  # the site first: it runs kernels in a loop, and so does Playwright
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(600_000)  # a stalling machine fails no test
    tab.errors = []
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("requestfailed", lambda request: tab.errors.append(f"{request.failure} {request.url}"))
    yield tab
    # a picture whose page is loaded again, or that the next key replaces, before it has come is no fault
    assert not [each for each in tab.errors if not each.startswith("net::ERR_ABORTED ")]


def look(lab):
    return lab.locator("img").get_attribute("src"), lab.locator(".read-out").inner_text()


@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path.match(PLAYED)], ids=lambda path: path.stem)
def test_every_control_of_a_lab_moves_picture_or_read_out(site, page, notebook):
    address = site / "notebooks" / f"{notebook.stem}.html"
    check_lab(address, notebook)
    page.goto(address.as_uri())
    assert page.locator(".lab").count() == str(notebook.read_text()).count('"lab"\n')
    for lab in page.locator(".lab").all():
        for control in lab.locator("input, select").all():
            page.reload()  # each control moves from the lab's start
            seen = {look(lab)}
            control.focus()
            for key in ("Home", "ArrowDown", "End"):  # a slider takes all three arrows, a menu the vertical ones
                page.keyboard.press(
                    "ArrowRight" if key == "ArrowDown" and "range" in control.evaluate("e => e.type") else key
                )
                seen.add(look(lab))
            assert len(seen) >= 2, control.evaluate("e => e.labels[0].textContent")
            assert lab.locator("img").evaluate("e => e.decode().then(() => e.naturalWidth)") > 0
            assert lab.locator("img").get_attribute("alt") == look(lab)[1]
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator(".lab").first.screenshot(path=SHOTS / f"site-{notebook.stem}.png")


@pytest.mark.parametrize("name", [*PAGES, *(f"notebooks/{path.stem}" for path in NOTEBOOKS[1:])])
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(site, page, name):
    from axe_playwright_python.sync_playwright import Axe

    page.goto((site / f"{name}.html").as_uri())
    found = Axe().run(page, options={"preload": False}).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in serious]
    for width in (390, 1280):  # a phone, and back
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_search_finds_from_the_keyboard(site, page):
    page.goto((site / "notebooks" / "00_start_here.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("row_blocks")
    first = page.locator("#results a").first
    first.wait_for()
    assert re.search(r"\d+ sections", page.locator("#results p").first.inner_text())
    first.click()
    assert "row_blocks" in page.locator("main").inner_text()
    assert Path(page.url).name.split("#")[0].endswith(".html") and page.url.startswith(site.as_uri())
