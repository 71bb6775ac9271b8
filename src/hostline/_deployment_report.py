"""What ``hostline check`` prints: where each host and scheme leads, and what is wrong with that.

A :class:`Check` asks all its questions when it is made; then it is judged and rendered.

Imports: ``_deployment``, ``_reports``.
"""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hostline._deployment import Answer, Chain, Deployment, End, Place
from hostline._reports import bullets, wrapped

#: No host has such a name, in no reading of it.
MALFORMED_HOST = "a:b:c"
#: Long enough for any wait limit, and short enough not to be taken for nonsense.
FORGED_WAIT = 3600.0

UNKNOWN = (
    "Either a proxy sets X-Request-Start, or nobody looks at it: which, and in which format it is, cannot "
    "be seen from outside. The log can tell: hostline's line with this id, at INFO, has wait= if the app got "
    "a header that it understands. gunicorn's --access-logformat '%({x-request-start}i)s' shows the header "
    "itself."
)


class Finding(NamedTuple):
    """Something that was found; ``id`` is for programs, and stays."""

    id: str
    text: str


class Check:
    """One round of questions to a deployment, and the answers."""

    def __init__(self, deployment: Deployment, hosts: Sequence[str], target: str) -> None:
        places = [Place(scheme, host, target) for host in hosts for scheme in sorted(deployment.addresses)]
        chains = [deployment.follow(place) for place in places]
        #: What nobody has asked for, and is not there, is no fault.
        self.unserved = [chain for chain in chains if _is_unserved(chain, deployment.implied)]
        self.chains = [chain for chain in chains if chain not in self.unserved]
        first = {chain.start.scheme: chain.start for chain in reversed(self.chains)}
        self.malformed = [(place, deployment.ask(place, host=MALFORMED_HOST)) for place in first.values()]
        self.request_id = f"hostline-check-{uuid.uuid4().hex[:12]}"
        self.home = next((chain.last for chain in self.chains if chain.end is End.ANSWERED), None)
        self.forged: Answer | None = None
        if self.home is not None:
            stamp = f"t={(time.time() - FORGED_WAIT) * 1000:.0f}"
            headers = {"X-Request-Start": stamp, "X-Request-ID": self.request_id}
            self.forged = deployment.ask(self.home[0], headers)

    @property
    def problems(self) -> list[Finding]:
        """What is wrong."""
        found = [finding for chain in self.chains for finding in _problems_of(chain)]
        for place, answer in self.malformed:
            if answer.location is not None and MALFORMED_HOST in answer.location:
                text = f"{place.scheme} with the malformed Host {MALFORMED_HOST} is redirected there."
                found.append(Finding("malformed-host-redirected", text))
        return found

    @property
    def warnings(self) -> list[Finding]:
        """What may be meant to be so."""
        return [
            *self._of_unserved(),
            *self._of_hops(),
            *self._of_homes(),
            *self._of_malformed(),
            *self._of_forged(),
        ]

    def _of_unserved(self) -> Iterator[Finding]:
        for chain in self.unserved:
            yield Finding("unserved-scheme", f"{chain.start.url} gives no answer: {chain.last[1].error}.")

    def _of_hops(self) -> Iterator[Finding]:
        for chain in self.chains:
            if chain.end is End.ANSWERED and len(chain.hops) > 2:
                redirects = len(chain.hops) - 1
                yield Finding("hops", f"{chain.start.url} takes {redirects} redirects, where one is enough.")

    def _of_homes(self) -> Iterator[Finding]:
        homes = {place.origin: place for place in filter(None, map(_home, self.chains))}
        urls = ", ".join(f"{place.scheme}://{place.host}" for place in homes.values())
        if len({authority for _, authority in homes}) > 1:
            text = f"More than one host is served, and none is the canonical one: {urls}."
            yield Finding("several-hosts", text)
        elif len(homes) > 1:
            yield Finding("several-schemes", f"The host is served by both schemes: {urls}.")

    def _of_malformed(self) -> Iterator[Finding]:
        for place, answer in self.malformed:
            if answer.status is not None and answer.status < 400 and answer.location is None:
                text = f"{place.scheme} with the malformed Host {MALFORMED_HOST} is served ({answer.status})."
                yield Finding("malformed-host-served", text)

    def _of_forged(self) -> Iterator[Finding]:
        if self.is_forgeable:
            yield Finding(
                "request-start-forgeable",
                "A client's X-Request-Start reaches the app: a request that says that it has waited for an "
                "hour is answered 503. So no proxy sets the header, and nobody knows how long requests wait. "
                "Have the proxy set it; nginx: proxy_set_header X-Request-Start t=${msec};",
            )

    @property
    def is_forgeable(self) -> bool:
        """Whether a header of ours has been believed."""
        usual = self.home and self.home[1].status
        return self.forged is not None and self.forged.status == 503 and usual != 503

    def as_json(self) -> str:
        """For programs."""
        report = {
            "chains": [_chain_as_json(chain) for chain in self.chains],
            "malformed_host": [
                {"scheme": place.scheme, "status": answer.status, "location": answer.location}
                for place, answer in self.malformed
            ],
            "request_start": {
                "url": self.home and self.home[0].url,
                "request_id": self.request_id,
                "status_if_an_hour_old": self.forged and self.forged.status,
                "is_forgeable": self.is_forgeable,
                "note": UNKNOWN,
            },
            "warnings": [each._asdict() for each in self.warnings],
            "problems": [each._asdict() for each in self.problems],
        }
        return json.dumps(report, indent=2)

    def as_text(self) -> str:
        """For people."""
        return "\n".join(self._lines()).strip()

    def _lines(self) -> Iterator[str]:
        for chain in self.chains:
            yield chain.start.url
            for _, answer in chain.hops:
                yield f"  {_answer_as_text(answer)}"
            if chain.end is not End.ANSWERED and chain.end is not End.FAILED:
                yield f"  ({_ENDS[chain.end]})"
        for place, answer in self.malformed:
            yield f"{place.scheme}, Host: {MALFORMED_HOST}\n  {_answer_as_text(answer)}"
        if self.home is not None and self.forged is not None:
            yield f"{self.home[0].url}, with an X-Request-Start that is an hour old, id {self.request_id}"
            yield f"  {_answer_as_text(self.forged)}"
            if not self.is_forgeable:
                yield from wrapped(UNKNOWN, "  ", "  ")
        yield from bullets("Warnings", (f"{each.text} [{each.id}]" for each in self.warnings))
        yield from bullets("Problems", (f"{each.text} [{each.id}]" for each in self.problems))


