"""Who is measured: how each server is started on core 0, and how the load client asks it for one run from core 1.

Every server listens on one of two fixed ports and is ready when it takes a connection. Bound: one server at a time.
"""

import contextlib
import datetime
import fcntl
import json
import os
import re
import resource
import socket
import subprocess
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
BIN = TARGET / "release"
PEERS = ROOT / "benches/peers"
INSTALLED = TARGET / "peers"
PORT, ADMIN_PORT = 9101, 9102
WARMUP_S = 2
START_S = 20
FRAMES_PER_S = 10  # to each client, in both workloads


class Workload(NamedTuple):
    """What is asked of every contender."""

    title: str
    clients: int
    feed: str  # the gateway's; the peers have the same one of their own
    subscribe: list[str]
    limit: list[str]


WORKLOADS = {
    "broadcast": Workload(
        "W1, broadcast: one frame of 200 bytes to every client, ten times a second", 10_000,
        "synthetic:load?symbols=1&rate=10&row_bytes=120", ["--topic", "*"], ["--mode", "broadcast"],
    ),
    "market": Workload(
        "W3, market data: 20,000 ticks a second over 1,000 symbols (Zipf 1.0); every client has 30 of them, by chance, "
        "and gets what has changed ten times a second", 2_000,
        "synthetic:load?symbols=1000&rate=20000&zipf=1.0&row_bytes=70",
        ["--symbols", "load:1000", "--pick", "30", "--rate", "10", "--sample", "50"], ["--mode", "spread"],
    ),
}

# The name of each contender, what it is, and the command that workload, port and clients are added to.
PYTHON, NODE = [INSTALLED / "venv/bin/python"], INSTALLED / "node/node_modules"
PEER_COMMANDS = {
    "bun": ("Bun, whose server is uWebSockets", [NODE / ".bin/bun", PEERS / "bun.js"]),
    "fastwebsockets": ("fastwebsockets, a task for each client", [INSTALLED / "rust/release/fastwebsockets"]),
    "node-ws": ("Node `ws`", ["node", PEERS / "node_ws.js"]),
    "websockets-broadcast": ("Python `websockets.broadcast`", [*PYTHON, PEERS / "websockets_broadcast.py"]),
    "tungstenite": ("tokio-tungstenite, a task for each client", [INSTALLED / "rust/release/tungstenite"]),
    "websockets-loop": ("Python `websockets`, one send after another", [*PYTHON, PEERS / "websockets_loop.py"]),
    "websockets-gather": ("Python `websockets`, `asyncio.gather`", [*PYTHON, PEERS / "websockets_gather.py"]),
    "fastapi-gather": ("FastAPI with uvicorn, `asyncio.gather`", [*PYTHON, PEERS / "fastapi_gather.py"]),
}
TITLES = {"limit": "the limit: plain `send`", "gateway": "**tickgate**"} | {
    name: title for name, (title, _) in PEER_COMMANDS.items()
}


def command(contender: str, workload: str, clients: int) -> list:
    """How a contender is started for a workload."""
    if contender == "gateway":
        return [BIN / "tickgate", "serve", "--shards", 1, "--feed", WORKLOADS[workload].feed,
                "--listen", f"127.0.0.1:{PORT}", "--admin", f"127.0.0.1:{ADMIN_PORT}"]
    return [*PEER_COMMANDS[contender][1], workload, PORT, clients]


def limit_command(workload: str, clients: int, seconds: float, frame_bytes: int) -> list:
    """The limit, with a frame as long as the contender's."""
    return [BIN / "tickgate-limit", *WORKLOADS[workload].limit, "--per-second", FRAMES_PER_S, "--bytes", frame_bytes,
            "--clients", clients, "--listen", f"127.0.0.1:{PORT}", "--seconds", seconds + WARMUP_S + 3]


@contextlib.contextmanager
def on_core_0(command: list, log: Path):
    """Runs a server there while the block lasts."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # Python does not raise its own limit of descriptors; the hard one is as far as anybody may go.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with log.open("ab") as sink:
        server = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], stdin=subprocess.DEVNULL, stdout=sink,
                                  stderr=sink, env=os.environ | {"NODE_PATH": str(NODE)})
    try:
        deadline = time.monotonic() + START_S
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
                break
            time.sleep(0.05)  # nothing tells that a stranger's server listens
        else:
            raise RuntimeError(f"{command[0]} does not listen; it said: {log.read_text()[-500:]}")
        yield server.pid
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def alone(lock: Path | None):
    """Holds the lock, if there is one, while the block lasts."""
    with contextlib.ExitStack() as stack:
        if lock:
            fcntl.flock(stack.enter_context(lock.open("a")), fcntl.LOCK_EX)
        yield


def bench_command(pid: int, clients: int, seconds: float, subscribe: list[str], warmup: float, path: str = "/ws") -> list[str]:
    """How the load client is started."""
    return [BIN / "tickgate", "bench", "--cpu", "1", "--pid", str(pid), "--url", f"ws://127.0.0.1:{PORT}{path}", "--clients",
            str(clients), "--warmup", str(warmup), "--seconds", str(seconds), "--json", *subscribe]


def bench(pid: int, clients: int, seconds: float, subscribe: list[str], warmup: float = WARMUP_S) -> dict:
    """The load client's report on the server."""
    return report_of(bench_command(pid, clients, seconds, subscribe, warmup), seconds)


def report_of(command: list[str], seconds: float) -> dict:
    """What a load client says in the end."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 + seconds)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def build() -> None:
    """Builds what is measured, as it is shipped."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "--workspace", "--bins"], cwd=ROOT, check=True)


def begin_run(out: Path, command: str, peers: list[str] | None = None, **more) -> None:
    """Makes the folder of a run, and in it run.json: what gives the same rows again, and what was measured on what."""
    out.mkdir(parents=True, exist_ok=True)
    run = {"date": str(datetime.date.today()), "command": command, **more, "machine": machine(), "versions": versions(peers or [])}
    (out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


def machine() -> dict:
    """What kind of machine this is."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {"cpu": model[1].strip() if model else os.uname().machine, "cores": os.cpu_count(),
            "kernel": os.uname().release, "niceness": os.nice(0)}


def versions(contenders: list[str]) -> dict:
    """The last commit of what the gateway is made of; with peers, the tools and packages that they name."""
    says = lambda *command: subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    commit = says("git", "log", "-1", "--format=%h", "--", "src", "feeds", "Cargo.lock")
    found = {"tickgate": commit, "rustc": says("rustc", "--version").split()[1]}
    if set(contenders) & set(PEER_COMMANDS):
        found |= {"python": says(*PYTHON, "--version").split()[1], "node": says("node", "--version").lstrip("v")}
        named = (PEERS / "requirements.txt").read_text().split("#")[0]
        found |= dict(line.split("==") for line in named.split())
        found |= json.loads((PEERS / "package.json").read_text())["dependencies"]
        wanted = tomllib.loads((PEERS / "rust/Cargo.toml").read_text())["dependencies"]
        locked = tomllib.loads((PEERS / "rust/Cargo.lock").read_text())["package"]
        found |= {package["name"]: package["version"] for package in locked if package["name"] in wanted}
    return found
