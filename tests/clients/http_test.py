"""HTTP readers that do not read, on both ports: what they hold, for how long, and who waits for them.

    python3 http_test.py --binary PATH

Plain sockets with small receive buffers, since a client library reads ahead.
"""

import asyncio
import json
import re
import resource
import select
import socket
import time
from http.client import HTTPResponse
from pathlib import Path

from contract import Client
from harness import Gateway, Report, arguments, cpu_s, http, run

LIFE_MS = 1500
CONFIG = f"[limits]\nhttp_life_ms = {LIFE_MS}\n"
SYMBOLS = 100_000
PICTURE = 3000
ROOM = 4096  # bytes that a stuck client's kernel takes for it
OPERATORS_MAX = 64
ANSWERS_MAX = 256


def names(count: int) -> list[str]:
    """What the plain load calls its symbols."""
    return [f"L{n:0{len(str(count))}}" for n in range(count)]


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def stuck(port: int, request: bytes) -> socket.socket:
    """A client that asks and does not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    sock.connect(("127.0.0.1", port))
    sock.sendall(request)
    return sock


async def happened(socks: list[socket.socket], what: int, timeout: float) -> int:
    """Waits until that has happened to all of them; says to how many it has. A hang-up is always told."""

    def wait() -> int:
        poll, left, deadline = select.poll(), len(socks), time.monotonic() + timeout
        for sock in socks:
            poll.register(sock, what)
        while left and (wait := deadline - time.monotonic()) > 0:
            for number, _ in poll.poll(wait * 1000):
                poll.unregister(number)
                left -= 1
        return len(socks) - left

    return await asyncio.to_thread(wait)


async def answered(socks: list[socket.socket]) -> None:
    """Waits until the first bytes of an answer have come to each."""
    await happened(socks, select.POLLIN, 5)


def kernel_bytes(port: int) -> list[int]:
    """What the kernel holds for each open connection of this port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(line[4].split(":")[0], 16) for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "01"]


async def operators(report: Report, gateway: Gateway) -> None:
    """Those who read nothing cannot keep others from the operators' page for longer than their life."""
    socks = [stuck(gateway.admin_port, get("/metrics") * 20) for _ in range(OPERATORS_MAX)]
    await answered(socks)
    begun = time.monotonic()
    try:
        status, _, _ = await http(gateway.admin_port, "/livez", 4 * LIFE_MS / 1000)
    except (OSError, EOFError, TimeoutError) as error:
        status = repr(error)
    took = time.monotonic() - begun
    report.equal(f"operators: /livez answers behind {OPERATORS_MAX} who do not read, after {took:.1f} s", status, 200)
    for sock in socks:
        sock.close()


async def clients(report: Report, gateway: Gateway) -> None:
    """The same on the clients' port; what does not fit stays with us and not in the kernel."""
    socks = [stuck(gateway.port, get("/v1/symbols")) for _ in range(10)]
    await answered(socks)
    held = kernel_bytes(gateway.port)
    report.check(f"clients: the kernel holds at most {max(held) // 1024} KiB for each", max(held) < 32 * 1024, held)
    begun = time.monotonic()
    gone = await happened(socks, 0, 4 * LIFE_MS / 1000)
    took = time.monotonic() - begun
    report.equal(f"clients: {len(socks)} who do not read are given up after {took:.1f} s", gone, len(socks))
    report.equal("clients: nothing of theirs is left in the kernel", kernel_bytes(gateway.port), [])
    for sock in socks:
        sock.close()


async def hoarders(report: Report, gateway: Gateway) -> None:
    """An answer is made as it is read: what nobody reads is not kept."""
    _, _, body = await http(gateway.port, "/v1/symbols")
    rows = json.loads(body)["symbols"]
    report.check("hoarders: who reads gets every symbol once", [row["symbol"] for row in rows] == names(SYMBOLS), len(rows))
    _, _, members = await http(gateway.port, "/v1/groups")
    report.equal("hoarders: who reads gets every group", [len(g["symbols"]) for g in json.loads(members)["groups"]], [SYMBOLS])
    before = gateway.rss_mib()
    socks = [stuck(gateway.port, get(target)) for target in ("/v1/symbols", "/v1/groups") for _ in range(20)]
    await answered(socks)
    grown, whole = gateway.rss_mib() - before, 20 * (len(body) + len(members)) / (1 << 20)
    report.check(f"hoarders: 40 who do not read take {grown:.0f} MiB for answers of {whole:.0f} MiB", grown < 10, grown)
    for sock in socks:
        sock.close()


