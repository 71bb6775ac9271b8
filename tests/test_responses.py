"""What is answered in the app's place, before any protocol."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from hostline._responses import preferred_type

OFFERS = ("text/plain", "text/html", "application/problem+json")


@pytest.mark.parametrize(
    ("accept", "expected"),
    (
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/*", "text/plain"),
        ("application/*", "application/problem+json"),
        ("application/problem+json, */*;q=0.5", "application/problem+json"),
        ("text/html, text/plain", "text/plain"),
        ("text/html, */*", "text/html"),
        ("text/html;q=0.5, */*;q=0.1", "text/html"),
        ("text/html;q=0.5, */*;q=0.6", "text/plain"),
        ("*/*, text/plain;q=0", "text/html"),
        ("text/plain;q=0.1, text/plain;q=0.9", "text/plain"),
        ("text/html;charset=utf-8;q=0.9", "text/html"),
        ("text/html ; Q=1.000", "text/html"),
        ("text/html;q=2", "text/html"),
        ("image/png", None),
        ("*/*;q=0", None),
        ("nonsense", "text/plain"),
        (",,,", "text/plain"),
        ("text/html" * 1000, None),
    ),
)
def test_preferred_type(accept, expected):
    assert preferred_type(accept, OFFERS) == expected


@given(st.text())
def test_preferred_type_is_total(accept):
    assert preferred_type(accept, OFFERS) in {*OFFERS, None}


_RANGES = st.sampled_from(
    ("text/html", "text/plain", "text/*", "*/*", "image/png", "application/problem+json")
)
_QUALITIES = st.sampled_from(("", ";q=0", ";q=0.1", ";q=0.5", ";q=1"))


@given(st.lists(st.tuples(_RANGES, _QUALITIES), min_size=1, unique_by=lambda pair: pair[0]))
def test_preferred_type_is_werkzeug_s(ranges):
    accept = ", ".join(name + quality for name, quality in ranges)
    assert preferred_type(accept, OFFERS) == parse_accept_header(accept, MIMEAccept).best_match(OFFERS)
