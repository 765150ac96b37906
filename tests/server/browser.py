"""A headless Chromium for tests of pages."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
StaleElementReferenceException = pytest.importorskip("selenium.common").StaleElementReferenceException
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    def __init__(self, driver):
        self.driver = driver
        self.outside: set[str] = set()

    def resize(self, width: int, height: int = 1000) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def wait_for(self, condition: Callable[[], object], seconds: float = 90):
        end = time.monotonic() + seconds
        while True:
            with suppress(StaleElementReferenceException):  # the page has drawn it anew meanwhile
                if found := condition():
                    return found
            assert time.monotonic() < end, self.driver.find_element("tag name", "body").text
            time.sleep(0.1)

    def find(self, path: str) -> list:
        return [item for item in self.driver.find_elements("xpath", path) if item.is_displayed()]

    def script(self, text: str) -> object:
        return self.driver.execute_script(f"return {text}")

    def requested(self) -> set[str]:
        """Return the http(s) and websocket URLs that pages asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {one["request"]["url"] for one in sent if one["request"]["url"].startswith(("http", "ws"))}


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start one, with a new profile in a folder; skip the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(driver)
    running = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(running)
    finally:
        running.quit()
