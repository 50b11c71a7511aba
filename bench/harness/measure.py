"""One run: a server, what feeds it, a crowd of clients, and their report."""
import json, os, pathlib, shutil, signal, socket, ssl, subprocess, tempfile, time, urllib.request

from . import machine
from .build import Tools
from .peers import PEERS, Peer, Place
from .workloads import Workload

# Of the whole machine: from here on others disturb.
DISTURBED = 0.2


class Failed(Exception):
    pass


class Processes:
    """Those that a run has started, and ends. To the kernel (sched_autogroup) a session
    is one party, and each party gets the same of a busy machine. The clients, who
    stand for other machines, are one; all that serves them is another. With a session
    for each program, a server would get a third, whatever it needs: starved, it
    gathers events, and each costs less than on a machine of its own."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.started: list[subprocess.Popen] = []

    def start(self, name: str, command: list[str]) -> subprocess.Popen:
        env = dict(os.environ, HOME=str(self.directory), XDG_DATA_HOME=str(self.directory), XDG_CONFIG_HOME=str(self.directory))
        with open(self.directory / f"{name}.out", "wb") as out, open(self.directory / f"{name}.log", "wb") as log:
            p = subprocess.Popen(command, stdout=out, stderr=log, cwd=self.directory, env=env, process_group=0)
        self.started.append(p)
        return p

    def said(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def end(self, p: subprocess.Popen) -> None:
        if p.poll() is None:
            p.terminate()
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(p.pid, signal.SIGKILL)  # its workers
        except ProcessLookupError:
            pass
        p.wait()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_) -> None:
        for p in reversed(self.started):
            self.end(p)


def await_port(p: subprocess.Popen, port: int, tls: bool) -> None:
    """Waits until a process answers at a port; with TLS, until it has its certificate."""
    until = time.monotonic() + 20
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    while time.monotonic() < until:
        if p.poll() is not None:
            raise Failed(f"ended with {p.returncode}")
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as s:
                if tls:
                    context.wrap_socket(s, server_hostname="localhost").close()
                return
        except OSError:
            time.sleep(0.05)
    raise Failed("does not listen")


def fill_history(place: Place) -> None:
    """Makes sse_fanout fetch the events that the origin made beforehand: the
    first client's id is what a new topic asks its origin for."""
    n, size = place.workload.prefill, place.workload.size
    made = origin_stats(place)["published"]
    with socket.create_connection(("127.0.0.1", place.server), 10) as s:
        s.sendall(f"GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nLast-Event-ID: {made - n + 20}\r\n\r\n".encode())
        got = 0
        while got < (n - 20) * size:
            if not (part := s.recv(1 << 20)):
                raise Failed("the history could not be filled")
            got += len(part)


def origin_stats(place: Place) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{place.origin}/_stats") as answer:
        return json.load(answer)


def start_origin(processes: Processes, place: Place) -> subprocess.Popen:
    w = place.workload
    objects = ["-objects"] if w.objects else []
    ids = [] if w.size >= 100 else ["-ids=false"]
    p = processes.start("origin", [place.tools.programs["load"], "origin", "-listen", f"127.0.0.1:{place.origin}",
                                   "-rate", str(w.rate), "-size", str(w.size), "-prefill", str(w.prefill), *ids, *objects])
    await_port(p, place.origin, False)
    return p


def start_publisher(processes: Processes, place: Place) -> subprocess.Popen:
    w = place.workload
    return processes.start("publisher", [place.tools.programs["load"], "publish", "-url", f"http://127.0.0.1:{place.server}/publish",
                                         "-rate", str(w.rate), "-size", str(w.size)])


def crowd(place: Place, clients: int, server: subprocess.Popen, feed: subprocess.Popen | None) -> dict:
    w = place.workload
    host = f"https://localhost:{place.server}" if w.tls else f"http://127.0.0.1:{place.server}"
    done = subprocess.run(
        [place.tools.programs["load"], "clients", "-url", f"{host}/events", "-n", str(clients), "-duration", f"{w.seconds}s",
         "-settle", f"{w.settle}s", "-connect-timeout", "15s", "-pid", str(server.pid), *(["-feed", str(feed.pid)] if feed else []), *w.flags],
        capture_output=True, text=True, timeout=300, start_new_session=True)
    if done.returncode:
        raise Failed(f"the clients: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def count_clients(peer: Peer, w: Workload, open_files: int) -> int:
    """As many clients as asked for, or as descriptors allow."""
    each = 2 if peer.two_each or w.same_clients else 1
    return min(w.clients, (open_files - 200) // each)


def run(tools: Tools, name: str, w: Workload, open_files: int, patience: float) -> dict:
    """Measures one peer under one workload, once, after so many seconds at most of
    waiting for others to leave the machine alone."""
    peer, record = PEERS[name], {"peer": name, "workload": w.name, "at": time.time()}
    record["busy_before"] = round(machine.wait_quiet(patience), 3)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
    place = Place(tools, directory, machine.free_port(), machine.free_port(), w)
    try:
        with Processes(directory) as processes:
            try:
                record["result"] = measured(processes, peer, place, count_clients(peer, w, open_files), record)
            except (Failed, OSError, ValueError, subprocess.SubprocessError) as e:
                said = processes.said("server")[-300:] if (directory / "server.log").exists() else ""
                record["error"] = f"{type(e).__name__}: {e} {said}"[:600]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return record


def measured(processes: Processes, peer: Peer, place: Place, clients: int, record: dict) -> dict:
    feed = start_origin(processes, place) if peer.fed == "origin" else None
    server = processes.start("server", peer.command(place))
    await_port(server, place.server, place.workload.tls)
    if peer.fed == "publisher":
        feed = start_publisher(processes, place)
    if place.workload.prefill:
        fill_history(place)
    time.sleep(1)  # for the server to have its memory as it is without clients
    result = crowd(place, clients, server, feed)
    if peer.fed == "origin":
        record["origin"] = origin_stats(place)
    return result