_ENDS = {
    End.LOOP: "which has been asked already: a loop",
    End.ENDLESS: "no more redirects are followed",
    End.LEFT: "which is not followed: it is another place than those asked",
}


def _is_unserved(chain: Chain, scheme: str | None) -> bool:
    return chain.end is End.FAILED and len(chain.hops) == 1 and chain.start.scheme == scheme


def _home(chain: Chain) -> Place | None:
    """Where the app has answered; an address is no host that could be the canonical one."""
    place, answer = chain.last
    is_served = chain.end is End.ANSWERED and answer.status is not None and answer.status < 400
    return place if is_served and not place.is_ip else None


def _problems_of(chain: Chain) -> Iterator[Finding]:
    url = chain.start.url
    place, answer = chain.last
    if chain.end is End.FAILED:
        yield Finding("no-answer", f"{place.url} gives no answer: {answer.error}.")
    elif chain.end is End.LOOP:
        yield Finding("loop", f"{url} is redirected in a circle.")
    elif chain.end is End.ENDLESS:
        yield Finding("endless", f"{url} is redirected more than {len(chain.hops) - 1} times.")
    elif answer.status is not None and answer.status >= 500:
        yield Finding("server-error", f"{place.url} is answered {answer.status}.")
    for (here, _), (further, _) in zip(chain.hops, chain.hops[1:], strict=False):
        if (here.scheme, further.scheme) == ("https", "http"):
            yield Finding("downgrade", f"{here.url} is redirected from https to http.")


def _answer_as_text(answer: Answer) -> str:
    if answer.status is None:
        return f"no answer: {answer.error}"
    parts = [str(answer.status)]
    if answer.location is not None:
        parts.append(f"-> {ascii(answer.location)[1:-1]}")
        parts.append(f"(Cache-Control: {answer.cache_control or 'none'})")
    return "  ".join(parts)


def _chain_as_json(chain: Chain) -> dict[str, Any]:
    hops = [
        {
            "url": place.url,
            "status": answer.status,
            "location": answer.location,
            "cache_control": answer.cache_control,
            "error": answer.error,
        }
        for place, answer in chain.hops
    ]
    return {"url": chain.start.url, "end": chain.end, "hops": hops}
