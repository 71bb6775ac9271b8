"""Odd input of every kind, in short; ``tests/trials/fuzz.py`` goes on for as long as one likes."""

import pytest
from hypothesis import HealthCheck, given, settings

pytest.importorskip("yarl")
from properties import PROPERTIES


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_any(name):
    check, tries = PROPERTIES[name]

    @settings(max_examples=60, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(tries)
    def run(drawn):
        check(drawn)

    run()
