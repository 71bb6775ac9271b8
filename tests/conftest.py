"""What every test stands on: a clean environment, the event loops, and a word on what was left out."""

import os
import platform
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from hostline._log_ration import log_ration
from loops import run  # noqa: F401 - a fixture

# No deadline: the machine is shared, and what an example costs is the benchmarks' business.
hypothesis.settings.register_profile("default", deadline=None)
# A red build must be red again when it is repeated.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# A shell that runs this in the background has it ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_READ_BY_HOSTLINE = ("HOSTLINE_", "RACK_TIMEOUT_")
_READ_BY_HOSTLINE_EXACTLY = ("CANONICAL_HOST", "CI", "DYNO")

_left_out: Counter[str] = Counter()


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> Iterator[None]:
    """Nothing that the developer's shell or the CI service sets may decide a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in tuple(os.environ):
            if name.startswith(_READ_BY_HOSTLINE) or name in _READ_BY_HOSTLINE_EXACTLY:
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _whole_log() -> None:
    """What one test writes to the log leaves no less for the next."""
    log_ration.reset()


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loops that a test marked ``anyio`` runs on."""
    return request.param


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        _left_out[
            next(
                (name for name in ("slow", "browser", "server", "timed") if item.get_closest_marker(name)),
                "other",
            )
        ] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this run did not test; pytest's own line only counts it."""
    tell = terminalreporter.write_line
    terminalreporter.section("left out")
    remedies = {
        "slow": "marked slow: `make test-slow` runs them",
        "browser": "in a real browser: `make test` runs them",
        "server": "on real servers: `make test` runs them",
        "timed": "of whole guards, in real time: `make test` runs them",
        "other": "by the options of this run",
    }
    for kind, remedy in remedies.items():
        if _left_out[kind]:
            tell(f"{_left_out[kind]} tests {remedy}")
    for reason, count in _skipped(terminalreporter).items():
        tell(f"{count} tests skipped: {reason}")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    tell(f"every other Python than this {python}: `make test-all` runs them")


def _skipped(terminalreporter: pytest.TerminalReporter) -> Counter[str]:
    reports = terminalreporter.stats.get("skipped", [])
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
