#!/usr/bin/env python3
"""Measures a fleet of two nodes beside a single node, and prints tables.

    python3 bench/fleet.py
    python3 bench/fleet.py --only latency --centrifugo ./centrifugo

Builds this module, the NATS server and the load tool, and starts all of it on this
machine. Needs Linux, Go and Python 3.11. As root, it runs in a network namespace of its
own. Centrifugo, if one is named, runs as two nodes with NATS as their broker.
"""
import argparse, contextlib, json, os, pathlib, socket, subprocess, sys, tempfile, time, urllib.parse, urllib.request

from harness import machine
from harness.build import ROOT, Tools, build, go

HOST = "fleet.test"  # all nodes are asked for the same
SECRET = "the nodes of a benchmark know this"
PARTS = ("latency", "one", "many", "idle", "centrifugo")
TICK = os.sysconf("SC_CLK_TCK")


class Process:
    def __init__(self, command: list[str], log: pathlib.Path):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=out)

    @property
    def pid(self) -> int:
        return self.child.pid

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def cpu(self) -> float:
        """Seconds of user and system time."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> float:
        """Resident, in MiB."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0


class Stage:
    """Everything that runs for one setup. It ends with the context."""

    def __init__(self, tools: Tools, scratch: pathlib.Path):
        self.tools, self.ended = tools, contextlib.ExitStack()
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=scratch))
        self.count = 0

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.close()

    def start(self, name: str, *command: str) -> Process:
        self.count += 1
        process = Process([self.tools.programs[name], *command], self.dir / f"{self.count}-{name}.log")
        self.ended.callback(process.stop)
        return process

    def brokers(self, count: int) -> tuple[list[str], list[Process]]:
        """NATS servers, with their storage in files."""
        ports = [(machine.free_port(), machine.free_port()) for _ in range(count)]
        routes = ", ".join(f"nats://127.0.0.1:{cluster}" for _, cluster in ports)
        processes = []
        for i, (port, cluster) in enumerate(ports):
            config = f"server_name: n{i}\nlisten: 127.0.0.1:{port}\njetstream {{ store_dir: \"{self.dir}/n{i}\" }}\n"
            if count > 1:
                config += f"cluster {{ name: fleet, listen: 127.0.0.1:{cluster}, routes: [{routes}] }}\n"
            file = self.dir / f"n{i}.conf"
            file.write_text(config)
            processes.append(self.start("nats", "-c", str(file)))
        for port, _ in ports:
            await_port(port)
        return [f"nats://127.0.0.1:{port}" for port, _ in ports], processes

    def origin(self, rate: float) -> tuple[str, Process]:
        address = f"127.0.0.1:{machine.free_port()}"
        burst = max(1, round(rate / 200))
        process = self.start("load", "origin", "-listen", address, "-rate", str(rate), "-burst", str(burst))
        await_port(int(address.rpartition(":")[2]))
        return address, process

    def node(self, name: str, origin: str, brokers: list[str]) -> "Node":
        """A node of a fleet, or one of its own if there are no brokers."""
        node = Node(machine.free_port(), machine.free_port())
        fleet = ""
        if brokers:
            fleet = (f"\tsse_fanout_fleet {' '.join(brokers)} {{\n\t\tnode {name}\n\t\treplicas {len(brokers)}\n"
                     f"\t\tsecret \"{SECRET}\"\n\t}}\n")
        file = self.dir / f"{name}.caddyfile"
        file.write_text(f"{{\n\tadmin 127.0.0.1:{node.admin}\n\tauto_https off\n\tpersist_config off\n\tlog {{\n\t\tlevel WARN\n\t}}\n{fleet}}}\n"
                        f"http://:{node.port} {{\n\tsse_fanout {origin} {{\n\t\tname events\n\t\tmax_topics 20000\n"
                        f"{'		fleet' + chr(10) if brokers else ''}\t}}\n}}\n")
        node.process = self.start("ours", "run", "--config", str(file), "--adapter", "caddyfile")
        await_port(node.port)
        return node

    def clients(self, url: str, count: int, settle: float, window: float, *more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.tools.programs["load"], "clients", "-url", url, "-n", str(count), "-settle", f"{settle}s", "-duration", f"{window}s",
             "-header", f"Host:{HOST}", *more], stdout=subprocess.PIPE, text=True)


class Node:
    process: Process

    def __init__(self, port: int, admin: int):
        self.port, self.admin = port, admin

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def roles(self) -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/sse_fanout/fleet") as answer:
            return [topic["role"] for fleet in json.load(answer) for topic in fleet["topics"]]


