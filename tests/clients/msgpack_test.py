"""MessagePack as a library of others reads and writes it: it says what JSON says, to the digit.

    python3 msgpack_test.py --binary PATH

Three clients with one subscription in mode `every` on one gateway: JSON, MessagePack, and MessagePack compressed. Each is
given every change, so between two revisions all of them must have the same rows in the same order.
"""

import asyncio
import json

import msgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness import Gateway, Line, Report, arguments, run

JSON, PACKED = "tickgate.v1.json", "tickgate.v1.msgpack"
WISH = {"action": "subscribe", "id": 1, "topics": ["*", "trade:*", "status:*"], "mode": "every"}
REVS = 1_500  # about two seconds of the simulated market
WAIT_S = 10
# (name, message, words of the answer): the session lives and is asked for a pong afterwards.
MISTAKES = [
    ("nothing", b"", "breaks off"),
    ("a map that is cut", b"\x82\xa6action\xa4ping", "breaks off"),
    ("a byte that begins nothing", b"\x81\xa6action\xc1", "0xc1"),
    ("two messages in one", msgpack.packb({"action": "ping"}) * 2, "goes on after its end"),
    ("a value of bytes", msgpack.packb({"action": b"ping"}), "bytes"),
    ("a time", msgpack.packb({"action": msgpack.Timestamp(1)}), "extension"),
    ("a number for a key", msgpack.packb({7: "ping"}), "key"),
    ("a list", msgpack.packb(["ping"]), "object"),
    ("an unknown key", msgpack.packb({"action": "ping", "ind": 1}), '"id"'),
]


class Client:
    """One connection; messages as they are, but that a decimal is the text of its digits whichever way it came."""

    def __init__(self, ws: ClientConnection):
        self.ws, self.kinds, self.bytes = ws, set(), 0

    @classmethod
    async def open(cls, port: int, protocol: str, **options: object) -> "Client":
        ws = await connect(f"ws://127.0.0.1:{port}/ws", subprotocols=[protocol], **{"compression": None} | options)
        return cls(ws)

    async def say(self, command: dict) -> None:
        await self.ws.send(msgpack.packb(command) if self.ws.subprotocol == PACKED else json.dumps(command))

    async def read(self) -> dict:
        data = await self.ws.recv()
        self.kinds.add(type(data))
        self.bytes += len(data)
        return msgpack.unpackb(data) if isinstance(data, bytes) else json.loads(data, parse_float=str)

    async def until(self, kind: str) -> dict:
        """The next message of this type."""
        async with asyncio.timeout(WAIT_S):
            while (message := await self.read())["type"] != kind:
                pass
            return message

    async def picture(self) -> int:
        """Subscribes and reads the first picture; the newest revision in it."""
        await self.say(WISH)
        self.answer, batches, self.rows = await self.until("subscribed"), [], []
        while not batches or "more" in batches[-1]:
            batches.append(await self.until("batch"))
        self.full = {row["symbol"]: row for batch in batches for row in batch["rows"]}
        return max(row["rev"] for row in self.full.values())

    async def changes(self, goal: int) -> None:
        """Reads on until everything up to this revision has come."""
        rev = 0
        while rev < goal:
            batch = await self.until("batch")
            self.rows += batch["rows"]
            rev = batch["rev"]

    def held(self, end: int) -> dict[str, dict]:
        """The images as they were at this revision."""
        images = {symbol: dict(row) for symbol, row in self.full.items()}
        for row in self.rows:
            if "channel" not in row and row["rev"] <= end:
                images[row["symbol"]] |= row
        return images

    def between(self, begin: int, end: int) -> list[str]:
        """Each row of these revisions as a text, so that the order of keys counts."""
        return [json.dumps(row) for row in self.rows if begin < row["rev"] <= end]


