"""The program that runs all trials: what it makes of parts that pass, fail, or do not come to an end."""

import sys
from pathlib import Path

import pytest

TRIALS = Path(__file__).parent / "trials"


@pytest.fixture(scope="module")
def prove():
    sys.path.insert(0, str(TRIALS))
    try:
        import prove  # noqa: PLC0415 - a program, found there alone

        yield prove
    finally:
        sys.path.remove(str(TRIALS))


def _python(prove, name, program, **limits):
    return prove.Part(name, ("-c", program), ("-c", program), **limits)


@pytest.mark.slow
def test_parts_pass_fail_and_are_ended(prove, tmp_path):
    parts = [
        _python(prove, "good", "print('fine')"),
        _python(prove, "bad", "print('wrong'); raise SystemExit(1)"),
        _python(prove, "endless", "while True: pass", minutes=0.01),
    ]
    rows = list(prove.prove(parts, tmp_path, prove.State(None), in_short=False))
    assert [outcome.split()[0] for _, outcome, _, _ in rows] == ["passed", "failed,", "not"]
    assert [log.read_text().split()[:1] for *_, log in rows[:2]] == [["fine"], ["wrong"]]


@pytest.mark.slow
def test_what_has_passed_is_not_run_again(prove, tmp_path):
    ran = tmp_path / "ran"
    parts = [
        _python(prove, "good", f"open({str(ran)!r}, 'a').write('once')"),
        _python(prove, "bad", f"open({str(ran)!r}, 'a').write(' again'); raise SystemExit(1)"),
    ]
    state = tmp_path / "state.json"
    for _ in range(2):
        outcomes = [row[1] for row in prove.prove(parts, tmp_path, prove.State(state), in_short=False)]
    assert outcomes == ["passed before", "failed, status 1"]
    assert ran.read_text() == "once again again"
    # Its short form is something else, and so are other sources.
    assert next(iter(prove.prove(parts[:1], tmp_path, prove.State(state), in_short=True)))[1] == "passed"
    state.write_text(state.read_text().replace(prove._digest(), "other sources"))
    assert not prove.State(state).passed


def test_each_part_has_a_name_of_its_own_and_a_program(prove):
    names = [part.name for part in prove.PARTS]
    assert len(set(names)) == len(names)
    assert [part.name for part in prove.PARTS if not part.is_there] in ([], ["fuzz"])
