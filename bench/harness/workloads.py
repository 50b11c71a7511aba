"""What is measured."""
import dataclasses

OURS = ("sse_fanout", "direct-off")
ALL = ("floor-write", *OURS, "reverse_proxy", "nchan", "floor-uring")
CADDY = (*OURS, "reverse_proxy")
TLS = ("sse_fanout", "reverse_proxy")  # direct delivery is for plain connections
ZIPPED = ("sse_fanout", "compress", "reverse_proxy", "encode", "nginx-gzip")  # the clients accept gzip from all
EDGE = (*TLS, "nginx", "haproxy")  # what browsers connect to


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    group: str  # what --only names
    title: str
    clients: int
    rate: float  # events a second
    size: int = 200  # bytes of an event
    seconds: float = 12
    settle: float = 2  # between the last connection and the window
    peers: tuple[str, ...] = ALL
    flags: tuple[str, ...] = ()  # of the load tool
    tls: bool = False
    protocols: str = "h1 h2"  # that both Caddys speak
    same_clients: bool = False  # as many for all as for those that hold two descriptors a client
    ladder: bool = False  # a step of a ladder that a peer leaves when it falls behind
    options: tuple[str, ...] = ()  # of sse_fanout
    prefill: int = 0  # events in the history beforehand
    objects: bool = False  # events are of JSON that compresses as such does
    x: float = 0  # where it stands in the plot of its group


RAMP = ("-ramp", "4000/s")
STEPS = (200, 500, 1000, 2000, 5000)
# A connection each. A handshake takes the processor for much longer than a delivery,
# and what it has used is given back some seconds later.
ALONE = ("-streams", "1", "-ramp", "400/s")

COMPARED = [
    Workload("E1", "E1", "3,000 clients × 1 event/s over TLS and HTTP/2, a connection each", 3000, 1, seconds=20, settle=4, tls=True,
             peers=EDGE, flags=("-h2", *ALONE)),
    Workload("E2", "E2", "1,000 clients × 50 events/s over TLS and HTTP/2, a connection each", 1000, 50, settle=4, tls=True,
             peers=EDGE, flags=("-h2", *ALONE)),
    Workload("E1h1", "E1h1", "3,000 clients × 1 event/s over TLS and HTTP/1.1", 3000, 1, seconds=20, settle=4, tls=True,
             peers=EDGE, flags=("-tls", *ALONE)),
    Workload("E3-h2", "E3", "800 clients × 1 event/s over TLS and HTTP/2, a connection each", 800, 1, seconds=30, settle=4, tls=True,
             peers=TLS, flags=("-h2", *ALONE)),
    Workload("E3-h3", "E3", "the same over HTTP/3", 800, 1, seconds=30, settle=4, tls=True, protocols="h1 h2 h3",
             peers=TLS, flags=("-h3", *ALONE)),
    Workload("W1", "W1", "10,000 idle clients, one event in 5 s", 10_000, 0.2, seconds=6, settle=4, flags=RAMP),
    Workload("W2", "W2", "1,000 clients × 100 events/s", 1000, 100),
    Workload("W3", "W3", "10,000 clients × 5 events/s", 10_000, 5, flags=RAMP),
    *(Workload(f"W4-{rate}", "W4", f"1,000 clients × {rate:,} events/s", 1000, rate, seconds=8, ladder=True, x=rate,
               # As far as the coalescing bare writer's ring reaches; 1,000 events are a fifth of a second here.
               options=("history 8192 5m 4MiB",), peers=("floor-write", "floor-coalesce", *CADDY, "nchan"))
      for rate in STEPS),
    Workload("W5", "W5", "1,000 streams on 10 TLS and HTTP/2 connections × 50 events/s", 1000, 50, seconds=15, tls=True,
             peers=TLS, flags=("-h2", "-tls", "-streams", "100")),
    Workload("W5h1", "W5h1", "1,000 clients over TLS and HTTP/1.1 × 50 events/s", 1000, 50, seconds=15, tls=True,
             peers=TLS, flags=("-tls",)),
    # On the loopback the server's kernel takes some 2.5 MiB for a client before a write blocks: 13 seconds of this.
    Workload("W6-calm", "W6", "1,000 clients × 200 events/s of 1 KiB", 1000, 200, 1024, seconds=20,
             peers=("floor-coalesce", *CADDY, "nchan")),
    Workload("W6-stalled", "W6", "the same, 5 % stop reading", 1000, 200, 1024, seconds=20,
             peers=("floor-coalesce", *CADDY, "nchan"), flags=("-slow-frac", "0.05", "-slow-rcvbuf", "4096", "-drain", "2s")),
    *(Workload(f"Z{name}{'-churn' if churn else ''}", "Z", f"1,000 clients × {rate} events/s of {what}{', 5 % of them come back each second' if churn else ''}",
               1000, rate, size, seconds=20, settle=10, peers=ZIPPED, objects=True, same_clients=True,
               flags=("-gzip", *(("-churn", "0.05") if churn else ())))
      for name, what, size, rate in (("200", "200 bytes", 200, 20), ("2K", "2 KiB", 2048, 20)) for churn in (False, True)),
    Workload("Z-idle", "Z", "10,000 idle clients that accept gzip, one event in 5 s", 10_000, 0.2, seconds=6, settle=4, peers=OURS[:1] + ("compress",), objects=True,
             flags=("-gzip", *RAMP)),
    # A few at a time, or the kernel's queue overflows and those turned away try again a second later.
    Workload("C", "C", "10,000 clients connect as fast as they are answered", 10_000, 1, seconds=1, settle=0.5,
             same_clients=True, flags=("-ramp", "1000000/s", "-opening", "500")),
]

# How cost grows. Over clients, deliveries a second stay the same.
GROWTH = [
    *(Workload(f"clients-{n}", "clients", f"{n:,} clients × {50_000 / n:.4g} events/s", n, 50_000 / n, seconds=8, x=n,
               peers=("floor-write", *OURS), flags=RAMP)
      for n in (100, 300, 1000, 3000, 10_000)),
    *(Workload(f"topics-{n}", "topics", f"10,000 idle clients on {n:,} topics", 10_000, 0.2, seconds=3, settle=4, x=n,
               peers=OURS, same_clients=True, options=("max_topics 20000",),
               flags=("-topics", str(n), "-ramp", "2000/s"))
      for n in (1, 10, 100, 1000, 10_000)),
    *(Workload(f"size-{size}", "size", f"100 clients × {rate} events/s of {size:,} bytes", 100, rate, size, seconds=6, x=size,
               peers=("floor-write", *OURS))
      for size, rate in ((20, 100), (200, 100), (1024, 100), (4096, 100), (16_384, 50), (65_536, 20), (262_144, 5))),
    *(Workload(f"history-{n}", "history", f"100 clients × 100 events/s, a history of {n:,}", 100, 100, seconds=6, x=n,
               peers=OURS, options=(f"history {n} 1h 64MiB",), prefill=n if n > 1 else 0)
      for n in (1, 100, 1000, 10_000, 100_000)),
]

EVERY = COMPARED + GROWTH
GROUPS = list(dict.fromkeys(w.group for w in EVERY))


def smaller(w: Workload) -> Workload:
    """For a run that only shows that all parts work."""
    return dataclasses.replace(w, clients=min(w.clients, 500), seconds=min(w.seconds, 2), settle=0.5, prefill=min(w.prefill, 10_000))
