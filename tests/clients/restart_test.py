"""The gateway's beginnings and ends: killed, stopped, started again, and started wrongly.

    python3 restart_test.py --binary PATH
"""

import asyncio
import contextlib
import re
import signal
import socket
import time
from pathlib import Path

from websockets.exceptions import InvalidStatus, WebSocketException

from contract import Client
from harness import Gateway, Report, arguments, http, run, scratch

FEED = "synthetic:vn30?rate=500"
DRAIN_MS = 3000
CONFIG = f"[limits]\ndrain_ms = {DRAIN_MS}\nclose_timeout_ms = 1000\nheartbeat_ms = 1000\n"
EXIT_USAGE, EXIT_UNAVAILABLE = 64, 69
SERVE_OPTIONS = ["--listen", "--admin", "--feed", "--config", "--shards"]


async def reconnect(url: str, seconds: float = 10) -> Client:
    """A client that comes back as soon as it can."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await Client.connect(url)
        except (OSError, WebSocketException, TimeoutError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)  # a port that is closed offers no event to await


async def first_clients(report: Report, binary: str) -> None:
    """Whatever the first client of a fresh gateway asks for is answered, however early it comes."""
    for query in ("symbols=trade:*,status:*&mode=every", "symbols=*", "symbols=book:VCB&depth=1000", "symbols=@VN30&mode=snapshot"):
        async with await Gateway.start(binary, "synthetic:vn30?rate=10", config=CONFIG) as gateway:
            clients = await asyncio.gather(*[reconnect(f"{gateway.url}?{query}") for _ in range(6)], return_exceptions=True)
            good = [client for client in clients if isinstance(client, Client)]
            for client in good:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    await client.until(lambda c=client: any(stream.whole for stream in c.streams.values()) or c.ended, 5, "a picture")
            whole = sum(bool(c.ended or any(stream.whole for stream in c.streams.values())) for c in good)
            panics = [line for line in gateway.errors.read_text().splitlines() if "panicked" in line]
            report.check(f"first clients: {query}: all six have a picture, nothing panicked", whole == 6 and not panics,
                         f"{whole} have, {[c for c in clients if not isinstance(c, Client)]}, {panics}")
            report.clean(f"first clients: {query}: the contract is kept", [v for c in good for v in c.violations])
            for client in good:
                await client.close()


async def killed(report: Report, binary: str) -> None:
    """kill -9, and again on the same port: another epoch, whole pictures."""
    gateway = await Gateway.start(binary, FEED, config=CONFIG)
    clients = [await Client.connect(gateway.url) for _ in range(5)]
    for client in clients:
        await client.subscribe("@VN30", rate=10, sub="board")
        await client.subscribe("trade:@VN30", mode="every", sub="trades")
    epoch = clients[0].welcome["epoch"]
    report.equal("one epoch for all clients", {c.welcome["epoch"] for c in clients}, {epoch})
    port = gateway.port
    await gateway.stop(signal.SIGKILL)
    ends = [await client.end() for client in clients]
    report.check("a kill is seen by every client at once", all(code == 1006 for code, _ in ends), ends)
    begun = time.monotonic()
    again = asyncio.create_task(Gateway.start(binary, FEED, config=CONFIG, listen=f"127.0.0.1:{port}"))
    back = await asyncio.gather(*[reconnect(f"ws://127.0.0.1:{port}/ws") for _ in clients])
    async with await again as gateway:
        report.check(f"the same port serves again after {time.monotonic() - begun:.2f} s", gateway.port == port, gateway.port)
        report.equal("all are on one new epoch", len({c.welcome["epoch"] for c in back} - {epoch}), 1)
        for client in back:
            await client.subscribe("@VN30", rate=10, sub="board")
            await client.subscribe("trade:@VN30", mode="every", sub="trades")
        whole = [sum(bool(row.get("full")) for row in client.table("board").values()) for client in back]
        report.equal("each has a whole picture of the 31 again", whole, [31] * len(back))
        _, _, body = await http(gateway.port, "/v1/snapshot?symbols=VCB")
        report.check("/v1/snapshot names the same epoch", back[0].welcome["epoch"].encode() in body, body[:100])
        for at, client in enumerate(back):
            report.clean(f"after the kill, client {at}: the contract is kept", client.violations)
            await client.close()


async def stopped(report: Report, binary: str, how: signal.Signals) -> None:
    """A good end: drain, 1012, exit code 0, within the time."""
    name = how.name
    gateway = await Gateway.start(binary, FEED, config=CONFIG)
    clients = [await Client.connect(f"{gateway.url}?symbols=@VN30&rate=10") for _ in range(30)]
    for client in clients:
        await client.until(lambda c=client: c.subs and c.subs["1"].whole, 10, "the picture")
    begun = time.monotonic()
    code = await gateway.stop(how, DRAIN_MS / 1000 + 2)
    took = time.monotonic() - begun
    report.equal(f"{name}: exit code", code, 0)
    report.check(f"{name}: within the drain time ({took:.2f} s)", took < DRAIN_MS / 1000 + 0.3, took)
    ends = [await client.end() for client in clients]
    report.check(f"{name}: every client is closed with 1012 and a reason", all(c == 1012 and r.startswith("restart:") for c, r in ends),
                 set(ends))
    times = [client.drain and client.drain["reconnect_in_ms"] for client in clients]
    report.check(f"{name}: every client was told when to come back", all(time is not None for time in times), times)
    report.check(f"{name}: not all at once", len(set(times)) >= 10, sorted(set(times), key=str))
    report.clean(f"{name}: the contract is kept to the end", [v for c in clients for v in c.violations])
    out = await gateway.process.stdout.read()
    report.check(f"{name}: says that it drains", b"draining" in out, out)
    report.check(f"{name}: no panic", "panicked" not in gateway.errors.read_text(), gateway.errors.read_text()[-500:])


async def stuck(report: Report, binary: str) -> None:
    """A client that reads nothing cannot keep the gateway; a second signal ends the wait."""
    for second in (False, True):
        gateway = await Gateway.start(binary, "synthetic:load?symbols=500&rate=50000", config=CONFIG.replace("1000", "30000", 1))
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        stuck.connect(("127.0.0.1", gateway.port))
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        stuck.sendall(f"GET /ws?symbols=* HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n".encode())
        other = await Client.connect(f"{gateway.url}?symbols=*&rate=10")
        await gateway.metric_reaches("tickgate_fell_behind_total", 1, 10)
        begun = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        code, _ = await other.end()
        report.equal(f"stuck, second signal {second}: the others are told", code, 1012)
        with contextlib.suppress(OSError):
            status, _, _ = await http(gateway.admin_port, "/readyz")
            report.equal(f"stuck, second signal {second}: /readyz says no while it drains", status, 503)
        if not second:
            try:
                late = await (await Client.connect(gateway.url)).end()
            except InvalidStatus as error:
                late = (error.response.status_code, error.response.headers.get("Retry-After"), error.response.body)
            report.check("stuck: a newcomer is told of the restart", late[0] == 503 and int(late[1]) > 0 and late[2].startswith(b"restart:"),
                         late)
            took = time.monotonic() - begun
            report.check("stuck: a newcomer is sent away at once", took < DRAIN_MS / 2000, f"after {took:.1f} s")
        left = DRAIN_MS / 1000 + 3
        code = await gateway.stop(signal.SIGTERM, left) if second else await asyncio.wait_for(gateway.process.wait(), left)
        took = time.monotonic() - begun
        report.equal(f"stuck, second signal {second}: exit code", code, 0)
        low, high = (0, 1.5) if second else (DRAIN_MS / 1000 - 0.5, DRAIN_MS / 1000 + 0.5)
        report.check(f"stuck, second signal {second}: ends after {low} to {high} s", low <= took <= high, f"{took:.2f} s")
        stuck.close()


async def call(binary: str, *command: str, timeout: float = 10) -> tuple[int | str, str, str]:
    """Runs it to its end: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        binary, *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        process.kill()
        await process.wait()
        return "still running", "", ""
    return process.returncode, out.decode(), errors.decode()


