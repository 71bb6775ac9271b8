"""A headless Chromium of the machine's own, driven by Selenium through ChromeDriver.

To this browser every host name is 127.0.0.1, and so is every other address: a page can be
asked for under any name, nothing is looked up, and nothing leaves the machine.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PATIENCE = 40  # seconds; a machine that is busy with other tests is slow
_PROGRAMS = ("chromium", "chromedriver")
_OPTIONS = (
    "--headless=new",
    "--host-resolver-rules=MAP * 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",  # a container's is small
    "--disable-extensions",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
)


def missing() -> str:
    """Why there can be none here; empty if there can."""
    if absent := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"no browser on this machine: {', '.join(absent)} (`bash tools/browser` installs them)"
    if find_spec("selenium") is None:
        return "not installed: selenium (extra servers)"
    return ""


class Chromium:
    """A running one. ``driver`` is Selenium's, for all that is not here."""

    def __init__(self, folder: Path) -> None:
        # Not above: `missing` has to be askable where there is no Selenium.
        from selenium.webdriver import Chrome, ChromeOptions  # noqa: PLC0415
        from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

        options = ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for option in (*_OPTIONS, f"--user-data-dir={folder}/profile"):
            options.add_argument(option)
        if os.getuid() == 0:
            options.add_argument("--no-sandbox")  # it refuses to start as root with one
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # A named driver: Selenium would otherwise look for one on the network.
        service = Service(shutil.which("chromedriver"), log_output=f"{folder}/chromedriver.log")
        self.driver = Chrome(options=options, service=service)
        self._events: list[dict[str, Any]] = []

    def forget(self) -> None:
        """Begin anew: no page, no cookies, no emulation, nothing in the logs."""
        self.driver.get("about:blank")
        self.driver.delete_all_cookies()
        self.command("Emulation.clearDeviceMetricsOverride")
        self.command("Emulation.setEmulatedMedia", media="", features=[])
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self._events.clear()

    def command(self, name: str, **arguments: Any) -> Any:
        """A command of the Chrome DevTools Protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def set_size(self, width: int, height: int) -> None:
        """Be a window of this size inside, also one that is narrower than a desktop's may be."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, **features: str) -> None:
        """Have the user prefer something: ``prefers_color_scheme="dark"``."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", features=told)

    def ask(self, expression: str) -> Any:
        """The value of an expression of the page's language."""
        return self.driver.execute_script(f"return {expression}")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        self._wait_until(lambda: self.ask(expression), expression)

    def find(self, selector: str) -> Any:
        """The first element there is, or will be."""
        self._wait_until(lambda: self.driver.find_elements("css selector", selector), selector)
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        """Click on the first such element, though the page may put another in its place meanwhile."""
        from selenium.common import StaleElementReferenceException  # noqa: PLC0415

        def is_clicked() -> bool:
            try:
                self.find(selector).click()
            except StaleElementReferenceException:
                return False
            return True

        self._wait_until(is_clicked, selector)

    def press(self, key: str) -> None:
        """Press a key, by Selenium's name for it."""
        from selenium.webdriver import ActionChains, Keys  # noqa: PLC0415

        ActionChains(self.driver).send_keys(getattr(Keys, key)).perform()

    def _wait_until(self, is_so: Callable[[], object], what: str) -> None:
        from selenium.webdriver.support.wait import WebDriverWait  # noqa: PLC0415

        WebDriverWait(self.driver, _PATIENCE, poll_frequency=0.05).until(lambda _: is_so(), what)

    def console(self) -> list[str]:
        """What has gone to the console since the last call: errors, and violations of the policy."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The address of every request since :meth:`forget`, of pages and whatever they loaded."""
        return [each["request"]["url"] for each in self._told("Network.requestWillBeSent")]

    def responses(self) -> list[tuple[int, str]]:
        """Status and address of each answer since :meth:`forget`, redirects in their place."""
        return list(self._responses())

    def _responses(self) -> Iterator[tuple[int, str]]:
        for event in self._gather():
            parameters = event["params"]
            if event["method"] == "Network.requestWillBeSent" and "redirectResponse" in parameters:
                redirect = parameters["redirectResponse"]
                yield redirect["status"], redirect["url"]
            elif event["method"] == "Network.responseReceived":
                yield parameters["response"]["status"], parameters["response"]["url"]

    def _told(self, method: str) -> Iterator[dict[str, Any]]:
        return (event["params"] for event in self._gather() if event["method"] == method)

    def _gather(self) -> list[dict[str, Any]]:
        told = self.driver.get_log("performance")
        self._events += [json.loads(entry["message"])["message"] for entry in told]
        return self._events

    def screenshot(self, file: Path) -> None:
        """Write what is seen as a PNG file."""
        self.driver.save_screenshot(str(file))

    def stop(self) -> None:
        """End it, and its driver."""
        self.driver.quit()
