"""What the trials share: requests without a server, threads that all start, and Markdown."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import hostline

Run = Callable[[], object]


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    """Runs what the request brings along."""
    environ["trial.run"]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def request(guard: Callable[..., Iterable[bytes]], run: Run, request_id: str = "") -> str:
    """Serve one request whose app is ``run``; the status that it is answered with."""
    statuses: list[str] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> None:
        statuses.append(status)

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "HTTP_X_REQUEST_ID": request_id,
        "trial.run": run,
    }
    b"".join(guard(environ, start_response))
    return statuses[-1]


def in_threads(runs: Sequence[Run]) -> None:
    """Run each in a thread of its own, to its end; the first error of any is raised."""
    errors: list[BaseException] = []

    def guarded(run: Run) -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def in_child(program: str, *arguments: str) -> Any:
    """What another run of a trial prints as JSON: a process, and so a main thread, of its own."""
    command = [sys.executable, "-W", "ignore", program, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def tell(text: str) -> None:
    """Say how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown; all columns but the first are figures."""
    lines = [list(heads), ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def versions() -> str:
    """Where figures come from."""
    return (
        f"CPython {platform.python_version()}, hostline {hostline.__version__}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


PROGRAMS = Path(__file__).parent