async def crowd(report: Report, gateway: Gateway) -> None:
    """So many answers at once and no more; the others are told when to come again."""
    socks = [stuck(gateway.port, get("/v1/symbols")) for _ in range(ANSWERS_MAX)]
    await answered(socks)
    status, headers, body = await http(gateway.port, "/v1/groups")
    report.check(f"crowd: behind {ANSWERS_MAX} who do not read there is no room", status == 503 and int(headers["retry-after"]) > 0
                 and body.startswith(b"overloaded:"), (status, headers, body))
    status, _, _ = await http(gateway.port, "/")
    report.equal("crowd: the page has room", status, 200)
    watcher = await Client.connect(gateway.url)
    report.check("crowd: a session has room", True)
    await watcher.close()
    refused = (await gateway.metrics()).get("tickgate_requests_refused_total")
    report.equal("crowd: the refusal is counted", refused, 1.0)
    await happened(socks, 0, 4 * LIFE_MS / 1000)
    status, _, _ = await http(gateway.port, "/v1/groups")
    report.equal("crowd: there is room when they are given up", status, 200)
    for sock in socks:
        sock.close()


async def moments(report: Report, gateway: Gateway) -> None:
    """The parts of a picture are of the moment when they are made, so that nobody waits for the whole of it."""
    watcher = await Client.connect(f"{gateway.url}?symbols=*&fields=last&rate=10")
    await watcher.until(lambda: watcher.subs and watcher.subs["1"].whole, 10, "a picture")
    sock = stuck(gateway.port, get("/v1/snapshot"))
    await answered([sock])
    held = watcher.subs["1"].rev
    await watcher.until(lambda: watcher.subs["1"].rev > held + 10 * PICTURE, 10, "a market that moves on")

    def read() -> dict:
        answer = HTTPResponse(sock)
        answer.begin()
        return json.loads(answer.read())

    picture = await asyncio.to_thread(read)
    revs = [row["rev"] for row in picture["rows"]]
    report.check("moments: every symbol has a row", [row["symbol"] for row in picture["rows"]] == names(PICTURE), len(revs))
    newer = sum(rev > picture["rev"] for rev in revs)
    report.check(f"moments: {newer} of {PICTURE} rows are newer than that", newer > PICTURE / 2, (picture["rev"], max(revs)))
    sock.close()
    await watcher.close()


async def pollers(report: Report, gateway: Gateway) -> None:
    """Who asks again and again on one connection is told which answer is the last, and gets it whole."""
    begun, count, last = time.monotonic(), 0, False
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    while not last and time.monotonic() < begun + 4 * LIFE_MS / 1000:
        writer.write(get("/favicon.svg"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(re.search(r"content-length: (\d+)", head)[1]))
        last, count = "connection: close" in head, count + 1
    took = time.monotonic() - begun
    report.check(f"pollers: the last of {count} answers is announced, after {took:.2f} s", last and took >= LIFE_MS / 2000, took)
    report.equal("pollers: the connection ends behind it", await reader.read(), b"")
    writer.close()


async def itself(report: Report, gateway: Gateway) -> None:
    """What the gateway tells of its own process, under the names that Prometheus gives to such things."""
    before, told, after = cpu_s(gateway.process.pid), await gateway.metrics(), cpu_s(gateway.process.pid)
    used = told.get("process_cpu_seconds_total", -1)
    half_a_tick = 0.005
    report.check("itself: CPU seconds", before - half_a_tick < used < after + half_a_tick, (before, used, after))
    allowed, _ = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
    report.equal("itself: descriptors allowed", told.get("process_max_fds"), float(allowed))
    report.check("itself: descriptors open", 0 < told["process_open_fds"] < allowed, told["process_open_fds"])
    resident, rss = told["process_resident_memory_bytes"] / (1 << 20), gateway.rss_mib()
    report.check("itself: memory", abs(resident - rss) < 10, (resident, rss))
    age = time.time() - told["process_start_time_seconds"]
    report.check("itself: when it started", 0 < age < 60, age)


async def sessions(report: Report, gateway: Gateway) -> None:
    """The log names a session as its welcome did, when it begins and when it ends."""
    client = await Client.connect(gateway.url)
    name = client.welcome["session"]
    await client.close()
    await gateway.metric_reaches('tickgate_disconnects_total{reason="client_closed"}', 1, 5)
    lines = [line for line in gateway.errors.read_text().splitlines() if f'session="{name}"' in line]
    said = [re.search(r"session (begins|ends)", line)[1] for line in lines]
    report.equal("sessions: the log says when one begins and ends", said, ["begins", "ends"])
    report.check("sessions: and why", 'reason="client_closed"' in lines[-1], lines)


async def main(report: Report) -> None:
    """Each kind against one gateway with many symbols."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    async with await Gateway.start(options.binary, f"synthetic:load?symbols={SYMBOLS}&rate=1000", config=CONFIG) as gateway:
        await operators(report, gateway)
        await clients(report, gateway)
        await hoarders(report, gateway)
        await pollers(report, gateway)
        await crowd(report, gateway)
    async with await Gateway.start(options.binary, f"synthetic:load?symbols={PICTURE}&rate=20000&zipf=0") as gateway:
        await moments(report, gateway)
        await itself(report, gateway)
    async with await Gateway.start(options.binary, "synthetic:vn30", log="debug") as gateway:
        await sessions(report, gateway)


if __name__ == "__main__":
    run(main)
