"""The demo's live page, in a browser: what its buttons lead to, and whom it serves."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.server, pytest.mark.timeout(120)]

SIDES = ("guarded", "bare")

SCREENSHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where a demo serves its page."""
    command = (sys.executable, "-m", "hostline.demo", "--no-scenes", "--serve-for", "1500")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        told = ""
        while (match := re.search(r"http://127\.0\.0\.1:\d+/", told)) is None:
            line = process.stdout.readline()
            assert line, told
            told += line
        yield match[0]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest


class Page:
    """The page in the browser, and what a user does there."""

    def __init__(self, chromium: Any, address: str) -> None:
        self.chromium = chromium
        self.address = address
        self.ask, self.wait_for = chromium.ask, chromium.wait_for
        self.click, self.press = chromium.click, chromium.press
        chromium.driver.get(address)
        self.wait_for("document.querySelectorAll('.lane').length > 0")

    def start_anew(self) -> None:
        """Have nothing left of what other tests have done."""
        self.click("form[action='/settings'] button")
        self.wait_for("document.querySelector('#news').textContent.includes('run with these settings')")
        self.wait_for("!document.querySelector('#rows tr') && !document.querySelector('.is-starting')")

    def ending(self, kind: str, side: str) -> str:
        """How the request of that kind has ended; waits for it."""
        cell = f"document.querySelector('tr[data-kind={kind}] [data-side={side}] .outcome')"
        self.wait_for(f"!['waiting', 'running', undefined].includes({cell}?.dataset.ending)")
        return self.ask(f"{cell}.dataset.ending")

    def said(self, kind: str, side: str) -> str:
        return self.ask(f"document.querySelector('tr[data-kind={kind}] [data-side={side}]').innerText")

    def count(self, side: str, name: str) -> int:
        return int(self.ask(f"document.querySelector('#{side} [data-count={name}]').textContent"))


@pytest.fixture
def opened(chromium: Any, address: str) -> Iterator[Callable[[], Page]]:
    """The page; in the end it has told of no error, broken no rule and asked nobody else."""

    def opened() -> Page:
        return Page(chromium, address)

    yield opened
    assert chromium.console() == []
    addresses = [url for url in chromium.requests() if "://" in url]
    assert addresses
    assert [url for url in addresses if not url.startswith(address)] == []


@pytest.fixture
def page(opened: Callable[[], Page]) -> Page:
    page = opened()
    page.start_anew()
    return page


# A long sleep is what nothing can stop in a thread: its client is left alone on both sides.
ENDINGS = {
    "fast": ("served", "served", "200"),
    "host": ("redirected", "served", "301"),
    "late": ("dropped", "served", "503"),
    "slow": ("served", "served", "200"),
    "stream": ("served", "served", "200"),
    "stuck": ("stopped", "given-up", "504"),
    "sleep": ("given-up", "given-up", "after"),
}


def test_each_button_leads_to_its_ending(page):
    for kind in ENDINGS:
        page.click(f"button[value={kind}]")
    for kind, (guarded, bare, told) in ENDINGS.items():
        assert (kind, page.ending(kind, "guarded"), page.ending(kind, "bare")) == (kind, guarded, bare)
        assert told in page.said(kind, "guarded")
        page.wait_for(f"document.querySelector('#guarded .trip[data-ending={guarded}]')")
        page.wait_for(f"document.querySelector('#bare .trip[data-ending={bare}]')")
    assert "still taken" in page.said("stuck", "bare")
    page.wait_for("document.querySelector('#guarded .deadline') && document.querySelector('#bare .nobody')")
    page.wait_for("document.querySelector('#guarded [data-count=busy]').textContent === '0'")
    page.wait_for("document.querySelector('#bare [data-count=busy]').textContent === '1'")
    counted = {side: [page.count(side, name) for name in ("served", "refused")] for side in SIDES}
    assert counted == {"guarded": [4, 3], "bare": [5, 2]}
    # Only hostline's log says what the sleeping one was doing.
    page.wait_for("document.querySelector('tr[data-kind=sleep] [data-side=guarded] a.stack')")
    assert page.ask("document.querySelector('[data-side=bare] a.stack')") is None


def test_the_stack_is_shown_on_click_in_table_and_timeline(page):
    page.click("button[value=loop]")
    assert page.ending("loop", "guarded") == "stopped"
    page.wait_for("document.querySelector('a.stack')")
    for open_it in (
        "document.querySelector('a.stack').click()",
        "document.querySelector('#guarded .trip').dispatchEvent(new MouseEvent('click', {bubbles: true}))",
    ):
        page.ask(open_it)
        page.wait_for("document.querySelector('dialog').open")
        shown = page.ask("document.querySelector('dialog').innerText")
        assert "in add_up_prices" in shown
        assert "Stopped 504" in shown
        page.click("dialog button")
        page.wait_for("!document.querySelector('dialog').open")


