"""Everything that hostline is put through, one part after the other, for hours or for minutes.

    python tests/trials/prove.py                        # the long run: hours
    python tests/trials/prove.py --short                # minutes
    python tests/trials/prove.py --part forks --part "soak, uvicorn"
    python tests/trials/prove.py --list
    python tests/trials/prove.py --state proved.json    # goes on where that file says that it was

Each part is a program of its own, with a limit on its time; its output is a file in the folder
``--logs``. A part that has passed is written into the state file, so that a run that was
broken off goes on where it was, until the sources change. Ends with a table, and with status 1
if any part has failed.
"""

import argparse
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trial import PROGRAMS, table, tell, versions

ROOT = PROGRAMS.parent.parent
SOAKED = ("gunicorn gthread", "gunicorn sync", "gunicorn gevent", "uvicorn")
HOSTILE = "tests/servers/test_hostile_clients.py"
FAULTS = ("clock", "stopped", "memory", "observer", "disk", "term")


@dataclass(frozen=True)
class Part:
    """One program, as it is run for long and in short."""

    name: str
    long: tuple[str, ...]
    short: tuple[str, ...] = ()  # none: there is no short form, or another step of the CI run has it
    minutes: float = 30.0  #: that the long form may take
    short_minutes: float = 2.0

    @property
    def is_there(self) -> bool:
        """Whether this repository has it."""
        return self.long[0] == "make" or Path(ROOT, self.long[0]).exists() or self.long[0] == "-m"

    def command(self, *, in_short: bool) -> list[str]:
        """What is run, in the repository's folder."""
        words = list(self.short if in_short else self.long)
        return words if words[0] == "make" else [sys.executable, *words]


def _trial(name: str, long: tuple[str, ...] = (), short: tuple[str, ...] = (), minutes: float = 30.0) -> Part:
    program = f"tests/trials/{name}.py"
    return Part(name.replace("_", " "), (program, *long), (program, *short) if short else (), minutes)


def _pytest(*selection: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-q", "-m", "server", *selection)


PARTS = (
    # Those without a short form here are tests of `make test-slow` and `make test`.
    _trial("near_misses", minutes=60),
    _trial("near_misses_asgi", minutes=60),
    _trial("broken_state", ("--roads", "main,threads"), minutes=120),
    _trial("pool_threads"),
    _trial("leftovers"),
    _trial("fuzz", minutes=120),
    _trial("forks", short=("--count", "100")),
    _trial("shutdowns", short=("--count", "6")),
    *(
        Part(
            f"soak, {name}",
            ("tests/trials/soak.py", "--minutes", "5", "--server", name),
            ("tests/trials/soak.py", "--minutes", "0.1", "--server", name),
            minutes=15,
        )
        for name in SOAKED
    ),
    *(
        Part(
            f"faults, {fault}",
            ("tests/trials/faults.py", "--fault", fault),
            ("tests/trials/faults.py", "--fault", fault, "--times", "2", "--server", server),
        )
        for fault, server in zip(FAULTS, ("gunicorn gthread", "uvicorn") * 3, strict=True)
    ),
    Part("hostile clients", _pytest(HOSTILE)),
    Part("servers", _pytest("tests/servers", f"--ignore={HOSTILE}"), minutes=120),
    Part("peers' tests", ("make", "peers"), minutes=60),
)


class State:
    """Which parts have passed, in a file; without one, in memory alone. Of other sources, none has."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._sources = _digest()
        told = json.loads(path.read_text()) if path is not None and path.exists() else {}
        self.passed: dict[str, float] = told.get(self._sources, {})

    def enter(self, key: str, seconds: float) -> None:
        """One more has passed."""
        self.passed[key] = seconds
        if self._path is not None:
            unfinished = self._path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps({self._sources: self.passed}, indent=1))
            unfinished.replace(self._path)


def _digest() -> str:
    """What tells these sources, and this interpreter, from others."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(part: Part, log: Path, *, in_short: bool) -> str:
    """Run a part to its end, or until its time is over: what has come of it."""
    limit = 60 * (part.short_minutes if in_short else part.minutes)
    command = part.command(in_short=in_short)
    tell(f"{part.name}: {shlex.join(command)}")
    source = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": source},
            process_group=0,  # to be ended with all that it has started
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"not done after {limit:.0f} s"
        finally:
            _end_group(process)
    return "passed" if status == 0 else f"failed, status {status}"


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of it: first by a word, that servers which it has started are stopped, too."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def chosen(names: list[str] | None, *, in_short: bool) -> Iterator[Part]:
    """The parts that are asked for, as far as they are there."""
    for part in PARTS:
        has_form = bool(part.short) or not in_short
        if part.is_there and has_form and (not names or part.name in names):
            yield part


def prove(parts: list[Part], logs: Path, state: State, *, in_short: bool) -> Iterator[list[object]]:
    """Run them one after the other; a row of the table for each."""
    for number, part in enumerate(parts, 1):
        key = f"{part.name}{' (short)' if in_short else ''}"
        if key in state.passed:
            yield [part.name, "passed before", f"{state.passed[key]:.0f}", ""]
            continue
        log = logs / f"{part.name.replace(', ', '-').replace(' ', '-')}.log"
        began = time.monotonic()
        outcome = run(part, log, in_short=in_short)
        seconds = time.monotonic() - began
        tell(f"{part.name}: {outcome} ({number} of {len(parts)}, {seconds:.0f} s)")
        if outcome == "passed":
            state.enter(key, seconds)
        else:
            print(log.read_text(errors="replace")[-6_000:], file=sys.stderr, flush=True)
        yield [part.name, outcome, f"{seconds:.0f}", log]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true", help="each part in its short form")
    parser.add_argument(
        "--part", choices=[part.name for part in PARTS], action="append", help="only this one"
    )
    parser.add_argument("--state", type=Path, help="where to keep what has passed, and to look it up")
    parser.add_argument("--logs", type=Path, help="the folder for the output (a new one)")
    parser.add_argument("--list", action="store_true", help="name the parts, and run none")
    arguments = parser.parse_args()
    # A shell that runs this in the background has it ignored, and the parts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parts = list(chosen(arguments.part, in_short=arguments.short))
    if arguments.list:
        print(*(part.name for part in parts), sep="\n")
        return 0
    logs: Path = arguments.logs or Path(tempfile.mkdtemp(prefix="hostline-proved-"))
    logs.mkdir(parents=True, exist_ok=True)
    rows = list(prove(parts, logs, State(arguments.state), in_short=arguments.short))
    print(f"{versions()}.\n")
    print(table(["part", "outcome", "took, s", "its output"], rows))
    return int(any(not str(outcome).startswith("passed") for _, outcome, _, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
