"""Clients that others wrote do whole sessions: Python's `websockets`, Node's `ws`, a browser's WebSocket and EventSource, and curl.

    python3 session_test.py --binary PATH [--node FOLDER] [--chromium PATH]

The WebSockets go through the steps of session.json, each over a line of its own on which the compressed frames are counted.
There `send` waits for the answer, and `resume` sends the cursor that is held with the command.
The gateway is an edge: when all have come as far as `ready`, its source is killed, so that the market stands still, and
what each client holds must be what curl is told by /v1/snapshot.
"""

import asyncio
import base64
import contextlib
import json
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from contract import Client
from harness import ROOT, Gateway, Line, Report, arguments, run
from listener import Listener
from rest_test import curl
from stalled_test import frames

sys.path.insert(0, str(ROOT / "tests/board"))

from board_test import Page  # noqa: E402

HERE = Path(__file__).parent
STEPS = HERE / "session.json"
FEED = "synthetic:vn30?rate=300"
CONFIG = "[limits]\nheartbeat_ms = 500\n"
TOPICS = "symbols=VN30,V*,book:FPT&depth=3&decimals=string"
STREAM = f"/stream?{TOPICS}&rate=10"
ANSWERS = {"subscribe": "subscribed", "update": "updated", "unsubscribe": "unsubscribed", "list": "list", "ping": "pong"}
GOES_ON = {"exact", "conflated"}
# RFC 6455, 5.2, and RFC 7692, 7.2.2.
TEXT, RSV1, TAIL = 1, 0x40, b"\0\0\xff\xff"
ALL_S = 60

PAGE = """
(module, url, steps, stream) => import(`data:text/javascript;base64,${module}`).then(({ session, listen }) => {
  const started = [(say) => session(WebSocket, url, steps, say), (say) => listen(EventSource, stream, say)].map((start) => {
    let done;
    const ready = new Promise((say) => { done = start(say); });
    return { done, ready: Promise.race([ready, done]) };
  });
  window.done = Promise.all(started.map(({ done }) => done));
  return Promise.all(started.map(({ ready }) => ready)).then(() => true);
})
"""

# Says that a client is ready, and goes on when all are.
Say = Callable[[], Awaitable]


async def quiet(client: Client) -> None:
    """The source is gone, and for a whole interval nothing else came."""
    await client.until(lambda: client.link == "stale", 10, "the link")
    heard = None
    while heard != (heard := sum(stream.frames for stream in client.subs.values())):
        beats = client.heartbeats + 2
        await client.until(lambda beats=beats: client.heartbeats >= beats, 10, "heartbeats")


async def flowing(client: Client, batches: Counter) -> None:
    """Each subscription has had some batches since it was last answered."""
    await client.until(lambda: client.subs and all(batches[sub] >= 3 for sub in client.subs), 10, "batches")


def count(client: Client) -> Counter:
    """The batches of each subscription from now on that are no pictures."""
    batches = Counter()
    client.on_batch = lambda stream, frame: batches.update([] if "snapshot" in frame or "added" in frame else [stream.sub])
    return batches


def held(client: Client) -> dict[str, dict]:
    """What is held of each subscription, as session.mjs says it."""
    return {
        sub: {"q": stream.q, "table": {topic: {k: v for k, v in row.items() if k != "full"} for topic, row in stream.table.items()}}
        for sub, stream in client.subs.items()
    }


