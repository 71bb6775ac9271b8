"""A package that is cut in the middle of its import never recovers: its parts stay behind, unbound."""

import sys

import pytest

import hostline
from hostline.wsgi import RequestTimeoutMiddleware
from timeouts import hello, in_thread, linger, serve

ROADS = {"main": lambda call: call(), "thread": in_thread}
DEFERRAL_LIMIT = 0.5

_SLOW = """
import time
import hostline
end = hostline.deadline() + {behind_the_deadline}
while time.monotonic() < end:
    pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """``half_imported``: a part, and then one that takes until so long behind the deadline."""

    def make(behind_the_deadline):
        folder = tmp_path / "half_imported"
        folder.mkdir()
        (folder / "__init__.py").write_text("import half_imported.part\nimport half_imported.slow\n")
        (folder / "part.py").write_text("")
        (folder / "slow.py").write_text(_SLOW.format(behind_the_deadline=behind_the_deadline))

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in [each for each in sys.modules if each.partition(".")[0] == "half_imported"]:
        del sys.modules[name]


def _ask(road, app):
    guard = RequestTimeoutMiddleware(app, service_timeout=0.1, deferral_limit=DEFERRAL_LIMIT, observers=())
    return ROADS[road](lambda: serve(guard)).status


@pytest.mark.slow
@pytest.mark.parametrize("road", ROADS)
def test_an_import_outlasts_what_other_code_may(road, package):
    package(1.4 * DEFERRAL_LIMIT)
    outcomes = []

    def app(environ, start_response):
        import half_imported  # noqa: PLC0415 - what is tested

        outcomes.append(half_imported.part)
        linger()
        return hello(environ, start_response)

    assert _ask(road, app) == 504
    assert outcomes == [sys.modules["half_imported.part"]]


@pytest.mark.slow
@pytest.mark.parametrize("road", ROADS)
def test_but_not_for_ever(road, package):
    package(20 * DEFERRAL_LIMIT)

    def app(environ, start_response):
        import half_imported  # noqa: F401, PLC0415 - what is tested

        return hello(environ, start_response)

    assert _ask(road, app) == 504
    assert "half_imported" not in sys.modules
    assert hostline.current() is None
