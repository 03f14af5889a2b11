"""The report in a real browser: headless Chromium through selenium. Screenshots go to $LATENTPRESS_SCREENSHOTS, or to a temporary folder."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentpress.eval.report.writing import Outputs, write_report
from tests.eval.report_bench import CODECS, all_rows, failed, quantiser, write_bench

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install 'latentpress[dev]'")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver: apt-get install chromium chromium-driver")
OURS = "walloc-rgb, effort 2"
READY = "return document.documentElement.dataset.ready"


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run", "window-size=1400,1000"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_bench(tmp_path_factory.mktemp("bench"), [*all_rows(), failed("kodim09")])
    return write_report(folder, Outputs(page=folder / "report.html"), pictures=2, bpp=1, provider=quantiser)[0]


class Page:
    """The open report. js: run a script; find, click, choose: by CSS selector."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        self.js("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        self.find(selector).click()

    def choose(self, selector: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find(selector)).select_by_value(value)

    def drawn(self, plot: str = "plot-rd") -> list[str]:
        return sorted(self.js("return document.getElementById(arguments[0]).data.map((t) => t.name)", plot))

    def texts(self, selector: str) -> list[str]:
        return self.js("return [...document.querySelectorAll(arguments[0])].map((n) => n.textContent)", selector)

    def clip(self) -> str:
        return self.js("return document.getElementById('image-left').style.clipPath")

    def colours(self, dark: bool) -> None:
        value = "dark" if dark else "light"
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": value}]})

    def width(self, width: int, height: int = 1000) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture
def page(driver: Any, file: Path) -> Iterator[Page]:
    from selenium.webdriver.support.ui import WebDriverWait

    for log in ("browser", "performance"):
        driver.get_log(log)  # of the test before
    opened = Page(driver)
    opened.width(1400)
    opened.colours(dark=False)
    driver.get(file.as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.execute_script(READY))
    yield opened
    severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []  # whatever a test did, the console stays clean


def actions(page: Page) -> Any:
    from selenium.webdriver import ActionChains

    return ActionChains(page.driver, duration=20)