async def wrong_starts(report: Report, binary: str) -> None:
    """One clear line and the right exit code."""
    home = scratch()
    (home / "empty.ndjson").write_text("")
    (home / "junk.ndjson").write_text("junk\n" * 10)

    def config(name: str, text: str) -> str:
        (home / name).write_text(text)
        return str(home / name)

    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    for name, arguments, code, words in [
        ("the clients' port is taken", ["--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0"], EXIT_UNAVAILABLE, ["in use", str(port)]),
        ("the operators' port is taken", ["--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{port}"], EXIT_UNAVAILABLE, ["in use", "admin"]),
        ("one port for both", ["--listen", "127.0.0.1:18999", "--admin", "127.0.0.1:18999"], EXIT_USAGE, ["18999"]),
        ("an address of another machine", ["--listen", "192.0.2.1:8080", "--admin", "127.0.0.1:0"], EXIT_UNAVAILABLE, ["192.0.2.1"]),
        ("a recording that is missing", [*free, "--feed", "capture:/nope.gz?venue=binance"], EXIT_UNAVAILABLE, ["/nope.gz"]),
        ("a recording that is a directory", [*free, "--feed", f"capture:{home}"], EXIT_UNAVAILABLE, [str(home)]),
        ("an empty recording", [*free, "--feed", f"capture:{home}/empty.ndjson"], EXIT_UNAVAILABLE, ["empty.ndjson"]),
        ("a recording of junk", [*free, "--feed", f"capture:{home}/junk.ndjson"], EXIT_UNAVAILABLE, ["junk.ndjson"]),
        ("a spec without a colon", [*free, "--feed", "synthetic"], EXIT_USAGE, ["colon"]),
        ("an unknown kind of feed", [*free, "--feed", "kafka:x"], EXIT_USAGE, ["kafka"]),
        ("an unknown market", [*free, "--feed", "synthetic:vn31"], EXIT_USAGE, ["vn31"]),
        ("an unknown option of a feed", [*free, "--feed", "synthetic:load?symbol=5"], EXIT_USAGE, ["symbols"]),
        ("an option out of range", [*free, "--feed", "synthetic:load?symbols=0"], EXIT_USAGE, ["symbols"]),
        ("an unknown venue", [*free, "--feed", "capture:/nope.gz?venue=bnb"], EXIT_USAGE, ["binance"]),
        ("a config file that is missing", [*free, "--config", "/nope.toml"], (EXIT_USAGE, EXIT_UNAVAILABLE), ["/nope.toml"]),
        ("a config file that is no TOML", [*free, "--config", config("bad.toml", "listen = = 1\n")], EXIT_USAGE, ["bad.toml", "line 1"]),
        ("a key that nobody knows", [*free, "--config", config("key.toml", "\n[limits]\nheartbeet_ms = 100\n")], EXIT_USAGE,
         ["key.toml", "line 3", "heartbeet_ms", "heartbeat_ms"]),
        ("a limit out of range", [*free, "--config", config("range.toml", "[limits]\nheartbeat_ms = 1\n")], EXIT_USAGE, ["heartbeat_ms"]),
        ("a value of a wrong type", [*free, "--config", config("type.toml", "listen = 7\n")], EXIT_USAGE, ["line 1"]),
        ("a group of what no feed has", [*free, "--config", config("group.toml", '[groups]\nmine = ["NOPE"]\n')], EXIT_USAGE,
         ["mine", "NOPE"]),
        ("no feeds", [*free, "--config", config("none.toml", "feeds = []\n")], EXIT_USAGE, ["feeds"]),
        ("no threads", [*free, "--shards", "0"], EXIT_USAGE, ["shards"]),
    ]:
        got, out, errors = await call(binary, "serve", *arguments)
        codes = code if isinstance(code, tuple) else (code,)
        report.check(f"start: {name}: exit code {code}", got in codes, f"{got}: {errors.strip()[:200]}")
        lines = errors.strip().splitlines()
        good = len(lines) == 1 and lines[0].startswith("tickgate: ") and all(word in lines[0] for word in words)
        report.check(f"start: {name}: one clear line", good, f"expected {words} in {errors[:400]!r}")
        report.equal(f"start: {name}: nothing on stdout", out, "")
    taken.close()
    for name, command, words in [
        ("an unknown command", ["sevre"], ["serve"]),
        ("an unknown flag", ["serve", "--lisen", "x"], ["--listen"]),
        ("an address that is none", ["serve", "--listen", "localhost"], ["--listen"]),
    ]:
        got, out, errors = await call(binary, *command)
        report.equal(f"usage: {name}: exit code", got, EXIT_USAGE)
        report.check(f"usage: {name}: says what was meant", all(word in errors for word in words) and not out, errors)
    good = config("good.toml", CONFIG)
    got, out, errors = await call(binary, "check-config", good)
    report.check("check-config: a good file", got == 0 and "good" in out, (got, out, errors))
    got, out, errors = await call(binary, "check-config", str(home / "key.toml"))
    report.check("check-config: a bad file", got == EXIT_USAGE and "heartbeat_ms" in errors, (got, out, errors))
    got, out, errors = await call(binary, "check-config", config("feed.toml", 'feeds = ["kafka:x"]\n'))
    report.check("check-config: a feed that serve refuses", got == EXIT_USAGE and "kafka" in errors, (got, out, errors))
    for command in (["--help"], ["help"], ["serve", "--help"], ["serve", "-h"], ["help", "serve"]):
        got, out, errors = await call(binary, *command)
        wanted = SERVE_OPTIONS if "serve" in command else ["serve", "check-config"]
        report.check(f"{' '.join(command)}: mentions {' '.join(wanted)}", got == 0 and all(word in out for word in wanted) and not errors,
                     (got, out[:300], errors))
    got, out, _ = await call(binary, "--version")
    report.check("--version", got == 0 and out.startswith("tickgate "), (got, out))


