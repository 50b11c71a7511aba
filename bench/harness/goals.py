"""The goals, and whether the runs meet them."""
import dataclasses
from typing import Callable

from . import figures
from .figures import Case, Figure, Metric, Runs
from .peers import OURS, PEERS
from .workloads import STEPS

RIVALS = ("reverse_proxy", "nchan")
# A step of the ladder counts as kept if this share of the events was delivered, this soon.
KEPT_SHARE, KEPT_P99 = 0.9, 100
# What a stalled client may cost beside the log: its position, its socket's bookkeeping.
STALLED_BYTES, LOG_BYTES = 16 << 10, 4 << 20


@dataclasses.dataclass(frozen=True)
class Goal:
    text: str
    measured: str
    met: bool | None  # None: not measured


def spread(f: Figure, digits: int = 2) -> str:
    """A median, with the smallest and the largest of how many pairs."""
    mark = "" if f.calm else "~"
    between = f"{f.low:.{digits}f} to {f.high:.{digits}f}, " if f.used > 1 else ""
    return f"{mark}{f.value:.{digits}f} ({between}{f.used} of {f.of})"


def at_most(text: str, bound: float, f: Figure | None, note: str = "") -> Goal:
    return Goal(text, spread(f) + note if f else "not measured", f.value <= bound if f else None)


def ratio(runs: Runs, workload: str, metric: Metric, other: str) -> Figure | None:
    return runs.ratio(Case(workload, OURS), Case(workload, other), metric)


def below_all(runs: Runs, text: str, metric: Metric) -> Goal:
    """Against the peer that comes closest, in either workload."""
    found = [(f, w, p) for w in ("W2", "W3") for p in RIVALS if (f := ratio(runs, w, metric, p))]
    if not found:
        return Goal(text, "not measured", None)
    f, workload, peer = max(found, key=lambda item: item[0].value)
    return Goal(text, f"{spread(f)} beside {PEERS[peer].label} in {workload}", f.value < 1)


def most_in_time(runs: Runs, peer: str) -> float:
    best = 0.0
    for step in STEPS:
        case = Case(f"W4-{step}", peer)
        delivered, p99, clients = (runs.figure(case, m) for m in (figures.DELIVERED, figures.P99, figures.CLIENTS))
        if delivered and delivered.value >= KEPT_SHARE * step * clients.value and p99.value <= KEPT_P99:
            best = max(best, delivered.value)
    return best


def most(runs: Runs, peer: str) -> float:
    found = [runs.figure(Case(f"W4-{step}", peer), figures.DELIVERED) for step in STEPS]
    return max((f.value for f in found if f), default=0.0)


def times_more(runs: Runs, text: str, bound: float, peer: str, of_peer: Callable[[Runs, str], float]) -> Goal:
    if not most(runs, OURS) or not most(runs, peer):
        return Goal(text, "not measured", None)
    ours, other = most_in_time(runs, OURS), of_peer(runs, peer)
    if not other:
        return Goal(text, "it was in time at no rate" if ours else "neither was in time at any rate", ours > 0)
    return Goal(text, f"{ours / other:.2f}", ours / other >= bound)


def saturation(runs: Runs) -> list[Goal]:
    top = f"W4-{STEPS[-1]}"
    share = ratio(runs, top, figures.DELIVERED, "floor-coalesce")
    p99 = runs.figure(Case(top, OURS), figures.P99)
    return [
        Goal("1,000 clients × 5,000 events/s: deliveries/s at least 0.8 × the coalescing bare writer's",
             spread(share) if share else "not measured", share.value >= 0.8 if share else None),
        Goal("the same: p99 under 100 ms", f"{spread(p99, 0)} ms" if p99 else "not measured", p99.value < 100 if p99 else None),
        times_more(runs, f"most deliveries/s with p99 within {KEPT_P99} ms: at least 2 × reverse_proxy's", 2, "reverse_proxy", most_in_time),
        times_more(runs, "the same: at least 20 × the most that nginx + nchan delivered, in time or not", 20, "nchan", most),
    ]


def slow_readers(runs: Runs) -> list[Goal]:
    calm, stalled = Case("W6-calm", OURS), Case("W6-stalled", OURS)
    grown = runs.figure(stalled, figures.GROWN)
    clients = runs.figure(stalled, figures.CLIENTS)
    bound = LOG_BYTES + STALLED_BYTES * 0.05 * (clients.value if clients else 0)
    return [
        at_most("5 % stalled: p99 of the others at most 1.2 × that without them", 1.2, runs.ratio(stalled, calm, figures.P99)),
        Goal(f"5 % stalled: RSS grows by at most the log's bound (4 MiB) and {STALLED_BYTES >> 10} KiB for each of them",
             f"{grown.value / 2**20:.1f} MiB of {bound / 2**20:.1f}" if grown else "not measured",
             grown.value <= bound if grown else None),
    ]


