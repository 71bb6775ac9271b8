"""What is answered in the app's place, before any protocol."""

import json
import logging
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from hostline import RequestTimeoutSettings
from hostline._hosts import Redirect
from hostline._requests import RequestDetails
from hostline._responses import (
    HTML,
    JSON,
    PROBLEM,
    TEXT,
    TIMEOUT_PAGES,
    expired,
    host_response,
    preferred_type,
    timed_out,
)

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


# The pages about time


class Request(RequestDetails):
    method = "GET"
    path = "/<script>"

    def _raw_id(self):
        return "<b>&"


def _timed_out(media_type=TEXT, **options):
    return timed_out(RequestTimeoutSettings.load(options, {}), Request(), media_type)


def _headers(response):
    named = {name.lower(): value for name, value in response.headers}
    assert len(named) == len(response.headers)
    assert named["content-length"] == str(len(response.body))
    return named


class Markup(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("media_type", TIMEOUT_PAGES)
def test_no_page_about_time_is_stored(media_type):
    for response in (expired(media_type), _timed_out(media_type), _timed_out(media_type, body="x")):
        assert _headers(response)["cache-control"] == "no-store"


@pytest.mark.parametrize("media_type", TIMEOUT_PAGES)
def test_only_the_expired_are_told_when_to_come_back(media_type):
    assert (expired(media_type).status, expired(media_type).reason) == (503, "Service Unavailable")
    assert int(_headers(expired(media_type))["retry-after"]) > 0
    assert (_timed_out(media_type).status, _timed_out(media_type).reason) == (504, "Gateway Timeout")
    assert "retry-after" not in _headers(_timed_out(media_type))


@pytest.mark.parametrize("media_type", (JSON, PROBLEM))
@pytest.mark.parametrize(
    ("make", "status", "title"), ((expired, 503, "Service Unavailable"), (_timed_out, 504, "Gateway Timeout"))
)
def test_problem_details(media_type, make, status, title):
    """RFC 9457, whichever of the two names the client knows it by."""
    response = make(media_type)
    assert _headers(response)["content-type"] == "application/problem+json"
    problem = json.loads(response.body)
    assert problem.keys() == {"status", "title", "detail"}
    assert (problem["status"], problem["title"]) == (status, title)


@pytest.mark.parametrize("make", (expired, _timed_out))
def test_html(make):
    response = make(HTML)
    assert _headers(response)["content-type"] == "text/html; charset=utf-8"
    page = Markup(response.body.decode())
    assert page.tags == ["html", "head", "meta", "title", "body", "h1", "p"]
    assert response.reason in page.text


@pytest.mark.parametrize("make", (expired, _timed_out))
def test_text(make):
    response = make(TEXT)
    assert _headers(response)["content-type"] == "text/plain; charset=utf-8"
    assert response.body.decode().startswith(f"{response.status} {response.reason}\n")


def test_a_redirect_s_page_escapes_its_location():
    response = host_response(Redirect('https://a.test/"><script>&x', 301), HTML, None)
    page = Markup(response.body.decode())
    assert "script" not in page.tags
    assert b"<script>" not in response.body


@pytest.mark.parametrize("media_type", TIMEOUT_PAGES)
def test_head_is_told_the_length_of_what_does_not_come(media_type):
    response = _timed_out(media_type)
    head = response.to("HEAD")
    assert (head.body, head.headers, head.status) == (b"", response.headers, response.status)
    assert response.to("GET") is response
    assert response.to("head") is response, "methods are case-sensitive"


# 419 to 599: of no meaning to Python, but CDNs and frameworks have theirs.
@pytest.mark.parametrize("status", (400, 408, 419, 500, 503, 520, 599))
@pytest.mark.parametrize("media_type", TIMEOUT_PAGES)
def test_a_configured_status(status, media_type):
    """An answer that fails for want of a phrase would leave the client without any."""
    response = _timed_out(media_type, status=status)
    assert response.status == status
    assert isinstance(response.reason, str)
    assert str(status).encode() in response.body


@pytest.mark.parametrize(
    ("body", "octets"),
    (
        ("caf\xe9", b"caf\xc3\xa9"),
        (b"\xff\x00", b"\xff\x00"),
        ("", b""),
        (lambda request: f"{request.id} {request.path}", b"<b>& /<script>"),
        (lambda request: b"octets", b"octets"),
    ),
)
def test_a_configured_body(body, octets):
    response = _timed_out(HTML, body=body)
    assert response.body == octets
    assert _headers(response)["content-type"] == "text/plain; charset=utf-8"
    typed = _timed_out(HTML, body=body, content_type="application/x-own")
    assert _headers(typed)["content-type"] == "application/x-own"


def _fails(request):
    raise ValueError("a defect of the user's")


@pytest.mark.parametrize("body", (_fails, lambda request: None, lambda request: 7))
@pytest.mark.parametrize("content_type", (None, "text/x-own"))
def test_a_configured_body_that_fails_is_replaced_and_logged(body, content_type, caplog):
    with caplog.at_level(logging.ERROR):
        response = _timed_out(TEXT, body=body, content_type=content_type)
    assert response.body == _timed_out(TEXT).body
    assert _headers(response)["content-type"] == "text/plain; charset=utf-8"
    assert len(caplog.records) == 1
