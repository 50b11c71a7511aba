"""The page, and its plots."""
import datetime, math, pathlib

from . import figures, plot
from .figures import Case, Figure, Metric, Runs
from .goals import KEPT_P99, KEPT_SHARE, all_goals, spread
from .measure import DISTURBED
from .peers import OURS, PEERS
from .workloads import COMPARED, EDGE, EVERY, STEPS, Workload

# How much more than in proportion a cost may grow before the page says so.
LINEAR = 1.05
EVERY_BY_NAME = {w.name: w for w in EVERY}


def plain(peer: str) -> str:
    """A label without Markdown."""
    return PEERS[peer].label.replace("*", "").replace("`", "")


PALETTE = dict(zip(map(plain, PEERS), plot.COLOURS, strict=True))


def number(v: float) -> str:
    return f"{v:,.0f}" if abs(v) >= 100 else f"{v:.1f}" if abs(v) >= 10 else f"{v:.2f}"


def cell(f: Figure | None, scale: float = 1) -> str:
    return ("" if f.calm else "~") + number(f.value / scale) if f else ""


def table(head: list[str], rows: list[list[str]], words: int = 1) -> str:
    """A table whose first columns are words."""
    align = ["---"] * words + ["--:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, align, *rows]) + "\n"


def peers_of(runs: Runs, workloads: list[str]) -> list[str]:
    return [p for p in PEERS if any(runs.by_case.get(Case(w, p)) for w in workloads)]


def lost(runs: Runs, case: Case) -> str:
    """The worst of all runs, of each kind."""
    results = [r["result"] for r in runs.good(case).values()]
    kinds = (("events_missing", "lost"), ("duplicates", "twice"), ("disconnects", "cut off"), ("failed", "refused"))
    worst = ((max((r[key] for r in results), default=0), word) for key, word in kinds)
    return ", ".join(f"{n:,} {word}" for n, word in worst if n) or "none"


def count(runs: Runs, case: Case) -> str:
    good, all_ = runs.good(case), runs.by_case.get(case, {})
    notes = [(sum(map(figures.disturbed, good.values())), "disturbed"), (len(all_) - len(good), "failed")]
    return ", ".join([str(len(all_)), *(f"{n} {word}" for n, word in notes if n)])


def compared(runs: Runs, w: Workload, columns: list[tuple[str, Metric, float]], ratios: list[tuple[str, Metric]]) -> str:
    """One row a peer: its figures, and what sse_fanout has over it."""
    rows = []
    for peer in peers_of(runs, [w.name]):
        case = Case(w.name, peer)
        row = [PEERS[peer].label] + [cell(runs.figure(case, m), scale) for _, m, scale in columns]
        for _, metric in ratios:
            f = runs.ratio(Case(w.name, OURS), case, metric) if peer != OURS else None
            row.append(spread(f) if f else "")
        rows.append(row + [lost(runs, case), count(runs, case)])
    if not rows:
        return ""
    head = ["", *(c[0] for c in columns), *(r[0] for r in ratios), "lost", "runs"]
    return f"\n### {w.name}: {w.title}\n\n" + table(head, rows) + behind(runs, w, ratios)


def behind(runs: Runs, w: Workload, ratios: list[tuple[str, Metric]]) -> str:
    """Says by name what takes less than sse_fanout, where servers are compared that do the same."""
    said, others = [], [p for p in peers_of(runs, [w.name]) if p != OURS]
    if w.peers != EDGE or not others:
        return ""
    for peer in others:
        found = ((title, runs.ratio(Case(w.name, OURS), Case(w.name, peer), metric)) for title, metric in ratios)
        worse = [f"{title.partition(':')[0]} {f.value:.2f} ×" for title, f in found if f and f.value > 1]
        if worse:
            said.append(f"{plain(peer)} ({', '.join(worse)})")
    return f"\nsse_fanout is behind {'; '.join(said)}.\n" if said else "\nsse_fanout is behind none of them.\n"


STEADY = [("clients", figures.CLIENTS, 1), ("deliveries/s", figures.DELIVERED, 1), ("CPU µs a delivery", figures.CPU, 1),
          ("p50 ms", figures.P50, 1), ("p99 ms", figures.P99, 1)]
RSS_COLUMN = ("RSS KB a client", figures.MEMORY, 1000)
OVER = [("CPU: ours / its", figures.CPU), ("p99: ours / its", figures.P99)]
MEMORY_OVER = ("RSS: ours / its", figures.MEMORY)

EDGE_COLUMNS = ([*STEADY[:3], ("with the origin's", figures.CPU_OF_BOTH, 1), *STEADY[3:], RSS_COLUMN], [MEMORY_OVER, *OVER])

COLUMNS = {
    "E1": EDGE_COLUMNS,
    "E2": EDGE_COLUMNS,
    "E1h1": EDGE_COLUMNS,
    "W1": ([("clients", figures.CLIENTS, 1), ("RSS MB with them", figures.RSS, 1e6), RSS_COLUMN], [MEMORY_OVER]),
    "W2": (STEADY, OVER),
    "W3": (STEADY, OVER),
    "W5": ([*STEADY, RSS_COLUMN], [OVER[0], MEMORY_OVER]),
    "W5h1": ([*STEADY, RSS_COLUMN], [OVER[0], MEMORY_OVER]),
    "Z-idle": ([("clients", figures.CLIENTS, 1), ("RSS MB with them", figures.RSS, 1e6), RSS_COLUMN], [MEMORY_OVER]),
    **{f"Z{size}{churn}": ([*STEADY[:2], ("bytes a delivery", figures.WIRE, 1), *STEADY[2:], RSS_COLUMN],
                           [("bytes: plain ours / its", figures.WIRE), ("CPU: ours / its", figures.CPU)])
       for size in ("200", "2K") for churn in ("", "-churn")},
    "C": ([("clients", figures.CLIENTS, 1), ("s until the last has its answer", figures.CONNECTING, 1)], [("ours / its", figures.CONNECTING)]),
}


def ladder(runs: Runs) -> str:
    steps = [f"W4-{s}" for s in STEPS]
    rows = []
    for peer in peers_of(runs, steps):
        row = [PEERS[peer].label]
        for rate, step in zip(STEPS, steps):
            case = Case(step, peer)
            f, cpu, p99, clients = (runs.figure(case, m) for m in (figures.DELIVERED, figures.CPU, figures.P99, figures.CLIENTS))
            missing = lost(runs, case)
            row.append(f"{'' if f.calm else '~'}{plot.number(f.value)}/s ({100 * f.value / rate / clients.value:.0f} %), "
                       f"{number(cpu.value)} µs, {number(p99.value)} ms" + ("" if missing == "none" else f", {missing}") if f else "")
        rows.append(row)
    if not rows:
        return ""
    return ("\n### W4: 1,000 clients, the rate raised\n\nDeliveries a second (and their share of rate × clients), CPU a delivery, p99. A peer that "
            f"has fallen behind (under {KEPT_SHARE:.0%} delivered, or p99 over a second) is not asked for more. sse_fanout has "
            "`history 8192 5m 4MiB` here, as far as the ring of the coalescing writer reaches.\n\n"
            + table(["", *(f"{s:,} events/s" for s in STEPS)], rows)
            + "\n![Deliveries a second as the rate is raised](benchmarks/saturation.svg)\n")


def http3(runs: Runs) -> str:
    """What HTTP/3 costs beside HTTP/2, of each."""
    rows = []
    for peer in peers_of(runs, ["E3-h2", "E3-h3"]):
        h2, h3 = Case("E3-h2", peer), Case("E3-h3", peer)
        row = [PEERS[peer].label]
        for metric, scale in ((figures.MEMORY, 1000), (figures.CPU, 1), (figures.P99, 1)):
            f = runs.ratio(h3, h2, metric)
            row += [cell(runs.figure(h2, metric), scale), cell(runs.figure(h3, metric), scale), spread(f) if f else ""]
        rows.append([*row, lost(runs, h2), lost(runs, h3), count(runs, h3)])
    if not rows:
        return ""
    return ("\n### E3: HTTP/3 beside HTTP/2, 800 clients × 1 event/s, a connection each\n\n"
            + table(["", "RSS KB a client, HTTP/2", "HTTP/3", "HTTP/3 / HTTP/2", "CPU µs a delivery, HTTP/2", "HTTP/3", "HTTP/3 / HTTP/2",
                     "p99 ms, HTTP/2", "HTTP/3", "HTTP/3 / HTTP/2", "lost, HTTP/2", "lost, HTTP/3", "runs"], rows)
            + "\nHTTP/3 is Caddy's (quic-go), in user space. Those of Debian 12, nginx and HAProxy, do not speak it. `servers { protocols h1 h2 }` does without it "
            "([how](operating.md#many-clients)).\n")


def stalling(runs: Runs) -> str:
    rows = []
    for peer in peers_of(runs, ["W6-calm", "W6-stalled"]):
        calm, stalled = Case("W6-calm", peer), Case("W6-stalled", peer)
        f = runs.ratio(stalled, calm, figures.P99)
        ends = [r["result"]["stalled"] for r in runs.good(stalled).values() if r["result"].get("stalled")]
        rows.append([PEERS[peer].label, cell(runs.figure(calm, figures.P99)), cell(runs.figure(stalled, figures.P99)), spread(f) if f else "",
                     cell(runs.figure(calm, figures.GROWN), 2**20), cell(runs.figure(stalled, figures.GROWN), 2**20),
                     ", ".join(f"{sum(e[key] for e in ends)} {word}" for key, word in (
                         ("cut_off_by_server", "cut off"), ("continued_without_gap", "caught up"),
                         ("continued_with_gap", "with a gap"), ("open_but_not_caught_up", "still behind")) if sum(e[key] for e in ends)),
                     lost(runs, stalled), count(runs, stalled)])
    if not rows:
        return ""
    return ("\n### W6: 1,000 clients × 200 events/s of 1 KiB, and 5 % of them stop reading\n\nFigures are of those that read. The stalled read on after "
            "the window, for two seconds; who was cut off can resume with its last id.\n\n"
            + table(["", "p99 ms without", "p99 ms with", "with / without", "RSS gained without, MiB", "with, MiB", "the stalled, of all runs",
                     "lost by others", "runs"], rows))


def growth_points(runs: Runs, group: str, metric: Metric) -> dict[str, list[tuple[float, float]]]:
    """By peer: what the metric is at each x. There are no more topics than clients."""
    series: dict[str, dict[float, float]] = {}
    for w in EVERY:
        for peer in peers_of(runs, [w.name]) if w.group == group else []:
            case = Case(w.name, peer)
            if f := runs.figure(case, metric):
                x = min(w.x, runs.figure(case, figures.CLIENTS).value) if group == "topics" else w.x
                series.setdefault(peer, {})[x] = f.value
    return {peer: list(points.items()) for peer, points in series.items()}


def beyond_first(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """By how many MiB each point has more than the first, where that is enough to
    be told from how one run differs from another."""
    return [(x, mib) for x, y in points[1:] if (mib := (y - points[0][1]) / 2**20) > 2]


def exponent(a: tuple[float, float], b: tuple[float, float]) -> float:
    """k, if the cost grows as the k-th power from a to b."""
    return math.log(b[1] / a[1]) / math.log(b[0] / a[0]) if min(a[1], b[1]) > 0 else 0


def judge(what: str, totals: list[tuple[float, float]]) -> str:
    """Says how a total grows, and between which points more than in proportion."""
    if len(totals) < 2:
        return ""
    whole = exponent(totals[0], totals[-1])
    steps = [(a[0], b[0], exponent(a, b)) for a, b in zip(totals, totals[1:])]
    worse = [f"{plot.number(a)} to {plot.number(b)} (power {k:.2f})" for a, b, k in steps if k > LINEAR]
    verdict = "no worse than linear" if whole <= LINEAR else "**worse than linear**"
    return (f"{what} grows with the power {whole:.2f} from {plot.number(totals[0][0])} to {plot.number(totals[-1][0])}: {verdict}"
            + (f"; more than in proportion from {', '.join(worse)}" if worse else "") + ".")


def growth(runs: Runs, directory: pathlib.Path) -> str:
    sections = [grow_clients(runs, directory), grow_topics(runs, directory), grow_size(runs, directory), grow_history(runs, directory)]
    if not any(sections):
        return ""
    return ("\n## How cost grows\n\nA power of 1 is growth in proportion, 0 none. Each statement is computed from the medians; "
            f"up to {LINEAR} counts as linear.\n" + "".join(sections))


def growth_table(runs: Runs, group: str, columns: list[tuple[str, Metric, float]]) -> str:
    rows = []
    for w in EVERY:
        for peer in peers_of(runs, [w.name]) if w.group == group else []:
            case = Case(w.name, peer)
            rows.append([w.title, PEERS[peer].label, *(cell(runs.figure(case, m), scale) for _, m, scale in columns), count(runs, case)])
    return table(["", "", *(c[0] for c in columns), "runs"], rows, words=2)


def draw(directory: pathlib.Path, name: str, title: str, x: plot.Axis, y: plot.Axis, series: dict[str, list[tuple[float, float]]]) -> str:
    (directory / f"{name}.svg").write_text(plot.lines(title, x, y, {plain(p): s for p, s in series.items()}, PALETTE))
    return f"\n![{title}](benchmarks/{name}.svg)\n\n"


def grow_clients(runs: Runs, directory: pathlib.Path) -> str:
    cpu = growth_points(runs, "clients", figures.CPU)
    if OURS not in cpu:
        return ""
    # Deliveries a second are the same at each point: the cost of an event is the cost of a delivery, times clients.
    said = [judge(f"{plain(p)}: the CPU of one event", [(x, x * y) for x, y in s]) for p, s in cpu.items()]
    return ("\n### Clients\n" + draw(directory, "growth-clients", "CPU a delivery, at 50,000 deliveries a second", plot.Axis("clients", log=True),
                                     plot.Axis("µs"), cpu)
            + growth_table(runs, "clients", [("CPU µs a delivery", figures.CPU, 1), ("p99 ms", figures.P99, 1), RSS_COLUMN])
            + "\n" + "\n".join(said) + "\nWhat the bare writer shows as well is not of this module's making. "
            + "Over the HTTP server, events that come fast are gathered ([how](direct.md#over-the-http-server)), and the fewer there are a second, the less.\n")


def grow_topics(runs: Runs, directory: pathlib.Path) -> str:
    rss = growth_points(runs, "topics", figures.RSS)
    beyond = {p: beyond_first(s) for p, s in rss.items()}
    if not beyond.get(OURS):
        return ""
    said = [judge(f"{plain(p)}: the memory beyond that of the same clients on one topic", s) for p, s in beyond.items()]
    return ("\n### Topics\n" + draw(directory, "growth-topics", "RSS beyond that of the same clients on one topic", plot.Axis("topics", log=True),
                                    plot.Axis("MiB", log=True), beyond)
            + growth_table(runs, "topics", [("RSS MiB", figures.RSS, 2**20), RSS_COLUMN]) + "\n" + "\n".join(said)
            + "\nA topic is a connection to the origin, with all that Caddy holds for one.\n")


def grow_size(runs: Runs, directory: pathlib.Path) -> str:
    cpu = growth_points(runs, "size", figures.CPU)
    if OURS not in cpu:
        return ""
    said = [judge(f"{plain(p)}: the CPU of a delivery", s) for p, s in cpu.items()]
    return ("\n### Size of events\n" + draw(directory, "growth-size", "CPU a delivery", plot.Axis("bytes of an event", log=True),
                                            plot.Axis("µs", log=True), cpu)
            + growth_table(runs, "size", [("deliveries/s", figures.DELIVERED, 1), ("CPU µs a delivery", figures.CPU, 1)]) + "\n" + "\n".join(said) + "\n")


def grow_history(runs: Runs, directory: pathlib.Path) -> str:
    rss, cpu = growth_points(runs, "history", figures.RSS), growth_points(runs, "history", figures.CPU)
    if OURS not in rss:
        return ""
    said = [judge(f"{plain(p)}: the memory beyond that of a history of one", beyond_first(s)) for p, s in rss.items()]
    said += [judge(f"{plain(p)}: the CPU of a delivery", s) for p, s in cpu.items()]
    return ("\n### History\n" + draw(directory, "growth-history", "RSS with a full history of events of 200 bytes", plot.Axis("entries", log=True),
                                     plot.Axis("MiB"), {p: [(x, y / 2**20) for x, y in s] for p, s in rss.items()})
            + growth_table(runs, "history", [("RSS MiB", figures.RSS, 2**20), ("CPU µs a delivery", figures.CPU, 1)])
            + "\n" + "\n".join(filter(None, said)) + "\n")


def chart(runs: Runs, directory: pathlib.Path, name: str, title: str, unit: str, workloads: dict[str, str], metric: Metric, scale: float = 1) -> str:
    groups = {label: {plain(p): f.value / scale for p in peers_of(runs, [w]) if (f := runs.figure(Case(w, p), metric))}
              for w, label in workloads.items()}
    if not any(groups.values()):
        return ""
    (directory / f"{name}.svg").write_text(plot.bars(title, plot.Axis(unit), groups, PALETTE))
    return f"\n![{title}](benchmarks/{name}.svg)\n"


def edge(runs: Runs, directory: pathlib.Path) -> str:
    """Clients as browsers come."""
    alone = {"E1": "HTTP/2, 3,000 × 1/s", "E2": "HTTP/2, 1,000 × 50/s", "E1h1": "HTTP/1.1, 3,000 × 1/s"}
    shown = [chart(runs, directory, "edge-memory", "Resident memory a client, each with a TLS connection", "KB", alone, figures.MEMORY, 1000),
             chart(runs, directory, "edge-cpu", "CPU a delivery, each client with a TLS connection", "µs", alone, figures.CPU),
             chart(runs, directory, "tls", "CPU a delivery over TLS", "µs",
                   {"W5": "HTTP/2, 1,000 streams × 50/s", "W5h1": "HTTP/1.1, 1,000 × 50/s"}, figures.CPU)]
    compared_with = tables(runs, [w for w in COMPARED if w.tls])
    if not compared_with:
        return ""
    return ("\n## How browsers come: TLS, a connection each\n\n"
            "Each browser has a TLS connection of its own, and an EventSource is one stream on it. Beside sse_fanout stand stock Caddy, nginx and HAProxy. "
            "These open a connection to the origin for each client, and the origin sends each event as often: its CPU is in the column that has it. "
            "A ratio above 1 is more than the other takes. In W5 a connection has 100 streams, as from a proxy in front.\n"
            + "".join(shown) + compared_with)


def behind_balancer(runs: Runs, directory: pathlib.Path) -> str:
    shown = [chart(runs, directory, "cpu", "CPU a delivery", "µs", {"W2": "1,000 × 100/s", "W3": "10,000 × 5/s"}, figures.CPU),
             chart(runs, directory, "memory", "Resident memory a client, 10,000 idle", "KB", {"W1": "plain HTTP/1.1"}, figures.MEMORY, 1000)]
    climbed = growth_points(runs, "W4", figures.DELIVERED)
    if climbed:
        draw(directory, "saturation", "Deliveries a second to 1,000 clients", plot.Axis("events a second", log=True),
             plot.Axis("deliveries/s", log=True), climbed)
    compared_with = tables(runs, [w for w in COMPARED if not w.tls])
    return "\n## Behind a load balancer that ends TLS: unencrypted HTTP/1.1\n" + "".join(shown) + compared_with if compared_with else ""


def tables(runs: Runs, workloads: list[Workload]) -> str:
    shown = ""
    for w in workloads:
        if w.name in COLUMNS:
            shown += compared(runs, w, *COLUMNS[w.name])
        elif w.name == "E3-h2":
            shown += http3(runs)
        elif w.name == f"W4-{STEPS[0]}":
            shown += ladder(runs)
        elif w.name == "W6-calm":
            shown += stalling(runs)
    return shown


def goals(runs: Runs) -> str:
    words = {True: "met", False: "**not met**", None: "not measured"}
    rows = [[g.text, g.measured, words[g.met]] for g in all_goals(runs)]
    met = sum(r[2] == "met" for r in rows)
    return f"## Goals\n\n{met} of {len(rows)} met.\n\n" + table(["goal", "measured", ""], rows, words=3)


def method(runs: Runs) -> str:
    """How the figures came about: from what the sessions say of themselves."""
    text = ""
    for session, meta in runs.sessions.items():
        m = meta["machine"]
        day = datetime.datetime.fromtimestamp(session, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        text += (f"\n- {day}, `{meta['command']}`: {', '.join(f'{k} {v}' for k, v in meta['versions'].items())}. "
                 f"{'Virtual machine' if m['virtual'] else 'Machine'} with {m['cores']} cores ({m['cpu']}), {m['memory_gib']} GiB, Linux {m['kernel']}, {m['system']}, "
                 f"{m['open_files']:,} open files a process; " + ("a network namespace of its own" if meta["unshared"] else "the loopback shared with others") + "."
                 + "".join(f" Without {plain(p)}: {why}." for p, why in meta["missing"].items()))
    measured = [r for r in runs.all() if r["workload"] != "publish"]
    good = [r for r in measured if "result" in r]
    busiest = max((r["result"]["load_tool_cpu_s"] / r["result"]["window_s"] for r in good if not EVERY_BY_NAME[r["workload"]].tls), default=0)
    return (f"## Method\n{text}\n\n"
            f"{len(measured)} runs, of which {sum(map(figures.disturbed, good))} were disturbed (other jobs used more than {DISTURBED:.0%} of the machine "
            f"during the window) and {len(measured) - len(good)} failed. CPU is user and system time of the whole process tree of the server; "
            "memory is resident memory beyond that of the empty server, or all of it where the heading says RSS with them. Server, origin or publisher, and "
            "clients share the machine and its loopback: latency is what remains when all three have had their turns. Under load, the clients and what "
            "serves them get half of the machine each, if they need it (sched_autogroup, where it is on). The clients are one thread; "
            f"the most that it used in any window is {busiest:.0%} of a core (with TLS, they are many).\n\n"
            "In each repetition the peers run one after the other; a ratio is of two runs of the same repetition, and what is given is the median of "
            "these ratios (the smallest to the largest, how many of how many). Pairs that nobody disturbed count; if there is none, all do, and a ~ says so. "
            "Memory counts always. Those who open a connection to the origin for each client hold two descriptors a client, and get "
            "as many clients as the limit of open files allows. Both Caddys have their access log on; nginx and HAProxy have none. nginx has one worker, "
            "HAProxy one thread.\n\n"
            "The bare writer ([floor.c](../bench/floor/floor.c)) is the least that can be done on this kernel: a loop in C over all sockets, without HTTP. It sends "
            "each event with one system call to each client, or, coalescing, all that a client lacks at once. "
            "nginx + nchan is a hub: events are published to it, pipelined on one connection.\n")


def page(runs: Runs, docs: pathlib.Path) -> pathlib.Path:
    """Writes benchmarks.md and its plots. Returns the page's path."""
    directory = docs / "benchmarks"
    directory.mkdir(parents=True, exist_ok=True)
    parts = ["# Benchmarks\n\nWritten by `python3 bench/run.py` ([how](../bench/README.md)); not edited by hand.\n"]
    if any(meta["quick"] for meta in runs.sessions.values()):
        parts.append("\n**From a quick run, which shows that all parts work, and nothing else.**\n")
    parts += ["\nEvents have 200 bytes where nothing else is said. What the columns mean is under [Method](#method); "
              "what was aimed at, under [Goals](#goals).\n",
              edge(runs, directory), behind_balancer(runs, directory), growth(runs, directory), "\n" + goals(runs), "\n" + method(runs)]
    path = docs / "benchmarks.md"
    path.write_text("".join(parts))
    return path
