#!/usr/bin/env python3
"""Measures sse_fanout beside what else there is, and writes docs/benchmarks.md.

    python3 bench/run.py                     the comparison, five repetitions
    python3 bench/run.py --growth            how cost grows, too
    python3 bench/run.py --only W2,W3 --peers sse_fanout,floor-write
    python3 bench/run.py --quick             shows that all parts work
    python3 bench/run.py --from runs.jsonl   makes the page again from recorded runs

Builds this module, a Caddy without it and the bare writer; takes nginx, HAProxy and
nginx with nchan if they are installed (Debian: nginx, haproxy, openssl,
libnginx-mod-nchan). Needs Linux, Go, a C compiler and Python 3.11. As root, it runs
in a network namespace of its own.
"""
import argparse, collections, dataclasses, json, os, pathlib, re, signal, subprocess, sys, tempfile, time

from harness import figures, machine, measure, report
from harness.build import ROOT, Tools, build
from harness.peers import OPTIONAL, OURS, PEERS
from harness.workloads import COMPARED, EVERY, GROUPS, Workload, smaller

PUBLISH = "publish"  # a Go benchmark, not a workload


def cache() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "sse_fanout"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=5, help="repetitions (default: %(default)s)")
    parser.add_argument("--window", type=float, default=1, help="factor for the length of all windows (default: %(default)s)")
    parser.add_argument("--patience", type=float, default=10,
                        help="seconds that each run waits at most for others to leave the machine alone (default: %(default)s)")
    parser.add_argument("--only", type=listed([*GROUPS, PUBLISH]), help=f"workloads: {','.join([*GROUPS, PUBLISH])}")
    parser.add_argument("--peers", type=listed(list(PEERS)), help=f"peers: {','.join(PEERS)} (default: all but {','.join(OPTIONAL)})")
    parser.add_argument("--growth", action="store_true", help="measure how cost grows, too: clients, topics, size, history")
    parser.add_argument("--quick", action="store_true", help="one repetition, short windows, few clients; the page is thrown away unless --docs is given")
    parser.add_argument("--out", type=pathlib.Path, default=cache() / "runs.jsonl", help="where runs are recorded (default: %(default)s)")
    parser.add_argument("--docs", type=pathlib.Path, help="where benchmarks.md is written (default: docs)")
    parser.add_argument("--from", dest="recorded", type=pathlib.Path, nargs="+", help="make the page from these records, without running anything")
    return parser.parse_args()


def listed(known: list[str]):
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [n for n in names if n not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return names
    return parse


def chosen(args: argparse.Namespace) -> list[Workload]:
    wanted = args.only or [w.group for w in (EVERY if args.growth else COMPARED)]
    workloads = [w for w in EVERY if w.group in wanted]
    if args.quick:
        return [smaller(w) for w in workloads]
    return [dataclasses.replace(w, seconds=max(1, w.seconds * args.window)) for w in workloads]


def command_line() -> str:
    """As typed, less where files are on this machine."""
    return "python3 bench/run.py " + re.sub(r"--(out|docs)[ =]\S+ ?", "", " ".join(sys.argv[1:])).strip()


class Record:
    """The file of runs. Each line knows its session."""

    def __init__(self, path: pathlib.Path):
        self.path, self.session = path, time.time()
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, **fields) -> None:
        with open(self.path, "a") as f:
            f.write(json.dumps({"session": self.session, **fields}) + "\n")


def read_records(paths: list[pathlib.Path]) -> list[dict]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def fell_behind(record: dict, w: Workload) -> bool:
    r = record.get("result")
    return not r or r["deliveries_per_s"] < 0.9 * w.rate * r["connected"] or r["latency"]["p99_ms"] > 1000


def summary(record: dict) -> str:
    if not (r := record.get("result")):
        return f"failed: {record['error']}"
    s = r["server"]
    return (f"{r['connected']} clients in {r['connect_all_s']:.2f} s, {r['deliveries_per_s']:.0f}/s ({100 * r['delivered_share']:.0f} %), "
            f"{s.get('cpu_us_per_delivery', 0):.2f} µs, p99 {r['latency']['p99_ms']:.1f} ms, {s['rss_bytes_per_client']} B a client, "
            f"lost {r['events_missing']}, cut off {r['disconnects']}, others used {100 * s['foreign_share']:.0f} %")


def measure_all(tools: Tools, workloads: list[Workload], peers: list[str], reps: int, patience: float, record: Record) -> None:
    open_files = machine.raise_file_limit()
    behind: dict[int, set[str]] = collections.defaultdict(set)
    # Steps of a ladder alternate between peers as well, so that what is compared is close in time.
    for group in dict.fromkeys(w.group for w in workloads):
        for rep in range(reps):
            for w in (w for w in workloads if w.group == group):
                for name in (p for p in peers if p in w.peers and p not in tools.missing):
                    if w.ladder and name in behind[rep]:
                        continue
                    r = measure.run(tools, name, w, open_files, patience)
                    record.add(rep=rep, **r)
                    print(f"{w.name:14} {rep + 1}/{reps} {name:15} {summary(r)}", flush=True)
                    # Ours and what its goal is measured by go on to the end.
                    if w.ladder and fell_behind(r, w) and name not in (OURS, "floor-coalesce"):
                        behind[rep].add(name)


def measure_publish(reps: int, record: Record) -> None:
    """The cost of an event that nobody waits for, by the Go benchmark."""
    done = subprocess.run(["go", "test", "-run", "^$", "-bench", "BenchmarkPublish/size=200B/subs=0/behind$", "-count", str(reps), "./internal/hub"],
                          cwd=ROOT, check=True, capture_output=True, text=True)
    found = re.findall(r"([\d.]+) ns/op\s+(\d+) B/op\s+(\d+) allocs/op", done.stdout)
    for rep, (ns, size, allocations) in enumerate(found):
        record.add(rep=rep, peer=OURS, workload=PUBLISH, result={"ns": float(ns), "bytes": int(size), "allocations": int(allocations)})
    print(f"{PUBLISH:14} ns, bytes, allocations an event: {found}", flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    args = arguments()
    if args.recorded:
        print(report.page(figures.Runs(read_records(args.recorded)), args.docs or ROOT / "docs"))
        return 0
    workloads, reps = chosen(args), 1 if args.quick else args.reps
    peers = args.peers or [p for p in PEERS if p not in OPTIONAL]
    with tempfile.TemporaryDirectory(prefix="bench-build-") as scratch:
        tools = build({p for p in peers if any(p in w.peers for w in workloads)}, pathlib.Path(scratch))
        for peer, why in tools.missing.items():
            print(f"without {peer}: {why}", flush=True)
        record = Record(args.out)
        if PUBLISH in (args.only or [PUBLISH]) and OURS in peers:
            measure_publish(reps, record)
        unshared = machine.leave_network()
        machine.raise_file_limit()
        record.add(meta={"command": command_line(), "versions": tools.versions, "missing": tools.missing, "unshared": unshared,
                         "machine": machine.describe(), "quick": args.quick})
        measure_all(tools, workloads, peers, reps, 0 if args.quick else args.patience, record)
        docs = args.docs or (pathlib.Path(scratch) if args.quick else ROOT / "docs")
        path = report.page(figures.Runs(r for r in read_records([args.out]) if r["session"] == record.session), docs)
        print(f"runs: {args.out}\npage: {path}")
    failed = any("error" in r for r in read_records([args.out]) if r["session"] == record.session)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