async def websockets(line: Line, say: Say) -> dict:
    """The reference client."""
    told = {"extensions": [], "ends": [], "answers": [], "broken": []}
    streams = {}
    for step in json.loads(STEPS.read_text()):
        for verb, what in step.items():
            if verb == "open":
                client = await Client.connect(f"ws://127.0.0.1:{line.port}/ws", compression="deflate")
                batches = count(client)
                told["extensions"].append(",".join(extension.name for extension in client.socket.protocol.extensions))
            elif verb == "close":
                await client.socket.close(what)
                told["ends"].append((await client.end())[0])
                told["broken"] += client.violations
            elif verb == "say":
                await say()
            elif what == "flowing":
                await flowing(client, batches)
            elif what == "quiet":
                await quiet(client)
                told["subs"] = held(client)
            else:
                stream = streams[what["sub"]] if verb == "resume" else None
                told["answers"].append(await client.command(held=stream, **what, **({"since": stream.since} if stream else {})))
                batches.pop(what.get("sub"), None)
                streams |= client.subs
    return told


async def node(line: Line, say: Say, folder: str) -> dict:
    """Node's `ws`."""
    command = ["node", HERE / "session_node.mjs", Path(folder).resolve(), f"ws://127.0.0.1:{line.port}/ws", STEPS]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 24)
    said = None
    try:
        async for text in process.stdout:
            said = json.loads(text)
            if said == "ready":
                await say()
        if await process.wait() or "subs" not in said:
            raise RuntimeError(f"Node ended with {process.returncode} after {said}")
        return said
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def browser(edge: Gateway, line: Line, say: Say, chromium: str) -> list[dict]:
    """A page's WebSocket and its EventSource."""
    page = await asyncio.to_thread(Page, chromium)
    try:
        # The board's own policy would not let a script in: a document without one.
        await asyncio.to_thread(page.visit, f"http://127.0.0.1:{edge.port}/v1/groups")
        module = base64.b64encode((HERE / "session.mjs").read_bytes()).decode()
        given = [module, f"ws://127.0.0.1:{line.port}/ws", json.loads(STEPS.read_text()), STREAM]
        await asyncio.to_thread(page.evaluate, f"({PAGE})(...{json.dumps(given)})")
        await say()
        return await asyncio.to_thread(page.evaluate, "done")
    finally:
        await asyncio.to_thread(page.close)


