"""How much each part measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Counts, and seconds."""

    rounds: int
    requests: int  #: of one variant in one round
    in_flight: tuple[int, ...]
    deadlines: int
    due_in: float  #: to enter them all before the first is due
    hung_requests: int
    aborts: int
    bursts: int
    burst: float


FULL = Scale(
    rounds=600,
    requests=200,
    in_flight=(1, 100, 10_000, 100_000),
    deadlines=100_000,
    due_in=1.5,
    hung_requests=10_000,
    aborts=200,
    bursts=10,
    burst=1.0,
)
# Everything once: that it runs, not what it finds.
SMOKE = Scale(
    rounds=2,
    requests=5,
    in_flight=(1, 10, 100),
    deadlines=1_000,
    due_in=0.2,
    hung_requests=50,
    aborts=3,
    bursts=1,
    burst=0.2,
)
