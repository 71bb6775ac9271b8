"""What Chromium's URL parser makes of the hosts and Locations of hostline's, thousands at a time."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hostline import CanonicalHostSettings
from hostline._authority import decode_header, parse_authority
from hostline._hosts import Asked, HostRules, Redirect, decide

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from properties import HOME, HOSTS, OCTETS, PATHS

__all__ = ["HOSTS", "LOCATIONS", "Reader", "confused_hosts", "confused_locations"]

LOCATIONS = st.tuples(PATHS, PATHS, OCTETS)

_READ = """
return arguments[0].map(url => {
  try { const read = new URL(url); return [read.hostname, read.port]; } catch { return null; }
});
"""


class Reader:
    """Asks a page of a running Chromium."""

    def __init__(self, chromium: Any) -> None:
        self._driver = chromium.driver

    def read(self, urls: Iterable[str]) -> list[tuple[str, str] | None]:
        """Host and port of each; None for what is no URL to it."""
        # What UTF-16 cannot hold cannot be asked for.
        sent = [url.encode("utf-8", "replace").decode() for url in urls]
        answers = self._driver.execute_script(_READ, sent)
        return [None if answer is None else (answer[0], answer[1]) for answer in answers]


def confused_hosts(reader: Reader, texts: Iterable[str]) -> list[tuple[str, object, object]]:
    """The texts that name one host to hostline and another one to the browser."""
    every = [(text, authority) for text in texts if (authority := parse_authority(text)) is not None]
    answers = reader.read([f"http://{text}/" for text, _ in every])
    return [
        (text, authority, answer)
        for (text, authority), answer in zip(every, answers, strict=True)
        if answer is not None
        and (_host(answer[0]), int(answer[1] or 80)) != (authority.host, authority.port or 80)
    ]


def confused_locations(
    reader: Reader, drawn: Iterable[tuple[bytes, bytes, bytes]]
) -> list[tuple[object, object]]:
    """The redirects that lead anywhere but home, or nowhere."""
    rules = HostRules(CanonicalHostSettings.load({"host": HOME}, {}))
    asked = [Asked("GET", "http", host, None, None, path, query) for path, query, host in drawn]
    redirects = [(each, decision) for each in asked if isinstance(decision := decide(rules, each), Redirect)]
    answers = reader.read([decision.location for _, decision in redirects])
    confused: list[tuple[object, object]] = []
    for (each, decision), answer in zip(redirects, answers, strict=True):
        here = parse_authority(decode_header(each.host or b""))
        port = None if here is None else here.port
        if answer is None or answer[0] != HOME or int(answer[1] or 80) != (port or 80):
            confused.append((decision.location, answer))
    return confused


def _host(text: str) -> str:
    """As hostline writes it: without the root's dot, an IPv4 address within an IPv6 one in dots."""
    authority = parse_authority(text)
    return text if authority is None else authority.host