def test_the_page_loads_without_an_error_and_without_asking_for_anything(page, file):
    assert page.js("return document.title") == "Rate and distortion, kodak"
    assert page.drawn() == sorted(CODECS)
    events = [json.loads(e["message"])["message"] for e in page.driver.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert file.as_uri() in urls
    assert [u[:80] for u in urls if u != file.as_uri() and not u.startswith("data:")] == []
    assert file.stat().st_size < 25_000_000


def test_the_network_is_closed_to_whatever_runs_in_the_page(page):
    script = "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('open'), (e) => done('closed'))"
    page.js("window.violations = []; document.addEventListener('securitypolicyviolation', (e) => window.violations.push(e.effectiveDirective))")
    assert page.driver.execute_async_script(script) == "closed"
    assert page.js("return window.violations") == ["connect-src"]  # by the page's own policy, not for want of a server
    page.driver.get_log("browser")  # that refusal is the one error this file expects


def test_hovering_a_point_tells_codec_setting_rate_and_quality(page):
    spot = page.js("""
        const plot = document.getElementById('plot-rd'); plot.scrollIntoView({block: 'center'});
        const trace = plot.data.find((t) => t.name === 'webp'), box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
        return [box.left + xaxis._offset + xaxis.d2p(trace.x[1]), box.top + yaxis._offset + yaxis.d2p(trace.y[1])];""")
    actions(page).move_by_offset(0, 0).perform()
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": spot[0] + 1, "y": spot[1] + 1})
    page.driver.implicitly_wait(5)
    said = page.find("#plot-rd .hovertext").text
    page.driver.implicitly_wait(0)
    assert "webp" in said and "rate=0.2" in said and "bpp" in said and "PSNR 31.01 dB" in said


def test_dragging_zooms_and_a_double_click_goes_back(page):
    ranges = "const l = document.getElementById('plot-rd')._fullLayout; return [...l.xaxis.range, ...l.yaxis.range]"
    page.js("document.getElementById('plot-rd').scrollIntoView({block: 'center'})")
    before = page.js(ranges)
    area = page.find("#plot-rd .nsewdrag")
    actions(page).move_to_element(area).click_and_hold().move_by_offset(150, 100).release().perform()
    zoomed = page.js(ranges)
    assert zoomed[1] - zoomed[0] < 0.5 * (before[1] - before[0]) and zoomed[3] - zoomed[2] < 0.5 * (before[3] - before[2])
    actions(page).move_to_element(area).double_click().perform()
    assert page.js(ranges) == pytest.approx(before)


def test_a_codec_is_hidden_and_shown_everywhere_by_its_button(page):
    page.click('.chip[data-codec="webp"]')
    rest = sorted(c for c in CODECS if c != "webp")
    assert page.drawn() == page.drawn("plot-encode") == page.drawn("plot-decode") == rest
    assert "webp" not in " ".join(page.texts("#matrix th")) + " ".join(page.texts("#table th"))
    assert page.find('.chip[data-codec="webp"]').get_attribute("aria-pressed") == "false"
    page.click('.chip[data-codec="webp"]')
    assert page.drawn() == sorted(CODECS) and "webp" in page.texts("#matrix thead th")
    for codec in CODECS:  # all of them off: an empty page, no error
        page.click(f'.chip[data-codec="{codec}"]')
    assert page.drawn() == []


def test_the_quality_selector_changes_chart_matrix_and_table(page):
    assert page.texts("#quality option") == ["PSNR", "MS-SSIM", "MS-SSIM in dB", "LPIPS"]
    title = "return document.getElementById('plot-rd').layout.yaxis.title.text"
    seen = {}
    for key in ("psnr", "ms_ssim", "ms_ssim_db", "lpips"):
        page.choose("#quality", key)
        values = page.js(f"return document.getElementById('plot-rd').data.find((t) => t.name === '{OURS}').y")
        seen[key] = (page.js(title), values, page.texts("#table tbody td:last-child"))
    assert [s[0] for s in seen.values()] == ["PSNR, dB", "MS-SSIM", "MS-SSIM, dB", "LPIPS (lower is better)"]
    assert len({str(s[2]) for s in seen.values()}) == 4
    assert seen["psnr"][1] == sorted(seen["psnr"][1]) and seen["lpips"][1] == sorted(seen["lpips"][1], reverse=True)
    assert page.find(f'#matrix td[data-test="{OURS}"][data-anchor="jpeg"]').text == "\u221250.0"


def test_the_rate_axis_is_logarithmic_or_linear(page):
    kind = "return ['plot-rd', 'plot-encode'].map((id) => document.getElementById(id)._fullLayout.xaxis.type)"
    assert page.js(kind) == ["log", "log"]
    page.choose("#axis", "linear")
    assert page.js(kind) == ["linear", "linear"]
    assert page.js("return document.getElementById('plot-encode')._fullLayout.yaxis.type") == "log"


def test_the_matrix_states_the_overlap_of_a_cell_and_the_anchor_comes_first(page):
    assert page.texts("#matrix thead th") == ["against", "webp", "jpeg", OURS]
    page.js("document.querySelector('#matrix td[data-test=\"webp\"][data-anchor=\"jpeg\"]').focus()")
    assert page.find("#bd-detail").text == "webp needs 30.00 % less rate than jpeg at equal PSNR, over 28.00 to 37.03 dB (100 % of what both span)."
    page.choose("#method", "akima")
    assert page.find('#matrix td[data-test="webp"][data-anchor="jpeg"]').text == "\u221230.0"


def test_the_slider_follows_the_mouse(page):
    page.js("document.getElementById('frame').scrollIntoView({block: 'center'})")
    assert page.clip() == "inset(0px 50% 0px 0px)"
    width = page.find("#frame").size["width"]
    actions(page).drag_and_drop_by_offset(page.find("#handle"), width // 4, 0).perform()
    moved = float(page.clip().split()[1].rstrip("%"))
    assert moved == pytest.approx(25, abs=1.5)
    assert page.find("#handle").get_attribute("aria-valuenow") == str(round(100 - moved))
    assert page.js("return parseFloat(getComputedStyle(document.getElementById('handle')).left)") == pytest.approx((100 - moved) / 100 * width, abs=1)


def test_the_slider_obeys_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    handle = page.find("#handle")
    handle.send_keys(Keys.HOME)
    assert page.clip() == "inset(0px 100% 0px 0px)"
    handle.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.PAGE_UP, Keys.ARROW_LEFT)
    assert page.clip() == "inset(0px 89% 0px 0px)"
    handle.send_keys(Keys.END, Keys.ARROW_RIGHT)
    assert page.clip() in ("inset(0px)", "inset(0px 0% 0px 0px)")


def test_the_slider_follows_a_finger_on_its_handle(page):
    page.js("document.getElementById('frame').scrollIntoView({block: 'center'})")
    box = page.js("const b = document.getElementById('handle').getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]")
    width = page.find("#frame").size["width"]
    touch = "Input.dispatchTouchEvent"
    page.driver.execute_cdp_cmd(touch, {"type": "touchStart", "touchPoints": [{"x": box[0], "y": box[1]}]})
    for step in (1, 2, 3):
        page.driver.execute_cdp_cmd(touch, {"type": "touchMove", "touchPoints": [{"x": box[0] - step * width / 12, "y": box[1]}]})
    page.driver.execute_cdp_cmd(touch, {"type": "touchEnd", "touchPoints": []})
    assert float(page.clip().split()[1].rstrip("%")) == pytest.approx(75, abs=1.5)


def test_sides_and_picture_are_chosen_and_captions_state_what_they_are(page):
    assert page.find("#left").get_attribute("value") == OURS
    assert "320 bytes" not in page.find("#caption-left").text and "368 bytes, 0.958 bpp" in page.find("#caption-left").text
    page.choose("#right", "jpeg")
    assert page.find("#caption-right").text.startswith("jpeg\n320 bytes, 0.833 bpp")
    source = "return [document.getElementById('image-left').src, document.getElementById('image-right').src]"
    left, right = page.js(source)
    assert left != right and left.startswith("data:image/webp")
    page.choose("#picture", "1")
    assert page.js(source)[0] != left and page.find("#right").get_attribute("value") == "jpeg"
    assert page.js("return document.getElementById('image-left').naturalWidth") == 64
    assert page.texts("#picture-missing li") == ["no picture of webp: encoder is gone"]
    assert not page.find('#left option[value="webp"]').is_enabled()


def test_pictures_are_magnified_without_smoothing(page):
    page.choose("#zoom", "4")
    assert page.find("#frame").size["width"] == 4 * 64
    assert page.js("return getComputedStyle(document.getElementById('image-left')).imageRendering") == "pixelated"


def test_the_table_interpolates_or_takes_the_nearest_setting_and_sorts(page):
    page.js("const r = document.getElementById('rate'); r.value = '0.3'; r.dispatchEvent(new Event('input'))")
    cells = "#table tbody tr:first-child td"
    assert page.texts(cells)[:2] == ["kodim01", f"{round(0.3 * 48 * 64 / 8)}"]
    ours = float(page.texts(cells)[-1])
    assert 30.01 < ours < 33.02  # between those of the settings 0.2 and 0.4
    page.choose("#mode", "nearest")
    assert "rate=0.2" in page.texts(cells)[-1] and f"{round(0.2 * 1.1 * 48 * 64 / 8)} bytes" in page.texts(cells)[-1]
    for _ in range(2):
        page.click('#table th[data-column="jpeg"] button')
    assert page.find('#table th[data-column="jpeg"]').get_attribute("aria-sort") == "ascending"
    values = [float(t.split("\u00a0")[0][:5]) for t in page.texts("#table tbody td:nth-child(2)")]
    assert values == sorted(values) and page.texts("#table tbody td:first-child") == ["kodim01", "kodim02", "kodim03"]
    page.click('#table th[data-column="jpeg"] button')
    assert page.texts("#table tbody td:first-child") == ["kodim03", "kodim02", "kodim01"]


def test_rows_that_failed_are_listed(page):
    assert page.texts("#errors tbody td") == ["webp", "rate=0.1", "kodim09", "OSError: <encoder> refused"]


def test_dark_paper_comes_with_lighter_lines_at_once(page):
    line = "document.getElementById('plot-rd').data.find((t) => t.name === 'webp').line.color"
    looks = f"return [getComputedStyle(document.body).backgroundColor, {line}]"
    light = page.js(looks)
    page.colours(dark=True)
    page.driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 100))")
    dark = page.js(looks)
    assert light[0] == "rgb(255, 255, 255)" and dark[0] == "rgb(20, 23, 27)" and light[1] != dark[1]


def test_nothing_sticks_out_at_any_width_and_screenshots_are_kept(page, tmp_path):
    from PIL import Image

    folder = Path(os.environ.get("LATENTPRESS_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for width in (1400, 500, 340):
        for dark in (False, True):
            page.width(width)
            page.colours(dark)
            page.driver.execute_async_script("setTimeout(arguments[0], 400)")  # charts follow the window after a moment
            assert page.js("return document.documentElement.scrollWidth") <= width
            height = page.js("return document.documentElement.scrollHeight")
            area = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": area})
            kept = folder / f"report-{width}-{'dark' if dark else 'light'}.png"
            kept.write_bytes(base64.b64decode(shot["data"]))
            with Image.open(kept) as picture:
                assert picture.size == (width, height) and len(picture.convert("RGB").getcolors(1 << 24)) > 500