def test_without_scripts_it_says_the_same(page, chromium):
    page.click("button[value=stuck]")
    assert page.ending("stuck", "guarded") == "stopped"
    page.wait_for("document.querySelector('a.stack')")
    chromium.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.driver.get(page.address)
        page.click("button[value=fast]")
        chromium.find("tr[data-kind=fast]")
        assert chromium.driver.current_url == page.address
        page.click("a.stack")
        assert "in ask_the_stock_service" in chromium.find("main > article").text
    finally:
        chromium.command("Emulation.setScriptExecutionDisabled", value=False)


def test_settings_are_applied(page):
    for name, value in (("service_timeout", 1), ("threads", 3)):
        slider = f"document.querySelector('#{name}')"
        page.ask(f"({slider}.value = {value}, {slider}.dispatchEvent(new Event('input')))")
    assert page.ask("document.querySelector('output[for=service_timeout]').textContent") == "1 s"
    page.start_anew()
    page.wait_for("document.querySelectorAll('#bare .lane').length === 3")
    page.click("button[value=stuck]")
    assert page.ending("stuck", "guarded") == "stopped"
    page.wait_for("document.querySelector('#guarded .deadline')")
    seconds = page.ask(
        "((deadline, run, chart) => (deadline.getBBox().x - run.getBBox().x) / chart.clientWidth * 18.6)"
        "(...['.deadline', '.run', '.chart'].map(each => document.querySelector(`#guarded ${each}`)))"
    )
    assert seconds == pytest.approx(1, abs=0.1)
    page.chromium.driver.get(page.address)
    assert page.ask("document.querySelector('#threads').value") == "3"
    for name, value in (("service_timeout", 2), ("threads", 4)):
        page.ask(f"document.querySelector('#{name}').value = {value}")
    page.start_anew()


def test_everything_can_be_done_by_keyboard(page):
    def focused() -> dict[str, Any]:
        return page.ask(
            "(e => ({name: (e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim(),"
            " value: e.value ?? e.getAttribute('href'), outline: getComputedStyle(e).outlineStyle,"
            " left: e.getBoundingClientRect().left}))(document.activeElement)"
        )

    def tab_to(value: str) -> None:
        for _ in range(40):
            page.press("TAB")
            here = focused()
            if here["value"] is None:  # the document itself, behind the last element
                continue
            assert here["name"], here
            assert here["outline"] != "none", here
            assert here["left"] >= 0
            if here["value"] == value:
                return
        raise AssertionError(f"{value} cannot be reached")

    tab_to("#main")
    tab_to("stuck")
    page.press("ENTER")
    assert page.ending("stuck", "guarded") == "stopped"
    page.wait_for("document.querySelector('#news').textContent.includes('stopped, 504 with hostline')")
    tab_to("2")  # the slider of the service timeout
    page.press("ARROW_RIGHT")
    assert page.ask("document.querySelector('output').textContent") == "2.5 s"
    page.press("ARROW_LEFT")
    tab_to(page.ask("document.querySelector('a.stack').getAttribute('href')"))
    page.press("ENTER")
    page.wait_for("document.querySelector('dialog').open")
    page.press("ESCAPE")
    page.wait_for("!document.querySelector('dialog').open && document.activeElement.matches('a.stack')")


# Every text on the page against what is painted behind it.
_CONTRASTS = (Path(__file__).parent / "contrast.js").read_text()


def _contrasts(page: Page) -> list[dict[str, Any]]:
    found = page.chromium.driver.execute_script(_CONTRASTS)
    assert len(found) > 40
    return found


def _themed(page: Page, theme: str) -> None:
    page.chromium.prefer(prefers_color_scheme=theme)
    page.wait_for(f"matchMedia('(prefers-color-scheme: {theme})').matches")


def test_every_text_has_enough_contrast_in_both_themes(page):
    kinds = ("host", "late", "stuck", "sleep")
    for kind in kinds:
        page.click(f"button[value={kind}]")
    for kind in kinds:
        page.ending(kind, "guarded")
        page.ending(kind, "bare")
    page.click("details summary")
    page.wait_for("document.querySelector('.outcome[data-ending=stopped] ~ a.stack')")
    for theme in ("light", "dark"):
        _themed(page, theme)
        assert [each for each in _contrasts(page) if each["ratio"] < each["needed"]] == []
        page.click("a.stack")
        page.wait_for("document.querySelector('dialog').open")
        assert [each for each in _contrasts(page) if each["ratio"] < each["needed"]] == []
        page.click("dialog button")


