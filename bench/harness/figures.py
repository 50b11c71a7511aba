"""What recorded runs say: medians, and ratios of runs that were beside each other."""
import collections, dataclasses, statistics
from typing import Callable, Iterable

from .measure import DISTURBED


@dataclasses.dataclass(frozen=True)
class Metric:
    name: str
    read: Callable[[dict], float]  # from what the load tool reports
    robust: bool = False  # others on the machine do not change it


CPU = Metric("CPU µs a delivery", lambda r: r["server"].get("cpu_us_per_delivery", 0))
# A proxy that asks for each client makes the origin send each event as often.
CPU_OF_BOTH = Metric("CPU µs a delivery, with the origin's",
                     lambda r: 1e6 * (r["server"]["cpu_s"] + r["server"]["feed_cpu_s"]) / r["events_in_window"] if r["events_in_window"] else 0)
# What a client's connection carries for an event, with HTTP around it.
WIRE = Metric("bytes a delivery", lambda r: r["bytes_in_window"] / r["events_in_window"] if r["events_in_window"] else 0, robust=True)
P50 = Metric("p50 ms", lambda r: r["latency"]["p50_ms"])
P99 = Metric("p99 ms", lambda r: r["latency"]["p99_ms"])
DELIVERED = Metric("deliveries/s", lambda r: r["deliveries_per_s"])
MEMORY = Metric("RSS bytes a client", lambda r: r["server"]["rss_bytes_per_client"], robust=True)
RSS = Metric("RSS", lambda r: r["server"]["rss_end_bytes"], robust=True)
GROWN = Metric("RSS gained in the window", lambda r: r["server"]["rss_max_bytes"] - r["server"]["rss_start_bytes"], robust=True)
CONNECTING = Metric("seconds to connect all", lambda r: r["connect_all_s"])
CLIENTS = Metric("clients", lambda r: r["connected"], robust=True)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A median of so many values. Calm: of undisturbed runs only, or of a metric
    that others do not change."""
    value: float
    low: float
    high: float
    used: int
    of: int
    calm: bool


@dataclasses.dataclass(frozen=True)
class Case:
    workload: str
    peer: str


class Runs:
    """The runs of one page. Of each workload only the newest session counts, so
    that no table mixes builds or machines."""

    def __init__(self, records: Iterable[dict]):
        records = list(records)
        self.sessions = {r["session"]: r["meta"] for r in records if "meta" in r}
        newest: dict[str, float] = {}
        for r in records:
            if "workload" in r:
                newest[r["workload"]] = max(newest.get(r["workload"], 0), r["session"])
        self.by_case: dict[Case, dict[int, dict]] = collections.defaultdict(dict)
        for r in records:
            if "workload" in r and r["session"] == newest[r["workload"]]:
                self.by_case[Case(r["workload"], r["peer"])][r["rep"]] = r
        used = set(newest.values())
        self.sessions = {s: meta for s, meta in self.sessions.items() if s in used}

    def all(self) -> list[dict]:
        return [r for reps in self.by_case.values() for r in reps.values()]

    def good(self, case: Case) -> dict[int, dict]:
        """The runs that gave a result, by repetition."""
        return {rep: r for rep, r in self.by_case.get(case, {}).items() if "result" in r}

    def figure(self, case: Case, metric: Metric) -> Figure | None:
        runs = self.good(case).values()
        return condense([(metric.read(r["result"]), metric.robust or not disturbed(r)) for r in runs])

    def ratio(self, ours: Case, other: Case, metric: Metric) -> Figure | None:
        """The median of the ratios of runs of the same repetition."""
        return self.pairs(ours, other, metric, lambda a, b: a / b if b else None)

    def difference(self, ours: Case, other: Case, metric: Metric) -> Figure | None:
        return self.pairs(ours, other, metric, lambda a, b: a - b)

    def pairs(self, ours: Case, other: Case, metric: Metric, combine: Callable[[float, float], float | None]) -> Figure | None:
        a, b = self.good(ours), self.good(other)
        values = []
        for rep in sorted(a.keys() & b.keys()):
            value = combine(metric.read(a[rep]["result"]), metric.read(b[rep]["result"]))
            if value is not None:
                values.append((value, metric.robust or not (disturbed(a[rep]) or disturbed(b[rep]))))
        return condense(values)


def disturbed(record: dict) -> bool:
    return record["result"]["server"]["foreign_share"] > DISTURBED


def condense(values: list[tuple[float, bool]]) -> Figure | None:
    """Values that nobody disturbed, or all if there is no such."""
    if not values:
        return None
    calm = [v for v, is_calm in values if is_calm]
    used = calm or [v for v, _ in values]
    return Figure(statistics.median(used), min(used), max(used), len(used), len(values), bool(calm))
