"""Mixed traffic on a server, and its books: what each client got beside what the observers were told.

Each request has an id of its own, which names its kind. A client writes down how the
request ended for it; the app's ledger (``tests/servers/proving.py``) has the states that
hostline told. :data:`FITTING` says which of the two fit each other.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from on_servers import HOST, Answer, Connection, Server, Wire, head, told, until

Outcome = tuple[str, tuple[str, ...]]

NEVER_SEEN: tuple[str, ...] = ()
_COMPLETED, _TIMED_OUT, _EXPIRED = ("ready", "completed"), ("ready", "timed_out"), ("expired",)

#: What a client got, and the states that the observers were told, by the kind of the request.
#: A good one may be late on a machine that is overloaded, as long as both say so.
_GOOD: set[Outcome] = {("200", _COMPLETED), ("504", _TIMED_OUT)}
_GONE: set[Outcome] = {("gone", _COMPLETED), ("gone", _TIMED_OUT), ("gone", NEVER_SEEN)}
FITTING: dict[str, set[Outcome]] = {
    "good": _GOOD,
    "kept": _GOOD,  # on a connection that serves many
    "held": _GOOD,  # for half of its time
    "uploaded": _GOOD,
    "streamed": _GOOD | {("200 cut", _TIMED_OUT)},
    "failed": {("500", _COMPLETED), ("504", _TIMED_OUT)},
    "gulped": {("500", _COMPLETED), ("504", _TIMED_OUT)},  # all the memory that there is
    "waiting": {("504", _TIMED_OUT)},
    "computing": {("504", _TIMED_OUT)},
    "stalled": {("200 cut", _TIMED_OUT), ("504", _TIMED_OUT)},
    "expired": {("503", _EXPIRED)},
    "redirected": {("301", NEVER_SEEN)},
    "left": _GONE,
    "left in mid-response": _GONE,
}
#: How often each kind is asked for, of a hundred.
SHARES = {
    "good": 30,
    "kept": 30,
    "uploaded": 6,
    "streamed": 8,
    "failed": 2,
    "waiting": 2,
    "computing": 2,
    "stalled": 2,
    "expired": 6,
    "redirected": 6,
    "left": 3,
    "left in mid-response": 3,
}
#: Those that ask nothing of the server but to be served.
GOOD_KINDS = ("good", "kept", "held", "uploaded", "streamed")
_TARGETS = {
    "uploaded": "/upload",
    "streamed": "/stream",
    "failed": "/boom",
    "held": "/wait?seconds=0.15",
    "gulped": "/gulp",
    "waiting": "/slow",
    "computing": "/busy",
    "stalled": "/stall",
    "left": "/wait?seconds=0.01",
    "left in mid-response": "/stream?chunks=50",
}


class Client:
    """One after the other, in a thread of its own; ``got`` is what came of each."""

    def __init__(self, server: Server, name: str, shares: dict[str, int], *, keeps_alive: bool) -> None:
        self._server = server
        self._name = name
        self._chance = random.Random(name)
        self._kinds, self._shares = list(shares), list(shares.values())
        self._connection = Connection(server.port, patience=20)
        self._keeps_alive = keeps_alive
        self.got: dict[str, str] = {}

    def ask_until(self, is_over: Callable[[], bool]) -> None:
        """Go on asking until it is over."""
        number = 0
        while not is_over():
            number += 1
            (kind,) = self._chance.choices(self._kinds, self._shares)
            request_id = f"{self._name}.{number}.{kind.replace(' ', '_')}"
            self.got[request_id] = self._ask(kind, request_id)
        self._connection.close()

    def _ask(self, kind: str, request_id: str) -> str:
        if kind.startswith("left"):
            return self._leave(kind, request_id)
        headers = {"Host": HOST, "X-Request-ID": request_id}
        if kind == "expired":
            headers["X-Request-Start"] = str(int((time.time() - 100) * 1000))
        elif kind == "redirected":
            headers["Host"] = "elsewhere.test"
        target = _TARGETS.get(kind, "/ok")
        if kind == "kept" and self._keeps_alive:
            outcome = told_by(self._connection.get(target, headers))
            if outcome == "nothing":  # closed meanwhile, for it had been idle: as every client does
                outcome = told_by(self._connection.get(target, headers))
            return outcome
        body = _pieces() if kind == "uploaded" else None
        if kind == "uploaded":  # not in chunks, which not every server takes
            headers["Content-Length"] = str(sum(map(len, _pieces())))
        with Connection(self._server.port, patience=20) as connection:
            return told_by(connection.get(target, {"Connection": "close", **headers}, body=body))

    def _leave(self, kind: str, request_id: str) -> str:
        """Go away before the answer, or in the middle of it; by a word or without one."""
        try:
            wire = Wire(self._server.port, patience=20)
        except OSError:
            return "gone"
        wire.send(head(_TARGETS[kind], f"Host: {HOST}", f"X-Request-ID: {request_id}"))
        if kind == "left in mid-response":
            wire.receive(b"chunk;")
        wire.leave(abruptly=self._chance.random() < 0.5)
        return "gone"


def _pieces() -> Iterator[bytes]:
    return iter([b"piece;" * 100] * 4)


def told_by(answer: Answer) -> str:
    """An answer in a word or two."""
    if answer.status is None:
        return "nothing"
    return f"{answer.status} cut" if answer.is_cut else str(answer.status)


class Traffic:
    """So many clients at a time; then the books."""

    def __init__(
        self,
        server: Server,
        clients: int,
        shares: dict[str, int] | None = None,
        *,
        keeps_alive: bool = True,
        name: str = "all",
    ) -> None:
        self.server = server
        self._name = name  # by which its requests can be told from those of other traffic
        self._clients = clients
        self._shares = shares or SHARES
        self._keeps_alive = keeps_alive
        self._rounds = 0
        self.got: dict[str, str] = {}

    def run(self, is_over: Callable[[], bool]) -> None:
        """Ask until it is over."""
        self._rounds += 1
        names = [f"{self._name}.{self._rounds}.{number}" for number in range(self._clients)]
        clients = [Client(self.server, name, self._shares, keeps_alive=self._keeps_alive) for name in names]
        threads = [threading.Thread(target=each.ask_until, args=(is_over,)) for each in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in clients:
            self.got |= client.got

    def run_for(self, seconds: float) -> None:
        """Ask for so long."""
        end = time.monotonic() + seconds
        self.run(lambda: time.monotonic() >= end)

    def states(self) -> dict[str, list[str]]:
        """What the observers were told of these requests."""
        states = told(self.server)
        return {each: states[each] for each in states if each.partition(".")[0] == self._name}

    def settle(self, within: float = 30.0) -> bool:
        """Wait until each request that was begun has been told to have ended."""
        return until(lambda: all(states[-1] != "ready" for states in self.states().values()), within)

    def misfits(self) -> list[str]:
        """The requests whose two records do not fit each other; but for those that nobody has served."""
        states = self.states()
        misfits = [f"{each}: told, but never asked for" for each in states if each not in self.got]
        for request_id, outcome in self.got.items():
            record = outcome, tuple(states.get(request_id, ()))
            if record not in FITTING[kind_of(request_id)] and record != ("nothing", NEVER_SEEN):
                misfits.append(f"{request_id}: got {outcome}, told {' '.join(record[1]) or 'nothing'}")
        return misfits

    def unserved(self) -> list[str]:
        """Those that the server has let fall before they came to the guards."""
        states = self.states()
        return [each for each, outcome in self.got.items() if outcome == "nothing" and each not in states]

    def counts(self) -> Counter[str]:
        """How often each outcome was got."""
        return Counter(self.got.values())

    def late(self) -> int:
        """How many good ones got no 200: timed out, for the machine was overloaded, or unserved."""
        return sum(outcome != "200" for each, outcome in self.got.items() if kind_of(each) in GOOD_KINDS)


def kind_of(request_id: str) -> str:
    """What kind a request was of."""
    return request_id.rpartition(".")[2].replace("_", " ")