def test_the_theme_is_the_system_s_until_one_is_chosen(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    _themed(page, "light")
    light = page.ask(ground)
    _themed(page, "dark")
    dark = page.ask(ground)
    assert dark != light
    page.click("#theme")
    assert page.ask(ground) == light
    page.chromium.driver.get(page.address)
    assert page.ask(ground) == light
    page.click("#theme")
    assert page.ask(ground) == dark
    page.ask("localStorage.clear()")


def test_who_wants_no_motion_has_none(page):
    page.chromium.prefer(prefers_reduced_motion="reduce")
    page.wait_for("matchMedia('(prefers-reduced-motion: reduce)').matches")
    assert page.ask("getComputedStyle(document.querySelector('.sides')).transitionDuration") == "0s"
    page.click("button[value=stuck]")
    page.wait_for("document.querySelector('#bare .trip')")
    # A picture a second at most: counted over sixty of the screen's.
    changes = page.chromium.driver.execute_async_script(
        "const done = arguments[0], moving = document.querySelector('#bare .chart').children[1];"
        "const seen = new Set(); let frames = 0;"
        "const look = () => { seen.add(moving.getAttribute('transform'));"
        " ++frames < 60 ? requestAnimationFrame(look) : done(seen.size); };"
        "requestAnimationFrame(look);"
    )
    assert changes < 30


def test_nothing_sticks_out(page):
    for kind in ("host", "late", "fast"):
        page.click(f"button[value={kind}]")
        page.ending(kind, "bare")
    for width in (360, 768, 1280):
        page.chromium.set_size(width, 740)
        page.wait_for(f"document.documentElement.clientWidth === {width}")
        assert page.ask("document.documentElement.scrollWidth") == width
        outside = page.ask(
            "[...document.querySelectorAll('main *')].filter(e => !e.closest('svg, pre, .unseen, thead'))"
            ".filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"
        )
        assert outside == []


def test_the_story_is_told_by_numbers(page):
    page.click("button[name=seconds][value='20']")
    page.wait_for("document.querySelector('#bare').classList.contains('is-stuck')")
    page.wait_for("document.querySelectorAll('#bare .nobody').length >= 4")
    _shoot(page)
    page.wait_for("document.querySelector('.verdict')?.innerText.startsWith('Of the same 100 requests')")
    numbers = {side: _numbers(page, side) for side in SIDES}
    for side in numbers:
        endings = ("served", "stopped", "dropped", "given-up")
        assert sum(numbers[side][name] for name in endings) == 100
    assert numbers["guarded"]["served"] > numbers["bare"]["served"]
    assert numbers["guarded"]["stopped"] > 0
    assert numbers["bare"]["given-up"] > 0
    assert numbers["bare"]["busy"] == 4  # every thread that it has
    page.wait_for("document.querySelector('#guarded [data-count=busy]').textContent === '0'")


def _numbers(page: Page, side: str) -> dict[str, int]:
    cells = f"document.querySelectorAll('#story [data-side={side}] td')"
    return dict(page.ask(f"[...{cells}].map(cell => [cell.dataset.number, Number(cell.textContent)])"))


def _shoot(page: Page) -> None:
    """Make the pictures of README and docs, if told so: `make screenshots`."""
    if not SCREENSHOTS:
        return
    folder = Path(SCREENSHOTS)
    page.ask("scrollTo(0, 0)")
    page.wait_for("Number(document.querySelector('#bare [data-count=refused]').textContent) >= 30")
    for name, theme, width, height in (
        ("demo-light", "light", 1200, 1030),
        ("demo-dark", "dark", 1200, 1030),
        ("demo-phone", "light", 360, 1900),
    ):
        _themed(page, theme)
        page.chromium.set_size(width, height)
        page.chromium.driver.execute_async_script(
            "requestAnimationFrame(() => setTimeout(arguments[0], 300))"
        )
        page.chromium.screenshot(folder / f"{name}.png")


def test_another_site_s_form_does_nothing(address):
    host = address.split("/")[2]
    for headers, status in (
        ({"Origin": "http://evil.example", "Host": host}, 403),
        ({"Origin": f"http://{host}", "Host": "evil.example"}, 308),
        ({"Origin": f"http://{host}", "Host": host}, 303),
    ):
        connection = HTTPConnection(host, timeout=30)
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        connection.request("POST", "/requests", "kind=fast", form)
        assert connection.getresponse().status == status
        connection.close()
