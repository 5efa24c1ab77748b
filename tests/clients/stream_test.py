"""Event streams keep the contract: for who reads, who comes back, who reads late or never, and who asks wrongly.

    python3 stream_test.py --binary PATH
"""

import asyncio
import contextlib
import json
import signal

from contract import Client
from harness import Gateway, Report, arguments, http, run
from listener import Listener, Refused

VN30 = "synthetic:vn30?rate=500"
LOAD = "synthetic:load?symbols=500&rate=20000"
ROOM = 4096
IDLE = 4000
# What `SESSION_BYTES` in src/base/limits.rs promises.
SESSION_BYTES = 2048
BROWSER = {"Accept": "text/event-stream"}


async def frames(listener: Client, count: int, sub: str = "s") -> None:
    """Waits for the whole first picture, and for so many frames."""
    await listener.until(lambda: sub in listener.subs and listener.subs[sub].whole and listener.subs[sub].frames >= count, 10, "frames")


async def refusal(port: int, query: str, **headers: str) -> Refused | None:
    """How this request is refused, if it is."""
    try:
        listener = await Listener.open(port, query, **headers)
    except Refused as refused:
        return refused
    await listener.vanish()
    return None


async def reads(report: Report, binary: str) -> None:
    """Who listens is given what a WebSocket is given, to the byte."""
    wish = {"mode": "every", "rate": 10, "digest": 5, "depth": 3, "sub": "s"}
    topics = ["@VN30", "trade:@VN30", "book:FPT"]
    query = "&".join([f"symbols={','.join(topics)}", *(f"{key}={value}" for key, value in wish.items())])
    async with await Gateway.start(binary, VN30, config="shards = 1\n[limits]\nheartbeat_ms = 500\n") as gateway:
        listener, client = await Listener.open(gateway.port, query), await Client.connect(gateway.url)
        given, feed = set(), client.feed
        client.feed = lambda text, now_s: (given.add(text), feed(text, now_s))
        await client.subscribe(*topics, **wish)
        await frames(listener, 20)
        stream = listener.subs["s"]
        await client.until(lambda: client.subs["s"].seq >= stream.seq, 5, "the same frames")
        report.equal("reads: both are on one stream", client.subs["s"].number, stream.number)
        same = sum(text in given for _, text in listener.batches)
        report.check(f"reads: {same} frames are those of a WebSocket, to the byte", same >= 10, len(given))
        epoch, wish_name = listener.welcome["epoch"], stream.answer["wish"]
        cursors = [f"{epoch}:{(b := json.loads(text))['rev']}:{wish_name}" * ("more" not in b) for _, text in listener.batches]
        report.equal("reads: the id of a batch is its cursor, that of a part is none", [told for told, _ in listener.batches], cursors)
        await listener.until(lambda: listener.heartbeats >= 2, 5, "heartbeats")
        report.clean("reads: the contract is kept", listener.violations + client.violations)
        for line in ("http/1.0 200", "cache-control: no-store", "access-control-allow-origin: *", "x-accel-buffering: no", "connection: close"):
            report.check(f"reads: the head says {line}", line in listener.head, listener.head)
        counted = await gateway.metrics()
        report.equal("reads: it is one of the connections", [counted[f"tickgate_{name}"] for name in ("event_streams_total", "connections")], [1, 2])
        await listener.vanish()
        gone = await gateway.metric_reaches('tickgate_disconnects_total{reason="disconnected"}', 1, 5)
        report.equal("reads: who goes away is noticed", gone, 1)
        await client.close()


