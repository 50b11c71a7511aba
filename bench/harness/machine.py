"""The machine: limits, a network of its own, who else uses it, what it is."""
import ctypes, fcntl, os, pathlib, platform, re, resource, socket, struct, subprocess, time

CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1


def raise_file_limit() -> int:
    """Lifts the limit of open files as far as it goes, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def leave_network() -> bool:
    """Moves this process into a network of its own, where nobody else has ports
    and nothing else sends. Only root may; others share the loopback."""
    if os.geteuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    return True


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def busy_share(seconds: float) -> float:
    """The part of the whole machine that is in use."""
    def read() -> tuple[int, int]:
        ticks = [int(v) for v in open("/proc/stat").readline().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]
    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def wait_quiet(limit: float) -> float:
    """Waits until others leave the machine alone, but not longer than this. Returns
    the last busy share."""
    until = time.monotonic() + limit
    while (busy := busy_share(0.5)) > 0.12 and time.monotonic() < until:
        time.sleep(0.5)
    return busy


def describe() -> dict:
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in cpuinfo,
        "memory_gib": round(int(memory.group(1)) / 2**20) if memory else 0,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def first_line(command: list[str]) -> str:
    """What a command says of itself, wherever it says it."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return ((done.stdout or done.stderr).strip().splitlines() or [""])[0]
