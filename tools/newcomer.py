"""usage: newcomer.py: go the tutorial's way from a clone to a guarded app, as it is typed there, and time it.

Three things are other ones than in the text: what is cloned is this checkout, as it is committed;
python3 is the Python that runs this; and the port is a free one.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "servers")]

from launch import free_port, get, until  # noqa: E402

from instructions import PORT, request_of  # noqa: E402

ADDRESS = "https://github.com/hostline/hostline"
_BLOCK = re.compile(r"^## From a clone to a guarded app\n.*?^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def main() -> None:
    port = str(free_port())
    [block] = _BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())
    *commands, serve, ask = block.splitlines()
    other = {
        ADDRESS: shlex.quote(str(ROOT)) + " hostline",
        "python3": shlex.quote(sys.executable),
        PORT: port,
    }
    with tempfile.TemporaryDirectory() as folder:
        here, began = Path(folder), time.monotonic()
        for command in commands:
            here = _type(command, other, here)
        server = subprocess.Popen(
            ["bash", "-c", f"exec env {_replaced(serve, other)}"], cwd=here, env=_own(folder)
        )
        try:
            answer = _answer(ask, int(port), server)
        finally:
            server.terminate()
            server.wait()
        seconds = time.monotonic() - began
    assert answer.status == request_of(ask).status, answer
    print(f"hostline: {len(commands) + 2} commands, {seconds:.0f} s in all; the last: {ask}")


def _type(command: str, other: dict[str, str], here: Path) -> Path:
    """Run it, say how long it took, and where one is afterwards."""
    began = time.monotonic()
    if command.startswith("cd "):
        return here / command.removeprefix("cd ")
    subprocess.run(["bash", "-c", _replaced(command, other)], cwd=here, check=True, stdout=subprocess.DEVNULL)
    print(f"{time.monotonic() - began:5.1f} s  {command}")
    return here


def _own(folder: str) -> dict[str, str]:
    """Where gunicorn has its control socket, it has no other one's."""
    return {**os.environ, "HOME": folder}


def _replaced(command: str, other: dict[str, str]) -> str:
    for text, replacement in other.items():
        command = command.replace(text, replacement)
    return command


def _answer(ask: str, port: int, server: subprocess.Popen):
    asked = request_of(ask)
    headers = {"Host": f"{asked.host}:{port}"}
    assert until(lambda: server.poll() is not None or get(port, "/", headers).status == 200), (
        "it does not serve"
    )
    return get(port, asked.path, headers)


if __name__ == "__main__":
    main()