async def comes_back(report: Report, binary: str) -> None:
    """Last-Event-ID is a cursor like any other."""
    query = "symbols=trade:@VN30,status:@VN30&mode=every&sub=s"
    async with await Gateway.start(binary, VN30) as gateway:
        left = await Listener.open(gateway.port, query)
        await frames(left, 20)
        await left.vanish()
        held, last_id = left.subs["s"], left.last_id
        back = await Listener.open(gateway.port, query, last_id, held)
        await frames(back, 20)
        stream = back.subs["s"]
        report.equal("comes back: recovered", stream.answer["recovered"], "exact")
        report.check("comes back: every trade", stream.q["trade:VCB"] >= held.q["trade:VCB"] and not stream.lost, stream.lost)
        report.clean("comes back: the contract is kept", left.violations + back.violations)
        await back.vanish()
        again = await Listener.open(gateway.port, f"{query}&since={last_id}", back.last_id, back.subs["s"])
        await frames(again, 5)
        report.equal("the header is newer than the URL: recovered", again.subs["s"].answer["recovered"], "exact")
        report.clean("the header is newer than the URL: the contract is kept", again.violations)
        await again.vanish()  # who goes on reading holds more than its cursor says
        url = await Listener.open(gateway.port, f"{query}&since={again.last_id}", held=again.subs["s"])
        await frames(url, 5)
        report.equal("a cursor in the URL: recovered", url.subs["s"].answer["recovered"], "exact")
        report.clean("a cursor in the URL: the contract is kept", url.violations)
        await url.vanish()
        socket = await Client.connect(gateway.url)
        answer = await socket.resume(url.subs["s"], topics=["trade:@VN30", "status:@VN30"], mode="every", sub="s")
        report.equal("a cursor of an event stream on a WebSocket: recovered", answer.get("recovered"), "exact")
        epoch, rev, wish = url.last_id.split(":")
        for name, last_id in [("another run", f"0:{rev}:{wish}"), ("another subscription", f"{epoch}:{rev}:0")]:
            fresh = await Listener.open(gateway.port, query, last_id)
            await frames(fresh, 1)
            report.equal(f"{name}: recovered", fresh.subs["s"].answer["recovered"], "reset")
            report.clean(f"{name}: the contract is kept", fresh.violations)
            await fresh.vanish()
        ahead = await Listener.open(gateway.port, query, f"{epoch}:{int(rev) + 10**9}:{wish}")
        code, reason = await ahead.end()
        refused = [(error["code"], error["retry_after_ms"]) for error in ahead.errors]
        report.equal("ahead: refused, with a time that a browser keeps", refused, [("node_behind", ahead.retry_ms)])
        report.check("ahead: and ended, so that it tries again", code == 4004 and reason.startswith("later:"), (code, reason))
        await socket.close()


async def reads_late(report: Report, binary: str) -> None:
    """Who reads late has frames merged; who does not read for too long is cut off, and is told."""
    query = "symbols=*&rate=20&sub=s"
    config = "[limits]\nwrite_stall_ms = 2500\nclose_timeout_ms = 20000\nframe_bytes_max = 8192\n"
    async with await Gateway.start(binary, LOAD, config=config) as gateway:
        stayed, late = await Listener.open(gateway.port, query), await Listener.open(gateway.port, query, room=ROOM)
        await frames(stayed, 1)
        await frames(late, 5)
        late.reads = False
        late.writer.transport.pause_reading()
        seq = stayed.subs["s"].seq
        await stayed.until(lambda: stayed.subs["s"].seq > seq + 30, 10, "frames")
        late.writer.transport.resume_reading()
        count = late.subs["s"].frames
        await frames(late, count + 20)
        report.check(f"late: {late.subs['s'].merged} frames were merged", late.subs["s"].merged > 0)
        late.writer.transport.pause_reading()
        slow = await gateway.metric_reaches('tickgate_disconnects_total{reason="slow"}', 1, 15)
        report.equal("late: who does not read is counted as slow", slow, 1)
        late.writer.transport.resume_reading()
        code, reason = await late.end()
        report.check("late: and is told by the last event", code == 4001 and reason.startswith("slow:"), (code, reason))
        back = await Listener.open(gateway.port, query, late.last_id, late.subs["s"])
        await frames(back, 5)
        report.equal("late: it goes on from its last whole event", back.subs["s"].answer["recovered"], "conflated")
        report.equal("late: nothing was merged for who reads", stayed.subs["s"].merged, 0)
        report.clean("late: the contract is kept", stayed.violations + late.violations + back.violations)
        for listener in (stayed, back):
            await listener.close()


async def ends(report: Report, binary: str) -> None:
    """A gateway that ends says when to come back, also to a browser that asks while it does."""
    config = "[limits]\nclose_timeout_ms = 4000\ndrain_ms = 8000\n"
    async with await Gateway.start(binary, VN30, config=config) as gateway:
        listener = await Listener.open(gateway.port, "symbols=VCB&sub=s")
        # A WebSocket that does not say goodbye keeps the gateway for a while.
        keeper = await Client.connect(gateway.url)
        keeper.socket.transport.pause_reading()
        await frames(listener, 1)
        gateway.process.send_signal(signal.SIGTERM)
        code, reason = await listener.end()
        report.check("ends: told by the last event", code == 1012 and reason.startswith("restart:"), (code, reason))
        report.equal("ends: retry is what drain says", listener.retry_ms, listener.drain and listener.drain["reconnect_in_ms"])
        report.clean("ends: the contract is kept", listener.violations)
        browser = await Listener.open(gateway.port, "symbols=VCB", **BROWSER)
        code, _ = await browser.end()
        report.equal("ends: a browser that comes is sent away by an event", (code, browser.retry_ms), (1012, 5000))
        refused = await refusal(gateway.port, "symbols=VCB")
        report.equal("ends: others by a status", refused and (refused.status, refused.body.split(":")[0]), (503, "restart"))
        keeper.socket.transport.abort()


