"""Omniboard in a browser that nobody sees: `python tests/support/browse_omniboard.py URL RUN_ID PICTURE METRIC ...`."""

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 120_000
CURVES = "document.querySelector('.js-plotly-plot').data.filter(t => t.showlegend !== false)"
"""The rest are the same curves, unsmoothed and pale."""


def browse(url: str, run_id: int, picture: Path, metrics: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Opens a run, plots some of its metrics and takes a picture.

    Returns the page's text and what is drawn: name, x and y of each curve.
    """
    with sync_playwright() as playwright:
        # Root may not use Chromium's sandbox, and containers' shared memory is too small for it.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        _open(page, run_id)
        _choose(page, metrics)
        page.wait_for_function(f"names => {CURVES}.map(t => t.name).sort().join() == names.join()", arg=sorted(metrics))
        page.screenshot(path=picture)
        drawn = page.evaluate(f"{CURVES}.map(t => ({{name: t.name, x: [...t.x], y: [...t.y]}}))")
        text = page.inner_text("body")
        browser.close()
    return text, drawn


def _open(page: Page, run_id: int) -> None:
    rows = page.locator("[role=row]").filter(has_text="►")
    rows.first.wait_for()
    for row in rows.all():
        cells = [cell.inner_text().strip() for cell in row.locator("[role=gridcell]").all()]
        if str(run_id) in cells[:3]:
            row.get_by_text("►").click()  # its number would offer to delete it
            break
    else:
        raise AssertionError(f"run {run_id} is not in the list")
    page.locator(".js-plotly-plot").wait_for()


def _choose(page: Page, metrics: list[str]) -> None:
    menu = page.locator(".multiselect-native-select").filter(has=page.locator(f"option[value={metrics[0]}]"))
    menu.locator("button.multiselect").click()
    menu.locator(".multiselect-all input").uncheck()
    for name in metrics:
        menu.locator(f"input[value={name}]").check()
    page.keyboard.press("Escape")
    page.get_by_text("Metrics to plot").click()


if __name__ == "__main__":
    browse(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