async def modes(report: Report, binary: str) -> None:
    """`watch --help` names the modes that a gateway takes."""
    code, out, errors = await call(binary, "watch", "--help")
    found = re.search(r"--mode <MODE>[^[]*\[possible values: ([a-z_, ]+)\]", out)
    if not report.check("watch --help: lists the modes", found is not None and code == 0, (code, out, errors)):
        return
    async with await Gateway.start(binary, FEED, config=CONFIG) as gateway:
        client = await Client.connect(gateway.url)
        for mode in found[1].split(", "):
            answer = await client.subscribe("VCB", mode=mode, sub=mode, whole=False)
            report.equal(f"watch --help: mode {mode} is served", (answer["type"], answer.get("mode")), ("subscribed", mode))
        await client.close()
    code, _, errors = await call(binary, "watch", "VCB", "--mode", "fast")
    report.check("watch: another mode is refused with the list", code == EXIT_USAGE and found[1] in errors, (code, errors))


async def main(report: Report) -> None:
    """All of it, one after the other."""
    binary = arguments(__doc__.splitlines()[0]).parse_args().binary
    await first_clients(report, binary)
    await killed(report, binary)
    await stopped(report, binary, signal.SIGTERM)
    await stopped(report, binary, signal.SIGINT)
    await stuck(report, binary)
    await wrong_starts(report, binary)
    await modes(report, binary)


if __name__ == "__main__":
    run(main)
