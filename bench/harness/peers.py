"""Who is measured: how each is configured and started."""
import dataclasses, os, pathlib, subprocess
from typing import Callable

from .build import NCHAN, Tools
from .workloads import Workload


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one run happens."""
    tools: Tools
    directory: pathlib.Path
    origin: int  # ports
    server: int
    workload: Workload


@dataclasses.dataclass(frozen=True)
class Peer:
    label: str
    fed: str  # by an "origin" that it asks, by a "publisher", or by "itself"
    command: Callable[[Place], list[str]]
    two_each: bool = False  # two descriptors a client: one more to the origin


def caddyfile(place: Place, directive: str) -> pathlib.Path:
    """Caddy as people run it: with an access log, and with certificates of its
    own where TLS is measured."""
    site = f"https://localhost:{place.server}" if place.workload.tls else f"http://:{place.server}"
    path = place.directory / "Caddyfile"
    path.write_text(
        "{\n\tadmin off\n\tpersist_config off\n\tdefault_bind 127.0.0.1\n\tskip_install_trust\n"
        f"\tauto_https {'disable_redirects' if place.workload.tls else 'off'}\n"
        f"\tservers {{\n\t\tprotocols {place.workload.protocols}\n\t}}\n}}\n"
        f"{site} {{\n\tlog {{\n\t\toutput file {place.directory}/access.log\n\t}}\n"
        + ("\ttls internal\n" if place.workload.tls else "")
        + f"\t{directive}\n}}\n")
    return path


def caddy(program: str, place: Place, directive: str) -> list[str]:
    return [place.tools.programs[program], "run", "--adapter", "caddyfile", "--config", str(caddyfile(place, directive))]


def sse_fanout(*options: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        lines = "".join(f"\t\t{o}\n" for o in (*options, *place.workload.options))
        block = f" {{\n{lines}\t}}" if lines else ""
        return caddy("ours", place, f"sse_fanout 127.0.0.1:{place.origin}{block}")
    return command


def reverse_proxy(place: Place) -> list[str]:
    return caddy("stock", place, f"reverse_proxy 127.0.0.1:{place.origin}")


def encode(place: Place) -> list[str]:
    """Stock Caddy compresses each stream by itself, at its default level, as its default matcher has text/*."""
    return caddy("stock", place, f"encode gzip\n\treverse_proxy 127.0.0.1:{place.origin}")


def nginx_with(place: Place, http: str, head: str = "") -> list[str]:
    path = place.directory / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    # Debian's are root's.
    scratch = "".join(f"    {kind}_temp_path {place.directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    path.write_text(f"""{head}daemon off;
{user}worker_processes 1;
pid {place.directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 19000; }}
http {{
    access_log off;
{scratch}{http}}}
""")
    return [place.tools.programs["nginx"], "-p", str(place.directory), "-c", str(path), "-e", "stderr"]


def nchan(place: Place) -> list[str]:
    """One worker: two cost more for each delivery and did not deliver more."""
    return nginx_with(place, head=f"load_module {NCHAN};\n", http=f"""    keepalive_requests 100000000;
    keepalive_timeout 1h;
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{place.server} backlog=4096;
        location = /publish {{
            client_max_body_size 1m;
            nchan_publisher http;
            nchan_channel_id c;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 1m;
        }}
        location = /events {{
            nchan_subscriber eventsource;
            nchan_channel_id c;
            nchan_subscriber_first_message newest;
        }}
    }}
""")


def certificate(place: Place) -> tuple[pathlib.Path, pathlib.Path]:
    """A certificate of the kind that Caddy makes for itself, and its key."""
    made, key = place.directory / "certificate.pem", place.directory / "key.pem"
    subprocess.run([place.tools.programs["openssl"], "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", made, "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                   check=True, capture_output=True)
    return made, key


def nginx(place: Place) -> list[str]:
    """As docs/operating.md tells for event streams; one worker, as with nchan."""
    made, key = certificate(place)
    return nginx_with(place, f"""    server {{
        listen 127.0.0.1:{place.server} ssl http2 backlog=4096;
        ssl_certificate {made};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://127.0.0.1:{place.origin};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
""")


def nginx_gzip(place: Place) -> list[str]:
    """As nginx, without TLS, and with a compressor for each stream, at the level that is Caddy's default."""
    return nginx_with(place, f"""    gzip on;
    gzip_types text/event-stream;
    gzip_proxied any;
    gzip_comp_level 5;
    server {{
        listen 127.0.0.1:{place.server} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{place.origin};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
""")


def haproxy(place: Place) -> list[str]:
    """One thread, as nginx has one worker."""
    made, key = certificate(place)
    both = place.directory / "both.pem"
    both.write_text(made.read_text() + key.read_text())
    path = place.directory / "haproxy.cfg"
    path.write_text(f"""global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend clients
    bind 127.0.0.1:{place.server} ssl crt {both} alpn h2,http/1.1 backlog 4096
    default_backend origin
backend origin
    server origin 127.0.0.1:{place.origin}
""")
    return [place.tools.programs["haproxy"], "-db", "-f", str(path)]


def floor(mode: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        w = place.workload
        return [place.tools.programs["floor"], str(place.server), str(w.rate), str(w.size), mode]
    return command


# In the order of tables and runs: the default stands between what it is compared
# with first, so that these run one right after the other.
PEERS = {
    "floor-write": Peer("bare writer", "itself", floor("write")),
    "floor-coalesce": Peer("bare writer, coalescing", "itself", floor("coalesce")),
    "sse_fanout": Peer("**sse_fanout**", "origin", sse_fanout()),
    "direct-off": Peer("sse_fanout, `direct off`", "origin", sse_fanout("direct off")),
    "reverse_proxy": Peer("Caddy reverse_proxy", "origin", reverse_proxy, two_each=True),
    "compress": Peer("sse_fanout, `compress gzip 5`", "origin", sse_fanout("compress gzip 5")),
    "encode": Peer("Caddy encode, reverse_proxy", "origin", encode, two_each=True),
    "nginx-gzip": Peer("nginx, `gzip on`", "origin", nginx_gzip, two_each=True),
    "nginx": Peer("nginx", "origin", nginx, two_each=True),
    "haproxy": Peer("HAProxy", "origin", haproxy, two_each=True),
    "nchan": Peer("nginx + nchan", "publisher", nchan),
    "floor-uring": Peer("bare writer, io_uring", "itself", floor("uring")),
}
OURS = "sse_fanout"
# Not run unless asked for.
OPTIONAL = {"floor-uring"}
