"""Type-checked, never run: how users write settings."""

import re
from datetime import timedelta
from typing import assert_type
from urllib.parse import SplitResult

import hostline
from hostline.settings import CanonicalHostOptions, RequestTimeoutOptions


def _is_preview(url: SplitResult) -> bool:
    return "preview" in url.netloc


host: CanonicalHostOptions = {
    "host": "www.example.com",
    "ignore": ["api.example.com", "*.preview.example.com", re.compile(r"^staging\."), _is_preview],
    "only": "example.com",
    "status": 308,
    "scheme": "https",
    "exempt_paths": ["/healthz"],
    "trust_forwarded_proto": None,
    "cache_control": ...,
}
timeout: RequestTimeoutOptions = {
    "service_timeout": timedelta(seconds=10),
    "wait_timeout": None,
    "wait_overtime": 0,
    "stream_timeout": 55.5,
    "mode": "raise",
    "observers": ["log", print],
    "body": b"too slow",
    "content_type": "text/plain",
    "signal": "SIGURG",
}

assert_type(hostline.CanonicalHostSettings.load(dict(host)), hostline.CanonicalHostSettings)
loaded = hostline.RequestTimeoutSettings.load(dict(timeout), environ={})
assert_type(loaded, hostline.RequestTimeoutSettings)
assert_type(loaded.service_timeout, float | None)

mistyped: CanonicalHostOptions = {"scheme": "ftp"}  # type: ignore[typeddict-item]
unknown: RequestTimeoutOptions = {"servce_timeout": 1}  # type: ignore[typeddict-unknown-key]

try:
    hostline.RequestTimeoutSettings.load({})
except hostline.SettingsError as error:
    assert_type(error.problems, tuple[str, ...])

tree: tuple[type[hostline.HostlineError], ...] = (hostline.RequestTimeoutError, hostline.RequestExpiryError)
timeouts: tuple[type[TimeoutError], ...] = (hostline.RequestTimeoutError, hostline.RequestExpiryError)
not_an_error: type[BaseException] = hostline.RequestTimeoutException
