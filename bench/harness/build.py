"""Builds what is measured, and finds what cannot be built."""
import dataclasses, os, pathlib, re, shutil, subprocess

from . import machine

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NCHAN = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
PROXIES = {"nginx": "nginx", "nginx-gzip": "nginx", "haproxy": "HAProxy"}  # peers, and what they are called

STOCK_MAIN = """package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
"""


@dataclasses.dataclass
class Tools:
    """Programs by name, their versions, and why a peer cannot take part."""
    programs: dict[str, str] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)


def go(*arguments: str | pathlib.Path, directory: pathlib.Path) -> None:
    subprocess.run(["go", *arguments], cwd=directory, check=True)


def build(peers: set[str], scratch: pathlib.Path) -> Tools:
    """Builds into scratch what these peers need."""
    tools = Tools()
    tools.versions["Go"] = machine.first_line(["go", "env", "GOVERSION"]).removeprefix("go")
    go("build", "-o", scratch / "load", ".", directory=ROOT / "bench/load")
    tools.programs["load"] = str(scratch / "load")
    if peers & {"sse_fanout", "direct-off", "compress"}:
        build_ours(tools, scratch)
    if peers & {"reverse_proxy", "encode"}:
        build_stock(tools, scratch)
    if any(p.startswith("floor-") for p in peers):
        build_floor(tools, scratch)
    for peer in PROXIES:
        if peer in peers:
            find_proxy(tools, peer)
    if "nchan" in peers:
        find_nchan(tools)
    return tools


def build_ours(tools: Tools, scratch: pathlib.Path) -> None:
    go("build", "-buildvcs=false", "-o", scratch / "caddy", "./cmd/caddy", directory=ROOT)
    tools.programs["ours"] = str(scratch / "caddy")
    tools.versions["sse_fanout"] = machine.first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or "unknown"
    trial = scratch / "direct.caddyfile"
    trial.write_text(":80 {\n\tsse_fanout 127.0.0.1:1 {\n\t\tdirect off\n\t}\n}\n")
    adapts = subprocess.run([tools.programs["ours"], "adapt", "--config", trial, "--adapter", "caddyfile"], capture_output=True)
    if adapts.returncode:
        tools.missing["direct-off"] = "this build has no option `direct`"


def build_stock(tools: Tools, scratch: pathlib.Path) -> None:
    """Caddy without anything of ours, at the versions that our go.mod names: of
    Caddy and of all it depends on."""
    directory = scratch / "stock"
    directory.mkdir()
    (directory / "main.go").write_text(STOCK_MAIN)
    for name in ("go.mod", "go.sum"):
        shutil.copy(ROOT / name, directory)
    go("mod", "edit", "-module", "stock", directory=directory)
    go("build", "-mod=mod", "-o", scratch / "stock-caddy", ".", directory=directory)
    tools.programs["stock"] = str(scratch / "stock-caddy")
    tools.versions["Caddy"] = machine.first_line(
        ["go", "-C", str(ROOT), "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2"])


def build_floor(tools: Tools, scratch: pathlib.Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        for mode in ("write", "coalesce", "uring"):
            tools.missing["floor-" + mode] = "no C compiler (Debian: gcc, libc6-dev)"
        return
    command = [compiler, "-O2", "-o", scratch / "floor", ROOT / "bench/floor/floor.c"]
    if subprocess.run([*command, "-DURING", "-luring"], capture_output=True).returncode:
        tools.missing["floor-uring"] = "no liburing (Debian: liburing-dev)"
        subprocess.run(command, check=True)
    tools.programs["floor"] = str(scratch / "floor")
    tools.versions["C compiler"] = machine.first_line([compiler, "--version"])


def find(tools: Tools, program: str) -> bool:
    """Looks where Debian has servers, too."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found:
        tools.programs[program] = found
    return bool(found)


def find_proxy(tools: Tools, peer: str) -> None:
    """A proxy that needs a certificate made for it."""
    program = PROXIES[peer].lower()
    if missing := [p for p in (program, "openssl") if not find(tools, p)]:
        tools.missing[peer] = f"not installed (Debian: {', '.join(missing)})"
        return
    version = re.search(r"\d+(\.\d+)+", machine.first_line([tools.programs[program], "-v"]))
    tools.versions[PROXIES[peer]] = version.group() if version else "unknown"


def find_nchan(tools: Tools) -> None:
    if not find(tools, "nginx") or not NCHAN.exists():
        tools.missing["nchan"] = "not installed (Debian: nginx, libnginx-mod-nchan)"
        return
    tools.versions["nginx"] = machine.first_line([tools.programs["nginx"], "-v"]).rpartition("/")[2]
    tools.versions["nchan"] = machine.first_line(["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"])