@contextlib.asynccontextmanager
async def curls(edge: Gateway, *options: str):
    """A listener whose lines curl reads."""
    command = ["curl", "--silent", "--no-buffer", "--globoff", *options, f"http://127.0.0.1:{edge.port}{STREAM}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    listener = Listener(process.stdout, None, "")
    try:
        yield listener
    finally:
        process.kill()
        await listener.reader
        await process.wait()


async def curl_stream(edge: Gateway, say: Say) -> dict:
    """An event stream that breaks off, and another one that goes on from its last event."""
    async with curls(edge) as first:
        await flowing(first, count(first))
    async with curls(edge, "--header", f"Last-Event-ID: {first.last_id}") as second:
        second.asked[None], second.held[None] = {"since": first.last_id}, first.subs["1"]
        await flowing(second, count(second))
        await say()
        await quiet(second)
        return {"subs": held(second), "broken": first.violations + second.violations, "recovered": second.subs["1"].answer["recovered"]}


def texts(line: Line) -> list[tuple[bool, int, int]]:
    """Every message that the gateway sent: whether it came compressed, in how many bytes, and how many it is."""
    found = []
    for told in line.told:
        at = told.index(b"\r\n\r\n") + 4
        for opcode, begin, end in frames(told, at):
            packed, data = bool(told[at] & RSV1), bytes(told[begin:end])
            if opcode == TEXT:
                found.append((packed, len(data), len(zlib.decompressobj(-15).decompress(data + TAIL)) if packed else len(data)))
            at = end
    return found


def check_session(report: Report, name: str, told: dict, line: Line) -> None:
    """What only a WebSocket has: commands, ends, and frames that are compressed."""
    commands = [what["action"] for step in json.loads(STEPS.read_text()) for verb, what in step.items() if verb in ("send", "resume")]
    answers = told["answers"]
    report.equal(f"{name}: answers", [answer["type"] for answer in answers], [ANSWERS[command] for command in commands])
    report.equal(f"{name}: ends", told["ends"], [1000, 1000])
    verdicts = [answer["recovered"] for answer in answers if answer.get("recovered")]
    report.check(f"{name}: both subscriptions go on, {verdicts}", len(verdicts) == 2 and {*verdicts} <= GOES_ON, verdicts)
    listed = next(answer for answer in reversed(answers) if answer["type"] == "list")["subs"]
    last = next(sub["q"] for sub in listed if sub["sub"] == "tape")
    first = next(answer["q"] for answer in answers if answer.get("sub") == "tape")
    trades = sum(last.values()) - sum(first.values())
    report.check(f"{name}: each of {trades} trades came", trades > 0 and told["subs"]["tape"]["q"] == last, (told["subs"]["tape"]["q"], last))
    agreed = [extensions.split(";")[0] for extensions in told["extensions"]]
    report.equal(f"{name}: both connections are to be compressed", agreed, ["permessage-deflate"] * 2)
    sent = texts(line)
    packed = [(size, plain) for compressed, size, plain in sent if compressed]
    sizes = f"{sum(size for size, _ in packed)} bytes for {sum(plain for _, plain in packed)}"
    report.check(f"{name}: {len(packed)} of {len(sent)} frames are, {sizes}", len(packed) > 10 and all(size < plain for size, plain in packed))


def check_picture(report: Report, name: str, told: dict, sub: str, expected: dict[str, dict]) -> None:
    """What is held at the end, and that nothing was missing on the way."""
    report.clean(f"{name}: nothing is missing", told["broken"])
    table = told["subs"][sub]["table"]
    wrong = [(table.get(topic), expected.get(topic)) for topic in table | expected if table.get(topic) != expected.get(topic)]
    report.check(f"{name}: {len(table)} rows are those of the snapshot", not wrong, wrong[:1])


async def snapshot(report: Report, edge: Gateway) -> dict[str, dict]:
    """What curl is told of the market that stands still, by topic."""
    status, _, body = await curl(edge, f"/v1/snapshot?{TOPICS}")
    answer = json.loads(body)
    rows = {f"book:{row['symbol']}" if "bids" in row else row["symbol"]: row for row in answer["rows"]}
    report.check(f"snapshot: {len(rows)} rows of a market that stands still",
                 (status, answer.get("link")) == (200, "stale") and all(row.pop("full") for row in rows.values()) and len(rows) > 5, body)
    return rows


async def main(report: Report) -> None:
    """All clients at once."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--node", default=str(ROOT / "target/node"), help="where Node's `ws` is installed")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    options = parser.parse_args()
    async with await Gateway.start(options.binary, FEED, config=CONFIG) as origin, \
            await Gateway.start(options.binary, f"tickgate:ws://127.0.0.1:{origin.port}?silence_ms=1000", config=CONFIG) as edge:
        lines = [await Line(edge.port).open() for _ in range(3)]
        ready = asyncio.Barrier(5)
        async with asyncio.timeout(ALL_S), asyncio.TaskGroup() as group:
            in_python = group.create_task(websockets(lines[0], ready.wait))
            in_node = group.create_task(node(lines[1], ready.wait, options.node))
            in_page = group.create_task(browser(edge, lines[2], ready.wait, options.chromium))
            in_curl = group.create_task(curl_stream(edge, ready.wait))
            await ready.wait()
            await origin.stop(signal.SIGKILL)
        expected = await snapshot(report, edge)
        page, source = in_page.result()
        for name, told, line in zip(("websockets", "ws", "WebSocket"), (in_python.result(), in_node.result(), page), lines, strict=True):
            check_session(report, name, told, line)
            check_picture(report, name, told, "board", expected)
        check_picture(report, "EventSource", source, "1", expected)
        check_picture(report, "curl", in_curl.result(), "1", expected)
        report.check(f"curl: the stream goes on, {in_curl.result()['recovered']}", in_curl.result()["recovered"] in GOES_ON)


if __name__ == "__main__":
    run(main)
