"""Does a browser read a host as hostline does? Chromium's own URL parser is asked, in a page."""

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("yarl")
from host_confusion import HOSTS, LOCATIONS, Reader, confused_hosts, confused_locations

pytestmark = [pytest.mark.browser, pytest.mark.server]

BATCH = 300


@pytest.fixture
def reader(chromium):
    return Reader(chromium)


def test_no_host_is_another_one_to_a_browser(reader):
    hosts = _drawn(HOSTS, BATCH)
    assert confused_hosts(reader, hosts) == []


def test_no_location_leads_elsewhere_in_a_browser(reader):
    assert confused_locations(reader, _drawn(LOCATIONS, BATCH)) == []


def test_a_confusion_would_be_seen(reader):
    """The parser that is asked is one that differs from others."""
    assert reader.read(["http://0x7f.1/", "http://evil.test\\@www.example.com/", "http://[::1/"]) == [
        ("127.0.0.1", ""),
        ("evil.test", ""),
        None,
    ]


def _drawn(strategy, count):
    drawn = []

    @settings(max_examples=count, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(each):
        drawn.append(each)

    draw()
    return drawn
