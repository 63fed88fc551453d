"""A reader in a real browser: run a notebook from the menu, move its lab by mouse and keyboard, see it change.

Screenshots are kept in results/browser. Skipped, with the reason, where there is no Chromium.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "results" / "browser"
NOTEBOOKS = [path for n in ("00", "01", "05", "08") for path in sorted((ROOT / "notebooks").glob(f"{n}_*.ipynb"))]
ERROR = re.compile(r"^\w*Error\b.*: ", re.M)  # the last line of a traceback, long or minimal
PATIENCE = 30 * 60_000  # ms: a stalling machine fails no test

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on a copy of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        shutil.copy(path, folder)
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(
        json.dumps({"windowingMode": "none"})
    )  # all cells in the page
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    env = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=5)
                break
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_reader_runs_a_notebook_and_plays_with_its_lab(lab, browser, path):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{lab}/lab/workspaces/{path.stem}/tree/{path.name}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=PATIENCE)
    run_all(page)
    play(page, path.stem)
    failed = page.locator(".jp-CodeCell .jp-OutputArea-output[data-mime-type$='jupyter.stderr']", has_text=ERROR)
    assert failed.count() == 1, failed.all_inner_texts()  # the cell that is broken on purpose
    page.close()


def run_all(page):
    """Run → Run All Cells; wait until no cell is waiting."""
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for(timeout=PATIENCE)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    waiting = page.locator(".jp-CodeCell .jp-InputPrompt", has_text="[*]")
    waiting.first.wait_for(timeout=PATIENCE)  # the saved notebook shows numbers: they turn into stars first
    page.wait_for_function(
        "() => ![...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(p => p.textContent.includes('*'))",
        timeout=PATIENCE,
    )


def play(page, name):
    """Move every control of the first lab, by keyboard and by mouse: text or picture must change, no error may show."""
    lab = page.locator(".jp-OutputArea-output .widget-vbox").filter(has=page.locator("img")).first
    lab.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"{name}-before.png")
    seen = [look(lab)]
    for slider in lab.locator(".widget-slider").all():
        handle = slider.locator(".noUi-handle")
        handle.focus()
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        for key in ("Home", "ArrowRight") if at_end else ("End", "ArrowLeft"):
            page.keyboard.press(key)
            seen.append(changed(page, lab, seen[-1]))
        box, track = handle.bounding_box(), slider.locator(".noUi-target").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(track["x"] + 2, box["y"] + box["height"] / 2, steps=5)
        page.mouse.up()
        seen.append(changed(page, lab, seen[-1]))
    for menu in lab.locator("select").all():
        menu.select_option(index=menu.locator("option").count() - 1)
        seen.append(changed(page, lab, seen[-1]))
    lab.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"{name}-after.png")
    assert len(seen) > 1 and "#b00" not in lab.inner_html()


def look(lab):
    return lab.locator(".widget-html").last.inner_text(), lab.locator("img").first.get_attribute("src")


def changed(page, lab, before):
    """What the lab shows once it differs from before."""
    for _ in range(1200):
        if (now := look(lab)) != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError(f"nothing changed from {before[0]!r}")