async def same(report: Report, gateway: Gateway) -> None:
    """Three clients of one subscription are told the same."""
    line = await Line(gateway.port).open()
    plain, packed = await Client.open(gateway.port, JSON), await Client.open(gateway.port, PACKED)
    deflated = await Client.open(line.port, PACKED, compression="deflate")
    clients = {"JSON": plain, "MessagePack": packed, "MessagePack, compressed": deflated}
    begin = max(await asyncio.gather(*(client.picture() for client in clients.values())))
    end = begin + REVS
    await asyncio.gather(*(client.changes(end) for client in clients.values()))
    expected, own = plain.between(begin, end), {"stream", "seq", "rev", "q"}
    report.check(f"there are {len(expected)} changes to compare", len(expected) > REVS / 2)
    decimals = [value for row in plain.rows for value in row.values() if isinstance(value, str) and value[:1].isdigit()]
    report.check("some with decimals", any("." in value for value in decimals), decimals[:9])
    for name, client in list(clients.items())[1:]:
        answers = [{key: value for key, value in c.answer.items() if key not in own} for c in (plain, client)]
        report.equal(f"{name}: the same answer", *answers)
        report.equal(f"{name}: the same images at the end", client.held(end), plain.held(end))
        got = client.between(begin, end)
        report.check(f"{name}: the same {len(got)} changes", got == expected, list(set(got) ^ set(expected))[:4])
        report.equal(f"{name}: nothing but binary messages", client.kinds, {bytes})
    report.equal("JSON: nothing but text", plain.kinds, {str})
    report.check("packed is shorter", packed.bytes < plain.bytes, (packed.bytes, plain.bytes))
    report.check("compressed is shorter on the wire", len(line.told[0]) < deflated.bytes * 0.8, (len(line.told[0]), deflated.bytes))
    for client in clients.values():
        await client.ws.close()


async def commands(report: Report, gateway: Gateway) -> None:
    """What may be said to a MessagePack session, and what is answered to what may not."""
    client = await Client.open(gateway.port, PACKED)
    await client.say({"action": "ping", "id": "packed"})
    report.equal("a packed command", (await client.until("pong"))["id"], "packed")
    await client.ws.send(json.dumps({"action": "ping", "id": 1 << 60}))
    report.equal("a command in JSON", (await client.until("pong"))["id"], 1 << 60)
    for name, message, words in MISTAKES:
        await client.ws.send(message)
        error = await client.until("error")
        report.check(f"{name}: {error['message']}", error["code"] == "bad_request" and words in error["message"], error)
        await client.say({"action": "ping", "id": name})
        report.equal(f"{name}: the session lives", (await client.until("pong"))["id"], name)
    await client.ws.close()


async def offers(report: Report, gateway: Gateway) -> None:
    """Which subprotocol is spoken, and that neither is taken for the other."""
    for offered in ([JSON, PACKED], [PACKED, JSON], ["x.unheard-of", PACKED, JSON]):
        async with connect(gateway.url, subprotocols=offered) as ws:
            first = next(name for name in offered if name in (JSON, PACKED))
            report.equal(f"offered {', '.join(offered)}", ws.subprotocol, first)
            report.equal("and spoken", type(await ws.recv()), bytes if first == PACKED else str)
    try:
        async with connect(gateway.url, subprotocols=["tickgate.v2.json"]) as ws:
            report.check("an unknown one is refused", False, ws.subprotocol)
    except InvalidStatus as refused:
        said = refused.response.body.decode().strip()
        good = refused.response.status_code == 400 and JSON in said and PACKED in said
        report.check(f"an unknown one is refused: {said}", good, refused)
    client = await Client.open(gateway.port, JSON)
    await client.ws.send(msgpack.packb({"action": "ping"}))
    try:
        await client.until("pong")
        report.check("a binary message on a JSON session ends it", False, "a pong")
    except ConnectionClosed as end:
        report.equal("a binary message on a JSON session ends it", end.rcvd and end.rcvd.code, 1003)


async def main(report: Report) -> None:
    chosen = arguments(__doc__).parse_args()
    async with await Gateway.start(chosen.binary, "synthetic:vn30") as gateway:
        await same(report, gateway)
        await commands(report, gateway)
        await offers(report, gateway)


if __name__ == "__main__":
    run(main)