def await_port(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")


def report(child: subprocess.Popen, strict: bool = True) -> dict:
    out, _ = child.communicate()
    if child.returncode:
        raise RuntimeError("the load tool has failed")
    found = json.loads(out)
    if strict and (found["failed"] or found["disconnects"]):
        raise RuntimeError(f"clients were lost: {found['failed']} not connected, {found['disconnects']} disconnected: {found.get('first_error')}")
    return found


def table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{' --- |' + ' --: |' * (len(columns) - 1)}")
    for row in rows:
        print("| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row) + " |")
    sys.stdout.flush()


def latency(tools: Tools, scratch: pathlib.Path, window: float) -> None:
    """A single node, the holder and a follower at the same time, 100 clients each."""
    rate, count = 100, 100
    for servers in (1, 3):
        with Stage(tools, scratch) as stage:
            origin, _ = stage.origin(rate)
            urls, brokers = stage.brokers(servers)
            nodes = {"single node": stage.node("single", origin, []), "holder": stage.node("first", origin, urls),
                     "follower": stage.node("second", origin, urls)}
            children = {}
            for i, (name, node) in enumerate(nodes.items()):
                children[name] = stage.clients(node.url, count, 15 - 6 * i, window)
                time.sleep(6 if i < 2 else 3.5)  # all windows begin together
            if [nodes["holder"].roles(), nodes["follower"].roles()] != [["holder"], ["follower"]]:
                raise RuntimeError("the first node does not hold the lease")
            everyone = [node.process for node in nodes.values()] + brokers
            before = [p.cpu() for p in everyone]
            time.sleep(window - 1)
            used = [(p.cpu() - b) / (window - 1) * 100 for p, b in zip(everyone, before)]
            found = {name: report(child) for name, child in children.items()}
            base = found["single node"]["latency"]
            rows = []
            for i, (name, f) in enumerate(found.items()):
                rows.append([name, f["latency"]["p50_ms"], f["latency"]["p50_ms"] / base["p50_ms"], f["latency"]["p99_ms"],
                             f["latency"]["p99_ms"] / base["p99_ms"], used[i], everyone[i].memory()])
            for i, b in enumerate(brokers):
                rows.append([f"NATS {i + 1}", "", "", "", "", used[3 + i], b.memory()])
            table(f"Origin to client, 1 topic × {rate} events/s, {count} clients a node; {servers} NATS server{'s' * (servers > 1)}",
                  ["", "p50 ms", "/ single", "p99 ms", "/ single", "CPU % of a core", "RSS MiB"], rows)


def holds(found: dict) -> bool:
    """Whether a node has kept up."""
    lost = found["failed"] + found["disconnects"] + found["events_missing"]
    return not lost and found["delivered_share"] > 0.98 and found["latency"]["p99_ms"] < 500


def most(tools: Tools, scratch: pathlib.Path, window: float, topics: int, rates: list[int]) -> None:
    """The highest rate of events that all nodes keep up with."""
    rows = []
    for name, servers in (("single node", 0), ("two nodes, 1 NATS server", 1), ("two nodes, 3 NATS servers", 3)):
        best = None
        for rate in rates:
            with Stage(tools, scratch) as stage:
                origin, _ = stage.origin(rate / topics)
                urls, brokers = stage.brokers(servers) if servers else ([], [])
                nodes = [stage.node("first", origin, urls)] + ([stage.node("second", origin, urls)] if servers else [])
                more = ["-topics", str(topics)] if topics > 1 else []
                children = []
                for i, node in enumerate(nodes):
                    children.append(stage.clients(node.url, topics, 12 - 5 * i if topics > 1 else 7 - 3 * i, window, *more))
                    time.sleep(5 if topics > 1 else 3)
                found = [report(child, strict=False) for child in children]
                if all(holds(f) for f in found):
                    best = [name, f"{rate:,}", *(found[i]["latency"][q] if i < len(found) else "" for i in (0, 1) for q in ("p50_ms", "p99_ms"))]
                    break
        rows.append(best or [name, f"below {rates[-1]:,}", "", "", "", ""])
    table(f"Most events per second through {topics:,} topic{'s' * (topics > 1)}",
          ["", "events/s", "holder p50 ms", "p99 ms", "follower p50 ms", "p99 ms"], rows)


def idle(tools: Tools, scratch: pathlib.Path, window: float) -> None:
    """What topics cost in which hardly anything happens."""
    topics = 1000
    with Stage(tools, scratch) as stage:
        origin, _ = stage.origin(0.05)
        urls, brokers = stage.brokers(3)
        nodes = {"first node": stage.node("first", origin, urls), "second node": stage.node("second", origin, urls)}
        everyone = {**{name: n.process for name, n in nodes.items()}, **{f"NATS {i + 1}": b for i, b in enumerate(brokers)}}
        time.sleep(5)
        empty = {name: p.memory() for name, p in everyone.items()}
        children = []
        for node in nodes.values():
            children.append(stage.clients(node.url, topics, 30 + window, 1, "-topics", str(topics)))
            time.sleep(8)
        before = {name: p.cpu() for name, p in everyone.items()}
        time.sleep(window)
        used = {name: (p.cpu() - before[name]) / window * 100 for name, p in everyone.items()}
        roles = {name: n.roles() for name, n in nodes.items()}
        rows = [[name, roles[name].count("holder") if name in roles else "", used[name], (p.memory() - empty[name]) * 1024 / topics]
                for name, p in everyone.items()]
        for child in children:
            child.terminate()
            child.wait()
        table(f"{topics:,} topics without events, a client of each on both nodes; 3 NATS servers",
              ["", "leases", "CPU % of a core", "RSS KiB a topic"], rows)


def centrifugo(tools: Tools, scratch: pathlib.Path, window: float) -> None:
    """Two nodes with NATS as their broker. What is published at one is delivered by both."""
    rate, count, key = 100, 100, "bench"
    with Stage(tools, scratch) as stage:
        urls, _ = stage.brokers(1)
        ports = []
        for i in range(2):
            port = machine.free_port()
            config = stage.dir / f"centrifugo{i}.json"
            config.write_text(json.dumps({
                "http_server": {"address": "127.0.0.1", "port": str(port)}, "log": {"level": "error"},
                "client": {"allow_anonymous_connect_without_token": True, "concurrency": 0}, "http_api": {"key": key},
                "channel": {"without_namespace": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}},
                "uni_sse": {"enabled": True}, "broker": {"enabled": True, "type": "nats", "nats": {"url": urls[0]}},
            }))
            stage.start("centrifugo", "--config", str(config))
            await_port(port)
            ports.append(port)
        query = urllib.parse.quote(json.dumps({"subs": {"news": {}}}, separators=(",", ":")))
        children = [stage.clients(f"http://127.0.0.1:{port}/connection/uni_sse?cf_connect={query}", count, 4, window) for port in ports]
        time.sleep(1)
        stage.start("load", "publish", "-url", f"http://127.0.0.1:{ports[0]}/api/publish", "-rate", str(rate), "-header", f"X-API-Key:{key}",
                    "-body", '{"channel":"news","data":{{payload}}}')
        found = [report(child) for child in children]
        table(f"Centrifugo: publication to client, 1 channel × {rate} events/s, {count} clients a node; 1 NATS server as broker",
              ["", "p50 ms", "p99 ms"], [[name, f["latency"]["p50_ms"], f["latency"]["p99_ms"]]
                                         for name, f in zip(("published there", "the other node"), found)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    parser.add_argument("--window", type=float, default=10, help="seconds of each measurement (default: %(default)s)")
    parser.add_argument("--centrifugo", help="the program (github.com/centrifugal/centrifugo/v6)")
    args = parser.parse_args()
    only = args.only.split(",")
    machine.raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="sse-fleet-") as scratch_name:
        scratch = pathlib.Path(scratch_name)
        tools = build({"sse_fanout"}, scratch)
        go("build", "-o", scratch / "nats-server", "github.com/nats-io/nats-server/v2", directory=ROOT)
        tools.programs["nats"] = str(scratch / "nats-server")
        machine.leave_network()
        about = machine.describe()
        print(f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}; sse_fanout "
              f"{tools.versions['sse_fanout']}, Go {tools.versions['Go']}, {machine.first_line([tools.programs['nats'], '--version'])}")
        if "latency" in only:
            latency(tools, scratch, args.window)
        if "one" in only:
            most(tools, scratch, args.window / 2, 1, [50000, 30000, 20000, 10000, 5000])
        if "many" in only:
            most(tools, scratch, args.window / 2, 1000, [20000, 10000, 5000, 2000])
        if "idle" in only:
            idle(tools, scratch, args.window)
        if "centrifugo" in only and args.centrifugo:
            tools.programs["centrifugo"] = args.centrifugo
            centrifugo(tools, scratch, args.window)


if __name__ == "__main__":
    main()
