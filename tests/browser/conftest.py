"""A browser for each module, as it takes a second to start; each test has it as new."""

import os
from collections.abc import Iterator

import pytest
from chromium import Chromium, missing


@pytest.fixture(scope="module")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if reason := missing():
        (pytest.fail if os.environ.get("BROWSER_REQUIRED") else pytest.skip)(reason)
    chromium = Chromium(tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.stop()


@pytest.fixture
def chromium(_chromium: Chromium) -> Chromium:
    _chromium.forget()
    return _chromium