async def is_full(report: Report, binary: str) -> None:
    """Event streams count as connections."""
    async with await Gateway.start(binary, VN30, config="[limits]\nconnections_max = 2\n") as gateway:
        listeners = [await Listener.open(gateway.port, "symbols=VCB&sub=s") for _ in range(2)]
        browser = await Listener.open(gateway.port, "symbols=VCB", **BROWSER)
        code, reason = await browser.end()
        report.check("full: a browser is sent away by an event", code == 1013 and browser.retry_ms == 5000, (code, reason))
        refused = await refusal(gateway.port, "symbols=VCB")
        report.check("full: others by a status", refused and refused.status == 503 and "retry-after: 5" in refused.head, refused)
        for listener in listeners:
            await frames(listener, 1)
            await listener.close()


REFUSED = [
    ("no topics", "", {}, 400, "bad_request", "symbols: missing"),
    ("an empty list", "symbols=", {}, 400, "bad_request", "topics: expected at least one"),
    ("an unknown key", "symbol=VCB", {}, 400, "bad_request", '"symbols"'),
    ("a wrong value", "symbols=VCB&rate=fast", {}, 400, "bad_request", "rate: expected"),
    ("a filter that is none", "symbols=VCB&filter=last", {}, 400, "bad_request", "column"),
    ("an unknown symbol", "symbols=NOPE", {}, 404, "unknown_topic", "no such symbol"),
    ("only unknown topics", "symbols=NOPE,@NOPE", {}, 404, "unknown_topic", "none could be taken"),
    ("no topic at all", "symbols=V*B", {}, 400, "bad_topic", "expected"),
    ("a wrong Last-Event-ID", "symbols=VCB", {"Last-Event-ID": "41"}, 400, "bad_request", "Last-Event-ID: expected epoch:rev:wish"),
    ("a Last-Event-ID that is no text", "symbols=VCB", {"Last-Event-ID": "\x80"}, 400, "bad_request", "Last-Event-ID: expected"),
    ("a wrong cursor in the URL", "symbols=VCB&since=41", {}, 400, "bad_request", "epoch:rev:wish"),
]


async def asks_wrongly(report: Report, binary: str) -> None:
    """What cannot be served is said at once; what is refused later ends the stream."""
    async with await Gateway.start(binary, VN30) as gateway:
        for name, query, headers, status, code, words in REFUSED:
            refused = await refusal(gateway.port, query, **headers)
            error = json.loads(refused.body)["error"] if refused else {}
            good = refused and (refused.status, error["code"]) == (status, code) and words in error["message"]
            report.check(f"refused: {name}: {status}", good, refused)
            report.check(f"refused: {name}: readable by pages of others", refused and "access-control-allow-origin: *" in refused.head, refused)
        for method, target, status in [("POST", "/stream?symbols=VCB", 405), ("HEAD", "/stream?symbols=VCB", 200),
                                       ("HEAD", "/stream", 400), ("GET", "/stream/", 404)]:
            got, head, body = await http(gateway.port, target, method=method)
            report.equal(f"refused: {method} {target}", got, status)
            if status == 200:
                report.equal("HEAD: the type, and no events", (head["content-type"], body), ("text/event-stream", b""))
        await asks_before(report, gateway)
        some = await Listener.open(gateway.port, "symbols=VCB,NOPE&sub=s")
        await frames(some, 1)
        report.equal("some topics unknown: rejected, the others served", [r["code"] for r in some.subs["s"].answer["rejected"]], ["unknown_topic"])
        some.writer.write(b'{"action":"ping"}')
        report.equal("who speaks is cut off", (await some.end())[0], 1002)
        once = await Listener.open(gateway.port, "symbols=@VN30&mode=snapshot")
        report.equal("a snapshot: it ends when all is said", (await once.end(), len(once.ended)), ((1000, "done:nothing more will come"), 1))
        clash = await Listener.open(gateway.port, "symbols=VCB&digest=5&filter=changed(last)")
        report.equal("refused by the shard: an error, and the end", (await clash.end())[0], 1000)
        report.equal("refused by the shard: why", [error["code"] for error in clash.errors], ["bad_request"])
        report.clean("refused: the contract is kept", some.violations + once.violations + clash.violations)


