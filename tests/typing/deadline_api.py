"""Type-checked, never run: the deadline as users read and bend it."""

import subprocess
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import assert_type

import hostline


@hostline.timeout(60)
def view(number: int, *, name: str = "") -> str:
    assert_type(hostline.remaining(), float | None)
    assert_type(hostline.deadline(), float | None)
    request = hostline.current()
    if request is not None:
        assert_type(request.path, str)
    return name * number


@hostline.no_timeout
async def endpoint(number: int) -> list[int]:
    async with hostline.shield():
        return [number]


@hostline.timeout(timedelta(minutes=1))
def work(child: subprocess.Popen[bytes]) -> None:
    assert_type(hostline.set_timeout(None), bool)
    with hostline.shield(), hostline.interruptible(child.kill):
        child.wait()
    hostline.checkpoint()


assert_type(view(1, name="a"), str)
as_coroutine: Callable[[int], Awaitable[list[int]]] = endpoint
view("1")  # type: ignore[arg-type]
hostline.set_timeout("60")  # type: ignore[arg-type]
hostline.interruptible(1)  # type: ignore[arg-type]
