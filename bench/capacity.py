#!/usr/bin/env python3
"""What a client and a delivered event cost, beside Caddy's own reverse_proxy.

Both run in the same Caddy, in turn, under the same load, several times; what
counts is the ratio of the medians, as machines differ and other jobs disturb.
Prints a table in Markdown. Linux; needs Go and python3, and as many open files
as there are clients, twice.

    python3 bench/capacity.py [--reps 5] [--idle 9500] [--seconds 10]
"""
import argparse, json, os, pathlib, signal, socket, statistics, subprocess, sys, tempfile, time

root = pathlib.Path(__file__).resolve().parent.parent

# Each: the directive, with the origin's address.
PEERS = {
    "sse_fanout": "sse_fanout {origin}",
    "reverse_proxy": "reverse_proxy {origin} {{\nflush_interval -1\n}}",
}


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(bin_dir, scratch, directive, clients, rate, seconds):
    """One run: an origin, a Caddy, and clients. Returns the clients' report."""
    origin, site = f"127.0.0.1:{port()}", f"127.0.0.1:{port()}"
    caddyfile = scratch / "Caddyfile"
    caddyfile.write_text(
        "{\nadmin off\npersist_config off\nauto_https off\n}\n"
        f"http://{site} {{\nlog {{\noutput file {scratch}/access.log\n}}\n"
        f"{directive.format(origin=origin)}\n}}\n")
    env = dict(os.environ, XDG_DATA_HOME=str(scratch), XDG_CONFIG_HOME=str(scratch))
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = [
        subprocess.Popen([bin_dir / "load", "origin", "-listen", origin, "-rate", str(rate), "-size", "200"], **quiet),
        subprocess.Popen([bin_dir / "caddy", "run", "--config", caddyfile, "--adapter", "caddyfile"], env=env, **quiet),
    ]
    try:
        host, number = site.split(":")
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex((host, int(number))) == 0:
                    break
            time.sleep(0.1)
        out = subprocess.run(
            [bin_dir / "load", "clients", "-url", f"http://{site}/events", "-n", str(clients),
             "-duration", f"{seconds}s", "-pid", str(started[1].pid)],
            capture_output=True, check=True).stdout
        return json.loads(out)
    finally:
        for p in reversed(started):
            p.send_signal(signal.SIGKILL)
            p.wait()


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--reps", type=int, default=5)
    args.add_argument("--idle", type=int, default=9500, help="clients of the idle workload")
    args.add_argument("--seconds", type=int, default=10)
    args = args.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        subprocess.run(["go", "build", "-o", scratch / "caddy", "./cmd/caddy"], cwd=root, check=True)
        subprocess.run(["go", "build", "-o", scratch / "load", "."], cwd=root / "bench/load", check=True)

        # name: (clients, events/s, what to read from a report)
        workloads = {
            f"memory a client, {args.idle:,} idle, KiB": (args.idle, 0.2, lambda r: r["server"]["rss_bytes_per_client"] / 1024),
            "CPU a delivery, 1,000 clients x 100 events/s, µs": (1000, 100, lambda r: r["server"]["cpu_us_per_delivery"]),
            "CPU a delivery, 1,000 clients x 10 events/s, µs": (1000, 10, lambda r: r["server"]["cpu_us_per_delivery"]),
        }
        print("| | " + " | ".join(PEERS) + " | ratio |\n|---|" + "--:|" * (len(PEERS) + 1))
        for name, (clients, rate, read) in workloads.items():
            figures = {peer: [] for peer in PEERS}
            for _ in range(args.reps):
                for peer, directive in PEERS.items():
                    figures[peer].append(read(run(scratch, scratch, directive, clients, rate, args.seconds)))
            medians = [statistics.median(f) for f in figures.values()]
            print(f"| {name} | " + " | ".join(f"{m:.1f}" for m in medians) + f" | {medians[0] / medians[1]:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
