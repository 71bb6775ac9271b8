"""Sending requests to a server on this machine as fast as it takes them, for a short while.

wrk where it is installed; else a small generator of our own, which is slower than most
servers and so measures both of them together. Loopback only.
"""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

from benchmarks.spans import Span

_CONNECTIONS = 16
_ADDRESS = "127.0.0.1"
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Load:
    """What a burst of requests has found. Latencies in seconds."""

    requests: int
    per_second: float
    p50: float
    p99: float


def generator() -> str:
    """Which of the two it is."""
    return "wrk" if shutil.which("wrk") else "the built-in generator (wrk is not installed)"


def burst(port: int, headers: Mapping[str, str], seconds: float) -> Load:
    """Requests over a few connections for this long."""
    if shutil.which("wrk"):
        return _wrk(port, headers, seconds)
    return asyncio.run(built_in(port, headers, seconds))


def _wrk(port: int, headers: Mapping[str, str], seconds: float) -> Load:
    # wrk takes whole seconds only; its own time limit is for one request.
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://{_ADDRESS}:{port}/")
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    return read_wrk(done.stdout)


def read_wrk(text: str) -> Load:
    """What wrk has printed."""
    if "Non-2xx" in text:
        raise RuntimeError(f"the server answered with errors:\n{text}")
    count = re.search(r"(\d+) requests in ", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    found = dict(re.findall(r"(50|99)%\s+([\d.]+(?:us|ms|s))\b", text))
    if count is None or rate is None or len(found) != 2:
        raise RuntimeError(f"wrk printed something else:\n{text}")
    return Load(int(count[1]), float(rate[1]), _seconds(found["50"]), _seconds(found["99"]))


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * _UNITS[unit]


async def built_in(port: int, headers: Mapping[str, str], seconds: float) -> Load:
    """The same by our own means."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET / HTTP/1.1\r\n{lines}\r\n".encode()
    latencies: list[float] = []
    end = perf_counter() + seconds
    async with asyncio.timeout(seconds + 10), asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(_send_until(end, port, request, latencies))
    span = Span(latencies)
    return Load(len(latencies), len(latencies) / seconds, span.percentile(0.5), span.percentile(0.99))


async def _send_until(end: float, port: int, request: bytes, latencies: list[float]) -> None:
    while perf_counter() < end:
        reader, writer = await asyncio.open_connection(_ADDRESS, port)
        try:
            is_open = True
            while is_open and perf_counter() < end:
                began = perf_counter()
                writer.write(request)
                is_open = await _read_answer(reader)
                latencies.append(perf_counter() - began)
        finally:
            writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> bool:
    """Read one answer; whether another may follow on this connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith((b"http/1.1 200", b"http/1.0 200")):
        raise RuntimeError(f"the server answered {head[:40]!r}")
    length = re.search(rb"content-length: (\d+)", head)
    if length is None:
        raise RuntimeError("an answer without a length")
    await reader.readexactly(int(length[1]))
    return b"connection: close" not in head