async def asks_before(report: Report, gateway: Gateway) -> None:
    """A browser asks whether a page of another origin may; what it may not read does not answer."""
    page = {"Origin": "http://elsewhere", "Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "last-event-id"}
    allowed = {"access-control-allow-origin": "*", "access-control-allow-methods": "GET, HEAD", "access-control-allow-headers": "last-event-id"}
    for target in ("/stream?symbols=VCB", "/v1/snapshot", "/v1/history/trade:VCB"):
        status, head, body = await http(gateway.port, target, method="OPTIONS", **page)
        report.equal(f"OPTIONS {target}: what a page may", (status, {name: head.get(name) for name in allowed}, body), (204, allowed, b""))
    for target in ("/v1/groups", "/v1/nope"):
        _, head, _ = await http(gateway.port, target)
        report.equal(f"{target}: a page may read the epoch", head.get("access-control-expose-headers"), "tickgate-epoch")
    status, head, _ = await http(gateway.port, "/", method="OPTIONS", **page)
    report.equal("OPTIONS /: the board is its own", (status, [name for name in head if name.startswith("access-")]), (405, []))


async def waits(report: Report, binary: str) -> None:
    """What a listener costs while it waits: one descriptor, and no more memory than a session may take."""
    async with await Gateway.start(binary, "synthetic:load?symbols=1&rate=1") as gateway:
        before, resident = await gateway.metrics(), gateway.rss_mib()
        lines: list[asyncio.StreamWriter] = []

        async def arrive() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            lines.append(writer)
            writer.write(b"GET /stream?symbols=* HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\nid: ")

        while len(lines) < IDLE:
            # Not all at once: it is their waiting that is measured, not the answering of so many.
            await asyncio.gather(*[arrive() for _ in range(50)])
        each = (gateway.rss_mib() - resident) * (1 << 20) / IDLE
        after = await gateway.metrics()
        report.check(f"waits: {each:.0f} bytes a listener, at most {SESSION_BYTES}", each <= SESSION_BYTES, each)
        # Two more may be those of the pages of metrics.
        held = after["process_open_fds"] - before["process_open_fds"]
        report.check(f"waits: {held:.0f} descriptors for {IDLE} listeners", IDLE <= held <= IDLE + 2, held)
        for writer in lines:
            writer.transport.abort()


async def curl(report: Report, binary: str) -> None:
    """What people type."""
    async with await Gateway.start(binary, VN30) as gateway:
        command = ["curl", "--silent", "--no-buffer", "--max-time", "20", f"http://127.0.0.1:{gateway.port}/stream?symbols=VCB,VN30&rate=5"]
        seen: list[str] = []
        for headers in ([], ["--header", "Last-Event-ID: {}"]):
            last_id = next((line[4:] for line in reversed(seen) if line.startswith("id: ")), "")
            process = await asyncio.create_subprocess_exec(
                *command, *(part.format(last_id) for part in headers), stdout=asyncio.subprocess.PIPE, limit=1 << 20)
            seen, count = [], 0
            async with asyncio.timeout(15):
                while count < 3 and (line := await process.stdout.readline()):
                    seen.append(line.decode().rstrip("\n"))
                    count += line.startswith(b"id: ")
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()
            messages = [json.loads(line[6:]) for line in seen if line.startswith("data: ") and line.endswith("}")]
            kinds = [message["type"] for message in messages if message["type"] != "heartbeat"]
            report.equal(f"curl {' '.join(headers)}: what comes first", kinds[:3], ["welcome", "subscribed", "batch"])
            verdict = next(message["recovered"] for message in messages if message["type"] == "subscribed")
            report.check(f"curl {' '.join(headers)}: recovered is {verdict}", verdict in (("exact", "conflated") if headers else (None,)))


async def main(report: Report) -> None:
    """All of it, one after the other."""
    binary = arguments(__doc__.splitlines()[0]).parse_args().binary
    await reads(report, binary)
    await comes_back(report, binary)
    await reads_late(report, binary)
    await ends(report, binary)
    await is_full(report, binary)
    await asks_wrongly(report, binary)
    await waits(report, binary)
    await curl(report, binary)


if __name__ == "__main__":
    run(main)
