"""The servers on trial: those of ``wsgi_kinds`` and ``asgi_kinds``, with the apps of the trials."""

import dataclasses
import json
from collections import defaultdict
from typing import Any, TypeVar

import asgi_kinds
import server_kind
import wsgi_kinds
from launch import Server

_K = TypeVar("_K", bound=server_kind.Kind)

#: As ``proving`` has it, which is for the servers' processes alone.
HOST = "canonical.test"

_APPS = {wsgi_kinds.APP: "proving_wsgi:outermost", asgi_kinds.APP: "proving_asgi:outermost"}


def proving(kind: _K) -> _K:
    """The same server with the app of the trials."""
    command = tuple(kind.command)
    for usual, of_trials in _APPS.items():
        command = tuple(part.replace(usual, of_trials) for part in command)
    assert command != kind.command, f"{kind.name} serves an app of its own"
    return dataclasses.replace(kind, name=f"{kind.name}, on trial", command=command)


def told(server: Server) -> dict[str, list[str]]:
    """What the observers were told so far: the states of each request id, in their order."""
    states: defaultdict[str, list[str]] = defaultdict(list)
    path = server.folder / "ledger"
    if path.exists():
        for line in path.read_text().splitlines():
            state, _, request_id = line.partition(" ")
            states[request_id].append(state)
    return dict(states)


def vitals(server: Server) -> dict[str, Any]:
    """What the process that answers has and holds."""
    signs: dict[str, Any] = json.loads(server.get("/vitals").body)
    return signs


def faults_of_ours(log: str) -> list[str]:
    """What a server's log has that is a defect of hostline's, whoever has written it down.

    An error that was raised in hostline's own code, but for the one that is to be raised, by
    which a response is cut; and an abort that has got out of its guard.
    """
    faults = [line for line in log.splitlines() if any(each in line for each in _NEVER_LOGGED)]
    for trace in log.split("Traceback (most recent call last):\n")[1:]:
        frames, error, rest = _taken_apart(trace)
        is_cause = "direct cause" in rest[:80]
        has_escaped = "RequestTimeoutException" in error and not is_cause
        is_ours = bool(frames) and "/src/hostline/" in frames[-1] and "hostline.errors" not in error
        # A stream whose time was up when it came to its end: it is cut as any other.
        is_late_end = is_cause and error.startswith("StopIteration")
        if has_escaped or (is_ours and not is_late_end):
            faults.append(trace)
    return faults


_NEVER_LOGGED = (
    "hostline's watchdog failed",
    "hostline could not",
    "An observer of hostline failed",
    "Exception ignored in",
    "Fatal Python error",
    "Segmentation fault",
)


def _taken_apart(trace: str) -> tuple[list[str], str, str]:
    """The frames of a traceback, the line that names its error, and what follows."""
    frames: list[str] = []
    lines = trace.splitlines()
    for number, line in enumerate(lines):
        if line.lstrip().startswith('File "'):
            frames.append(line)
        elif not line.startswith((" ", "\t")):
            return frames, line, "\n".join(lines[number + 1 :]).lstrip()
    return frames, "", ""