def compression(runs: Runs) -> list[Goal]:
    """Beside a compressor for each client, at the same level."""
    found = []
    for w, what, share in (("Z200", "200 bytes", 0.9), ("Z2K", "2 KiB", 0.9), ("Z200-churn", "200 bytes, 5 % coming back", 0.85), ("Z2K-churn", "2 KiB, 5 % coming back", 0.85)):
        zipped, text = Case(w, "compress"), f"compressed, {what}"
        less = runs.ratio(Case(w, "encode"), zipped, figures.WIRE)
        found += [
            Goal(f"{text}: the ratio at least {share} × that of a compressor for each client", spread(less) if less else "not measured",
                 less.value >= share if less else None),
            at_most(f"{text}: CPU a delivery at most 1.15 × that without", 1.15, runs.ratio(zipped, Case(w, OURS), figures.CPU)),
            at_most(f"{text}: CPU a delivery at most 0.25 × that of a compressor for each client", 0.25, runs.ratio(zipped, Case(w, "encode"), figures.CPU)),
        ]
    more = runs.difference(Case("Z-idle", "compress"), Case("Z-idle", OURS), figures.MEMORY)
    return [*found, Goal("compressed, 10,000 idle, with the compressor: at most 205 bytes RSS a client more than without",
                         f"{more.value:,.0f}" if more else "not measured", more.value <= 205 if more else None)]


def one_upstream(runs: Runs) -> Goal:
    held = [r["origin"]["max_connections"] for w in ("W1", "W2", "W3", "C") for r in runs.good(Case(w, OURS)).values()]
    return Goal("one connection to the origin, whatever the number of clients", f"{max(held)}" if held else "not measured",
                max(held) == 1 if held else None)


def publishing(runs: Runs) -> Goal:
    text = "a publish that nobody waits for: at most 1 µs, and no allocation beside the log's"
    found = [r["result"] for r in runs.by_case.get(Case("publish", OURS), {}).values() if "result" in r]
    if not found:
        return Goal(text, "not measured", None)
    ns = sorted(r["ns"] for r in found)[len(found) // 2]
    allocations = max(r["allocations"] for r in found)
    return Goal(text, f"{ns / 1000:.2f} µs, {allocations} allocations", ns <= 1000 and allocations == 0)


def quiet_topics(runs: Runs) -> Goal:
    text = "10,000 quiet topics with a client each: at most 64 MB beyond the clients"
    case = Case("topics-10000", OURS)
    f, clients = runs.difference(case, Case("topics-1", OURS), figures.RSS), runs.figure(case, figures.CLIENTS)
    if not f:
        return Goal(text, "not measured", None)
    return Goal(text, f"{f.value / 1e6:.0f} MB ({clients.value:,.0f} topics)", f.value <= 64e6 * clients.value / 10_000)


def all_goals(runs: Runs) -> list[Goal]:
    memory = runs.figure(Case("W1", OURS), figures.MEMORY)
    return [
        at_most("1,000 × 100/s: CPU a delivery at most 1.10 × the bare writer's", 1.10, ratio(runs, "W2", figures.CPU, "floor-write")),
        at_most("10,000 × 5/s: CPU a delivery at most 1.15 × the bare writer's", 1.15, ratio(runs, "W3", figures.CPU, "floor-write")),
        at_most("1,000 × 100/s: p99 at most 1.5 × the bare writer's", 1.5, ratio(runs, "W2", figures.P99, "floor-write")),
        at_most("10,000 × 5/s: p99 at most 1.5 × the bare writer's", 1.5, ratio(runs, "W3", figures.P99, "floor-write")),
        below_all(runs, "CPU a delivery below every peer's in both", figures.CPU),
        below_all(runs, "p99 below every peer's in both", figures.P99),
        Goal("10,000 idle over plain HTTP/1.1, access log on: at most 2,500 bytes RSS a client",
             f"{memory.value:,.0f}" if memory else "not measured", memory.value <= 2500 if memory else None),
        *saturation(runs),
        *slow_readers(runs),
        *compression(runs),
        one_upstream(runs),
        publishing(runs),
        *(at_most(f"{what}: {metric.name} at most {bound} × reverse_proxy's", bound, ratio(runs, w, metric, "reverse_proxy"))
          for w, what in (("E1", "TLS and HTTP/2, a connection each, 3,000 × 1/s"), ("E2", "TLS and HTTP/2, a connection each, 1,000 × 50/s"),
                          ("E1h1", "TLS and HTTP/1.1, 3,000 × 1/s"), ("W5", "TLS and HTTP/2"), ("W5h1", "TLS and HTTP/1.1"))
          for metric, bound in ((figures.CPU, 0.6), (figures.MEMORY, 0.5))),
        at_most("10,000 clients connect in at most 0.5 × the time of reverse_proxy", 0.5, ratio(runs, "C", figures.CONNECTING, "reverse_proxy")),
        quiet_topics(runs),
    ]
