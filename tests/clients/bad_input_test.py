"""Bad input of every kind against one gateway, while a neighbour goes on undisturbed.

    python3 bad_input_test.py --binary PATH

Each row: what was sent, what the contract answers. The neighbour is another client of the same gateway; after the table
it must have seen no break, no merged frame and nothing beyond its rate. Nothing here uses a WebSocket library for the
bad side: frames are made by hand, so that they can be wrong.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import struct
import time
import zlib

from contract import Client
from harness import ROOT, Gateway, Report, arguments, http, run

CONFIG = """
[limits]
handshake_timeout_ms = 800
heartbeat_ms = 1000
ping_ms = 500
message_bytes_max = 65536
topics_per_command_max = 20
topics_per_session_max = 40
streams_per_session_max = 5
commands_per_second = 20
commands_burst = 40
refusals_max = 60
close_timeout_ms = 1000
connections_max = 200
"""
TEXT, BINARY, CLOSE, PING, PONG, CONTINUE = 1, 2, 8, 9, 10, 0
MIB = 1 << 20
ESC = "\x1b[2J\x07"


def frame(opcode: int, payload: bytes, *, final: bool = True, mask: bool = True, reserved: int = 0, length: int | None = None) -> bytes:
    """A frame, right or wrong."""
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    size, bit = len(payload) if length is None else length, 0x80 if mask else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    stream = key * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(stream[: len(payload)], "big")
    return head + key + masked.to_bytes(len(payload), "big")


def text(message: object) -> bytes:
    """A message in one good frame."""
    return frame(TEXT, (message if isinstance(message, str) else json.dumps(message)).encode())


def compressed(data: bytes) -> bytes:
    """The payload of a compressed message (RFC 7692 7.2.1)."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def handshake(path: str = "/ws", **changed: str | None) -> bytes:
    """A request to upgrade; None takes a header away."""
    headers = {
        "Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": base64.b64encode(os.urandom(16)).decode(), **changed,
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


class Raw:
    """A socket that says what we want, and reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.messages: list[dict] = []
        self.frames: list[tuple[int, bytes]] = []
        self.close: tuple[int | None, str] | None = None

    @classmethod
    async def open(cls, port: int) -> "Raw":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=4 * MIB))

    @classmethod
    async def upgraded(cls, port: int, path: str = "/ws", **headers: str) -> "Raw":
        """A good handshake, and the welcome read."""
        raw = await cls.open(port)
        await raw.send(handshake(path, **headers))
        status = await raw.status()
        assert status.startswith("HTTP/1.1 101"), status
        await raw.until(lambda message: message["type"] == "welcome")
        return raw

    async def send(self, data: bytes) -> None:
        """Sends, unless the other side has gone."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def status(self, timeout: float = 5) -> str:
        """The head of the answer; what came instead, if it ended."""
        async with asyncio.timeout(timeout):
            try:
                return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            except asyncio.IncompleteReadError as error:
                return error.partial.decode("latin-1")
            except ConnectionError:
                return ""

    async def read(self) -> bool:
        """One frame; False at the end."""
        try:
            head = await self.reader.readexactly(2)
            size = head[1] & 127
            if size == 126:
                size = struct.unpack(">H", await self.reader.readexactly(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", await self.reader.readexactly(8))[0]
            payload = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        opcode = head[0] & 15
        self.frames.append((opcode, payload))
        if opcode == TEXT:
            self.messages.append(json.loads(payload))
        elif opcode == PING:
            await self.send(frame(PONG, payload))
        elif opcode == CLOSE:
            code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else None
            self.close = (code, payload[2:].decode())
        return True

    async def until(self, wanted, timeout: float = 5) -> dict | None:
        """The first message that is wanted; None when the socket ended or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                seen = 0
                while True:
                    for message in self.messages[seen:]:
                        if wanted(message):
                            return message
                    seen = len(self.messages)
                    if not await self.read():
                        return None
        return None

    async def end(self, timeout: float = 5) -> tuple[int | None, str] | None:
        """Reads to the end; the close frame, if one came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while await self.read():
                    pass
        return self.close

    async def closed(self, timeout: float) -> float | None:
        """How long until the other side closed without a word more; None if it did not."""
        begun = time.monotonic()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(timeout):
                while await self.reader.read(4096):
                    pass
                return time.monotonic() - begun
        return time.monotonic() - begun if self.reader.at_eof() or self.reader.exception() else None

    def hang_up(self) -> None:
        self.writer.transport.abort()


def subscribe(**options) -> dict:
    return {"action": "subscribe", "id": 7, "topics": ["VCB"], **options}


# (name, message, code, words of the answer): the session lives and is asked for a pong afterwards.
ERRORS = [
    ("not JSON", "nonsense", "bad_request", "not JSON"),
    ("half a JSON", '{"action":"subscribe","topics":["VCB"', "bad_request", "not JSON"),
    ("empty", "", "bad_request", "not JSON"),
    ("two objects", '{"action":"ping"}{"action":"ping"}', "bad_request", "not JSON"),
    ("NaN", '{"action":"subscribe","topics":["VCB"],"rate":NaN}', "bad_request", "not JSON"),
    ("a number too long", '{"action":"subscribe","topics":["VCB"],"rate":1e999}', "bad_request", ""),
    ("JSON 5000 deep", "[" * 5000, "bad_request", "not JSON"),
    ("a list", "[]", "bad_request", "object"),
    ("a string", '"subscribe"', "bad_request", "object"),
    ("null", "null", "bad_request", "object"),
    ("no action", {}, "bad_request", "action"),
    ("action of a wrong type", {"action": 7}, "bad_request", "action"),
    ("unknown action", {"action": "sbuscribe"}, "unknown_action", "sbuscribe"),
    ("no topics", {"action": "subscribe"}, "bad_request", "topics"),
    ("topics a string", subscribe(topics="VCB"), "bad_request", "topics"),
    ("topics of numbers", subscribe(topics=[1]), "bad_request", "topics"),
    ("topics empty", subscribe(topics=[]), "bad_request", "topics"),
    ("topic and topics", subscribe(topic="VCB"), "bad_request", "topic"),
    ("rate 0", subscribe(rate=0), "bad_request", "rate"),
    ("rate -1", subscribe(rate=-1), "bad_request", "rate"),
    ("rate a string", subscribe(rate="fast"), "bad_request", "rate"),
    ("depth 0", subscribe(depth=0), "bad_request", "depth"),
    ("depth 1001", subscribe(depth=1001), "bad_request", "depth"),
    ("depth 1.5", subscribe(depth=1.5), "bad_request", "depth"),
    ("mode unknown", subscribe(mode="fast"), "bad_request", "mode"),
    ("mode a number", subscribe(mode=1), "bad_request", "mode"),
    ("field unknown", subscribe(fields=["lats"]), "bad_request", "lats"),
    ("fields a string", subscribe(fields="last"), "bad_request", "fields"),
    ("delta a string", subscribe(delta="true"), "bad_request", "delta"),
    ("snapshot a number", subscribe(snapshot=1), "bad_request", "snapshot"),
    ("decimals unknown", subscribe(decimals="float"), "bad_request", "decimals"),
    ("since a number", subscribe(since=7), "bad_request", "since"),
    ("sub with a space", subscribe(sub="a b"), "bad_request", "sub"),
    ("sub empty", subscribe(sub=""), "bad_request", "sub"),
    ("sub of 65 characters", subscribe(sub="x" * 65), "bad_request", "sub"),
    ("id an object", {"action": "ping", "id": {}}, "bad_request", "id"),
    ("id of 65 characters", {"action": "ping", "id": "x" * 65}, "bad_request", "id"),
    ("unknown key", subscribe(feilds=[]), "bad_request", '"fields"'),
    ("unknown key of ping", {"action": "ping", "topics": []}, "bad_request", "topics"),
    ("unsubscribe without sub", {"action": "unsubscribe"}, "bad_request", "sub"),
    ("unsubscribe what is not", {"action": "unsubscribe", "sub": "nope"}, "unknown_sub", ""),
    ("unknown topic", subscribe(topics=["NOPE"]), "unknown_topic", ""),
    ("unknown group", subscribe(topics=["@NOPE"]), "unknown_topic", ""),
    ("unknown channel", subscribe(topics=["news:VCB"]), "bad_topic", ""),
    ("a topic with a space", subscribe(topics=["V CB"]), "bad_topic", ""),
    ("an empty topic", subscribe(topics=[""]), "bad_topic", ""),
    ("a star in the middle", subscribe(topics=["V*B"]), "bad_topic", ""),
    ("too many topics in a command", subscribe(topics=[f"T{n}" for n in range(21)]), "topic_limit", "20"),
    ("more topics than a session may have", subscribe(topics=["*", "book:*"]), None, ""),
    # Nothing that a terminal obeys, and not more than 64 characters, comes back.
    ("ESC in an action", {"action": ESC + "x"}, "unknown_action", ""),
    ("ESC in a topic", subscribe(topics=[ESC + "VCB"]), "bad_topic", ""),
    ("ESC in a field", subscribe(fields=[ESC]), "bad_request", ""),
    ("ESC in a key", {"action": "ping", ESC: 1}, "bad_request", ""),
    ("C1 controls in a topic", subscribe(topics=["\u009b31mVCB\u0085"]), "bad_topic", ""),
    ("a text that turns direction", {"action": "\u202eevil"}, "unknown_action", ""),
    ("60 KB in an action", {"action": "x" * 60_000}, "unknown_action", ""),
    ("60 KB in a topic", subscribe(topics=["x" * 60_000]), "bad_topic", ""),
    ("60 KB in a field", subscribe(fields=["x" * 60_000]), "bad_request", ""),
    ("60 KB in a key", {"action": "ping", "x" * 60_000: 1}, "bad_request", ""),
    ("60 KB in a sub", {"action": "unsubscribe", "sub": "x" * 60_000}, None, ""),
    ("NUL in a topic", subscribe(topics=["VCB\0"]), "bad_topic", ""),
]

# (name, bytes, close code): the session ends.
ENDS = [
    ("binary message", frame(BINARY, b'{"action":"ping"}'), 1003),
    ("unmasked frame", frame(TEXT, b'{"action":"ping"}', mask=False), 1002),
    ("reserved bit 1", frame(TEXT, b"{}", reserved=4), 1002),
    ("reserved bit 2", frame(TEXT, b"{}", reserved=2), 1002),
    ("reserved bit 3", frame(PING, b"", reserved=1), 1002),
    ("reserved opcode 3", frame(3, b""), 1002),
    ("reserved opcode 11", frame(11, b""), 1002),
    ("a ping in parts", frame(PING, b"x", final=False), 1002),
    ("a ping of 126 bytes", frame(PING, b"x" * 126), 1002),
    ("a continuation of nothing", frame(CONTINUE, b"x"), 1002),
    ("a message inside a message", frame(TEXT, b'{"act', final=False) + frame(TEXT, b"{}"), 1002),
    ("a binary message inside a message", frame(TEXT, b'{"act', final=False) + frame(BINARY, b"{}"), 1002),
    ("invalid UTF-8", frame(TEXT, b'{"action":"\xff\xfe"}'), 1007),
    ("UTF-8 of a surrogate", frame(TEXT, b'"\xed\xa0\x80"'), 1007),
    ("invalid UTF-8 over two parts", frame(TEXT, b'"\xe2', final=False) + frame(CONTINUE, b'\x28"'), 1007),
    ("a message of 64 KiB and one byte", frame(TEXT, b" " * 65537), 1009),
    ("the head of a message of 4 GiB", frame(TEXT, b"", length=1 << 32), 1009),
    ("the head of a message of 2^63 bytes", frame(TEXT, b"", length=1 << 63), (1002, 1009)),
    ("parts of 64 KiB and one byte together", frame(TEXT, b" " * 40000, final=False) + frame(CONTINUE, b" " * 25537), 1009),
    ("close with code 1005", frame(CLOSE, struct.pack(">H", 1005)), 1002),
    ("close with half a code", frame(CLOSE, b"\x03"), 1002),
    ("close with invalid UTF-8", frame(CLOSE, struct.pack(">H", 1000) + b"\xff"), 1007),
    ("a good close", frame(CLOSE, struct.pack(">H", 1000) + b"bye"), 1000),
    ("a close without a code", frame(CLOSE, b""), (1000, None)),
    ("a close in the middle of a message", frame(TEXT, b"{", final=False) + frame(CLOSE, struct.pack(">H", 1001)), (1000, 1001)),
]

# What a client sends that asked for compression; (name, bytes, close code).
DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}
PACKED_PING = compressed(b'{"action":"ping","id":9}')
PACKED_ENDS = [
    ("256 MiB of blanks in 256 KiB", frame(TEXT, compressed(b" " * (256 * MIB))[:60_000], reserved=4), 1009),
    ("64 KiB and one byte, compressed", frame(TEXT, compressed(b" " * 65537), reserved=4), 1009),
    ("a bomb in parts", frame(TEXT, compressed(b" " * MIB)[:99], final=False, reserved=4)
     + frame(CONTINUE, compressed(b" " * MIB)[99:]), 1009),
    ("what is not compressed", frame(TEXT, b'{"action":"ping"}', reserved=4), (1002, 1007)),
    ("a block of a kind that is not", frame(TEXT, b"\xff" * 20, reserved=4), 1002),
    ("a distance before the beginning", frame(TEXT, b"\x02\x02\x00", reserved=4), 1002),
    ("invalid UTF-8 inside", frame(TEXT, compressed(b'"\xff"'), reserved=4), 1007),
    ("a compressed binary message", frame(BINARY, PACKED_PING, reserved=4), 1003),
    ("a compressed ping", frame(PING, b"x", reserved=4), 1002),
    ("the bit in a continuation", frame(TEXT, PACKED_PING[:5], final=False, reserved=4) + frame(CONTINUE, PACKED_PING[5:], reserved=4), 1002),
    ("reserved bit 2 too", frame(TEXT, PACKED_PING, reserved=6), 1002),
]
# (offer, what is answered): an offer that cannot be kept is as none.
ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
OFFERS = [
    ("permessage-deflate", ANSWER),
    ("permessage-deflate; client_max_window_bits", ANSWER),
    ("permessage-deflate; server_max_window_bits=8; client_max_window_bits=8", f"{ANSWER}; server_max_window_bits=8"),
    ("x-unheard-of, permessage-deflate; server_max_window_bits=99, permessage-deflate", ANSWER),
    ('permessage-deflate; server_max_window_bits="9"', f"{ANSWER}; server_max_window_bits=9"),
    ("x-unheard-of\r\nSec-WebSocket-Extensions: permessage-deflate", ANSWER),
    ("permessage-deflate; mux\r\nSec-WebSocket-Extensions: x-unheard-of, permessage-deflate", ANSWER),
    ('permessage-deflate; server_max_window_bits="9', None),
    ("permessage-deflate; server_max_window_bits=7", None),
    ("permessage-deflate; server_max_window_bits", None),
    ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
    ("permessage-deflate; colour=red", None),
    ("permessage-bzip2", None),
    (";;,,=;" * 100, None),
]

# (name, request, status)
REQUESTS = [
    ("no Upgrade header", handshake(Upgrade=None), 426),
    ("no Connection header", handshake(Connection=None), 426),
    ("no Sec-WebSocket-Key", handshake(Sec_WebSocket_Key=None), 400),
    ("a key of 3 bytes", handshake(Sec_WebSocket_Key="AAAA"), 400),
    ("a key that is no base64", handshake(Sec_WebSocket_Key="!" * 22 + "=="), 400),
    ("version 8", handshake(Sec_WebSocket_Version="8"), 400),
    ("no version", handshake(Sec_WebSocket_Version=None), 400),
    ("a protocol nobody speaks", handshake(Sec_WebSocket_Protocol="graphql-ws"), 400),
    ("POST to /ws", b"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 405),
    ("DELETE", b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ("an unknown path", b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("a path that climbs", b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("a path that climbs in disguise", b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("a URL of 100 KB", b"GET /ws?symbols=" + b"A," * 50_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (400, 414, 431)),
    ("a header of 100 KB", b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"A" * 100_000 + b"\r\n\r\n", (400, 431)),
    ("2000 headers", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 2000 + b"\r\n", (400, 431)),
    ("HTTP garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", 400),
    ("HTTP/0.9", b"GET /\r\n\r\n", (400, 505)),
    ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", (400, 505)),
    ("a NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("two lengths", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ("a snapshot of nothing known", b"GET /v1/snapshot?symbols=%1b%5b2J HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    ("a snapshot with bad escapes", b"GET /v1/snapshot?symbols=%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a snapshot with an unknown key", b"GET /v1/snapshot?sybmols=VCB HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a snapshot with a key twice", b"GET /v1/snapshot?symbols=VCB&symbols=FPT HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a snapshot with both names of topics", b"GET /v1/snapshot?symbols=VCB&topics=FPT HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a snapshot of too many topics", b"GET /v1/snapshot?symbols=*,book:*,trade:*,status:* HTTP/1.1\r\nHost: x\r\n\r\n", 400),
]


def harmless(message: object) -> bool:
    """No control character, and no run of the client's own 60 KB longer than 64 characters, comes back."""
    said = json.dumps(message, ensure_ascii=False)
    controls = re.search(r"\\u00[01890][0-9a-f]|\\[bfnrt]|[\x00-\x1f\x7f-\x9f\u202a-\u202e]", said)
    return not controls and not re.search(r"x{65}", said) and len(said) < 2000


async def errors(report: Report, port: int) -> None:
    """Refusals: each on a session of its own, which lives."""
    for name, message, code, words in ERRORS:
        raw = await Raw.upgraded(port)
        await raw.send(text(message))
        answer = await raw.until(lambda m: m["type"] in ("error", "subscribed"))
        if name == "more topics than a session may have":
            codes = [r["code"] for r in (answer or {}).get("rejected", [])]
            report.check(f"error: {name}", "topic_limit" in codes, answer)
        else:
            good = answer is not None and answer["type"] == "error" and code in (None, answer["code"])
            report.check(f"error: {name}", good and words in json.dumps(answer["message"]).replace('\\"', '"'), str(answer)[:300])
        report.check(f"error: {name}: nothing harmful comes back", harmless(answer), str(answer)[:300])
        if isinstance(message, dict) and "id" in message and not isinstance(message["id"], dict) and len(str(message["id"])) < 65:
            report.equal(f"error: {name}: carries the id", answer and answer.get("id"), message["id"])
        await raw.send(text({"action": "ping", "id": "alive"}))
        pong = await raw.until(lambda m: m["type"] == "pong")
        report.check(f"error: {name}: the session lives", pong is not None, raw.close)
        raw.hang_up()


async def ends(report: Report, port: int) -> None:
    """What ends a session, with which code."""
    for name, data, codes, headers in [(*row, {}) for row in ENDS] + [(*row, DEFLATE) for row in PACKED_ENDS]:
        raw = await Raw.upgraded(port, **headers)
        await raw.send(data)
        close = await raw.end()
        codes = codes if isinstance(codes, tuple) else (codes,)
        report.check(f"end: {name}: {codes}", close is not None and close[0] in codes, close)
        if close and close[0] not in (None, 1000, 1001):
            report.check(f"end: {name}: the reason is code:text", re.fullmatch(r"[a-z0-9_]+:[ -~]+", close[1]) is not None, close)
        raw.hang_up()


async def offers(report: Report, port: int) -> None:
    """What compression is agreed on, and that a client may use it or not."""
    for offer, answer in OFFERS:
        raw = await Raw.open(port)
        await raw.send(handshake(Sec_WebSocket_Extensions=offer))
        said = re.search(r"(?i)sec-websocket-extensions: (.*?)\r\n", await raw.status())
        report.equal(f"offer: {offer[:80]}", said and said[1], answer)
        raw.hang_up()
    raw = await Raw.upgraded(port, **DEFLATE)
    for name, data in [
        ("compressed", frame(TEXT, PACKED_PING, reserved=4)), ("raw", text({"action": "ping", "id": 9})),
        ("compressed in parts, with a ping between",
         frame(TEXT, PACKED_PING[:5], final=False, reserved=4) + frame(PING, b"") + frame(CONTINUE, PACKED_PING[5:])),
    ]:
        raw.messages.clear()
        await raw.send(data)
        pong = await raw.until(lambda m: m["type"] == "pong")
        report.check(f"offer: a command comes {name}", pong is not None and pong["id"] == 9, raw.close)
    raw.hang_up()


async def requests(report: Report, port: int) -> None:
    """What is no good handshake or request."""
    for name, data, codes in REQUESTS:
        raw = await Raw.open(port)
        await raw.send(data)
        status = await raw.status()
        codes = codes if isinstance(codes, tuple) else (codes,)
        code = int(status.split(" ")[1]) if status.startswith("HTTP/1.1 ") else None
        report.check(f"request: {name}: {codes}", code in codes, status[:200] or "closed without an answer")
        raw.hang_up()
    raw = await Raw.open(port)
    await raw.send(handshake(Sec_WebSocket_Protocol="graphql-ws, tickgate.v1.json"))
    status = await raw.status()
    report.check("request: our protocol among others is taken",
                 status.startswith("HTTP/1.1 101") and "sec-websocket-protocol: tickgate.v1.json" in status.lower(), status)
    raw.hang_up()
    for query, words in [("symbols=VCB&rate=fast", "rate"), ("symbols=VCB&topics=FPT", "symbols and topics"),
                         ("symbols=VCB&rate=1&rate=2", "rate: given twice")]:
        raw = await Raw.upgraded(port, f"/ws?{query}")
        error = await raw.until(lambda m: m["type"] in ("error", "subscribed"))
        report.check(f"request: {query} gets an error in the session",
                     error is not None and error.get("code") == "bad_request" and words in error["message"], error)
        raw.hang_up()


async def slow_handshakes(report: Report, port: int) -> None:
    """A client that does not finish its handshake is not waited for."""

    async def one(name: str, first: bytes, drip: bytes) -> None:
        raw = await Raw.open(port)
        await raw.send(first)

        async def dripping() -> None:
            for byte in drip:
                await raw.send(bytes([byte]))
                await asyncio.sleep(0.1)  # the drip itself

        task = asyncio.create_task(dripping())
        took = await raw.closed(6)
        task.cancel()
        report.check(f"handshake: {name}: closed after 0.8 s", took is not None and 0.4 <= took <= 2.5, f"took {took} s")
        raw.hang_up()

    whole = handshake()
    await asyncio.gather(
        one("nothing sent", b"", b""),
        one("half of it", whole[: len(whole) // 2], b""),
        one("one byte every 100 ms", b"", whole),
        one("a header that never ends", whole[:-2] + b"X: ", b"y" * 100),
    )


async def floods(report: Report, port: int) -> None:
    """Too much of what is allowed."""
    raw = await Raw.upgraded(port)
    await raw.send(text({"action": "ping", "id": 1}) * 45)
    limited = await raw.until(lambda m: m["type"] == "error")
    good = limited is not None and limited["code"] == "rate_limited" and 0 < limited.get("retry_after_ms", 0) <= 5000
    report.check("flood: commands beyond the burst are rate_limited with retry_after_ms", good, limited)
    before = sum(m["type"] == "pong" for m in raw.messages)
    report.check("flood: answers come in the order of the commands", before >= 40, f"refused after {before} answers, sent as 41st")
    await raw.until(lambda _: sum(m["type"] == "pong" for m in raw.messages) >= 40)
    pongs = sum(m["type"] == "pong" for m in raw.messages)
    report.check("flood: the burst itself was served", pongs >= 40, pongs)
    report.check("flood: the refusal carries the command's id", limited is not None and limited.get("id") == 1, limited)
    if good:
        await asyncio.sleep(limited["retry_after_ms"] / 1000 + 0.05)  # as the answer says
        await raw.send(text({"action": "ping", "id": "later"}))
        later = await raw.until(lambda m: m.get("id") == "later" or m["type"] == "error" and m is not limited)
        report.check("flood: after retry_after_ms a command is served", later is not None, raw.close)
    raw.hang_up()
    for name, data in [("commands", text({"action": "ping"})), ("nonsense", text("x")), ("pings", frame(PING, b"hi")),
                       ("empty parts", frame(CONTINUE, b"", final=False)),
                       ("commands of 60 KB in 100 bytes", frame(TEXT, compressed(b'{"action":"ping"}' + b" " * 60_000), reserved=4))]:
        raw = await Raw.upgraded(port, **DEFLATE)
        first = frame(TEXT, b"", final=False) if name == "empty parts" else b""
        await raw.send(first + data * 2000)
        close = await raw.end()
        report.check(f"flood: 2000 {name} end with 1008", close is not None and close[0] == 1008, close)
        raw.hang_up()


async def limits(report: Report, port: int) -> None:
    """Numbers of things."""
    raw = await Raw.upgraded(port)
    for _ in range(2):
        await raw.send(text(subscribe(sub="a")))
    error = await raw.until(lambda m: m["type"] == "error")
    report.check("limit: a sub twice is sub_in_use", error is not None and error["code"] == "sub_in_use", error)
    for n in range(6):
        await raw.send(text(subscribe(sub=f"s{n}")))
    error = await raw.until(lambda m: m["type"] == "error" and m["code"] != "sub_in_use")
    report.check("limit: a sixth stream is stream_limit", error is not None and error["code"] == "stream_limit", error)
    report.equal("limit: five are served", sum(m["type"] == "subscribed" for m in raw.messages), 5)
    raw.hang_up()
    raw = await Raw.upgraded(port)
    await raw.send(text(subscribe(topics=["*"])) + text(subscribe(topics=["VCB", "book:*"])))
    second = await raw.until(lambda m: m["type"] in ("subscribed", "error") and m.get("rejected"))
    codes = [r["code"] for r in (second or {}).get("rejected", [])]
    report.check("limit: topics beyond 40 are rejected one by one, the others served",
                 second is not None and second["type"] == "subscribed" and codes == ["topic_limit"] and second["topics"] == 1, second)
    raw.hang_up()
    raw = await Raw.upgraded(port)
    await raw.send(text(subscribe(topics=["VCB", "NOPE", "news:VCB", "FPT"])))
    mixed = await raw.until(lambda m: m["type"] == "subscribed")
    report.check("limit: good topics are served beside bad ones", mixed is not None and mixed["topics"] == 2
                 and [r["code"] for r in mixed["rejected"]] == ["unknown_topic", "bad_topic"], mixed)
    raw.hang_up()
    # Control frames may stand between the parts of a message.
    raw = await Raw.upgraded(port)
    await raw.send(frame(TEXT, b'{"action":', final=False) + frame(PING, b"now") + frame(CONTINUE, b'"ping","id":9}'))
    pong = await raw.until(lambda m: m["type"] == "pong")
    report.check("a ping between the parts of a message is answered, and the message too",
                 pong is not None and pong["id"] == 9 and (PONG, b"now") in raw.frames, raw.frames[-3:])
    raw.hang_up()


async def megabytes(report: Report, gateway: Gateway) -> None:
    """Bytes that nobody wants are not kept."""
    before = gateway.rss_mib()
    for name, first in [("one message of 10 MB", frame(TEXT, b"", length=10 * MIB)),
                        ("1 MB of text in a name", frame(TEXT, b'{"action":"subscribe","topics":["', length=MIB))]:
        raw = await Raw.upgraded(gateway.port)
        await raw.send(first)
        task = asyncio.create_task(raw.end(10))
        for _ in range(160 if "10" in name else 16):
            if raw.reader.at_eof() or raw.writer.is_closing():
                break
            await raw.send(b"x" * 65536)
        close = await task
        report.check(f"megabytes: {name} ends with 1009", close is not None and close[0] == 1009, close)
        raw.hang_up()
    sixty_four = [await Raw.upgraded(gateway.port) for _ in range(50)]
    for raw in sixty_four:
        await raw.send(frame(TEXT, b"x" * 1000, final=False) + frame(CONTINUE, b"", length=60_000)[:14] + b"y" * 50_000)
    grown = gateway.rss_mib() - before
    report.check("megabytes: memory grows by what was announced at most", grown < 3 + 50 * 64 / 1024 * 2, f"{grown:.1f} MiB")
    for raw in sixty_four:
        raw.hang_up()
    grown = gateway.rss_mib() - before
    report.check(f"megabytes: memory grew by a few MB at most ({grown:.1f} MiB)", grown < 8, f"from {before:.1f} MiB by {grown:.1f}")


async def silent(report: Report, port: int) -> None:
    """A client that does not answer pings is gone after two of them."""
    raw = await Raw.upgraded(port)
    begun = time.monotonic()
    answer, raw.send = raw.send, lambda data: asyncio.sleep(0)
    close = await raw.end(10)
    took = time.monotonic() - begun
    report.check("silence: two pings without an answer end with 4002", close is not None and close[0] == 4002, close)
    report.check("silence: after about three intervals of 0.5 s", 1.0 <= took <= 4.0, f"{took:.1f} s")
    raw.send = answer
    raw.hang_up()


async def crowd(report: Report, gateway: Gateway) -> None:
    """More connections than there is room for."""
    crowd = [await Raw.open(gateway.port) for _ in range(220)]
    waiting = [asyncio.create_task(raw.status(4)) for raw in crowd]
    for raw in crowd:
        await raw.send(handshake())
    heads = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [head for head in heads if isinstance(head, str) and head.startswith("HTTP/1.1 503")]
    served = sum(isinstance(head, str) and head.startswith("HTTP/1.1 101") for head in heads)
    report.check("crowd: the limit of 200 connections holds", 150 <= served <= 200 and served + len(refused) == 220,
                 f"{served} served, {len(refused)} refused; four neighbours")
    report.check("crowd: 503 comes with Retry-After", refused and all("retry-after:" in head.lower() for head in refused), refused[:1])
    for raw in crowd:
        raw.hang_up()
    left = len(crowd)
    deadline = time.monotonic() + 10
    while left > 4 and time.monotonic() < deadline:
        left = (await gateway.metrics())["tickgate_connections"]
    report.check("crowd: their places are free again", left <= 4, f"{left} connections are counted")


async def overload(report: Report, binary: str) -> None:
    """A feed that is too fast for the ingest queue: what it loses is counted."""
    config = "[limits]\ningest_updates_max = 16\n"
    async with await Gateway.start(binary, "synthetic:vn30?rate=10000000", config=config) as gateway:
        for reason in ("ingest_merged", "ingest_overflow"):
            seen = await gateway.metric_reaches(f'tickgate_losses_total{{reason="{reason}"}}', 1, 5)
            report.check(f"overload: {reason} is counted", seen > 0, seen)


async def main(report: Report) -> None:
    """The table, with a neighbour beside it."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    async with await Gateway.start(options.binary, "synthetic:vn30?rate=2000", config=CONFIG) as gateway:
        neighbours = [await Client.connect(gateway.url) for _ in range(4)]
        for neighbour in neighbours:
            await neighbour.subscribe("@VN30", sub="rated", rate=10)
            await neighbour.subscribe("trade:VCB", sub="trades", mode="every")
        begun = time.monotonic()
        await errors(report, gateway.port)
        await ends(report, gateway.port)
        await offers(report, gateway.port)
        await requests(report, gateway.port)
        await slow_handshakes(report, gateway.port)
        await floods(report, gateway.port)
        await limits(report, gateway.port)
        await silent(report, gateway.port)
        await megabytes(report, gateway)
        await crowd(report, gateway)
        took = time.monotonic() - begun
        for at, neighbour in enumerate(neighbours):
            report.check(f"neighbour {at} is still served", neighbour.closed is None, neighbour.closed)
            report.clean(f"neighbour {at} saw no rule broken", neighbour.violations)
            if neighbour.closed:
                continue
            rated, trades = neighbour.subs["rated"], neighbour.subs["trades"]
            report.equal(f"neighbour {at}: no merged frame", (rated.merged, trades.merged), (0, 0))
            report.equal(f"neighbour {at}: no trade was lost", dict(trades.lost), {})
            report.check(f"neighbour {at}: a frame per slot ({rated.frames} in {took:.1f} s)",
                         took * 10 * 0.9 <= rated.frames <= took * 10 + 3, rated.frames)
            await neighbour.close()
        status, _, _ = await http(gateway.admin_port, "/livez")
        report.equal("the gateway lives", (status, gateway.process.returncode), (200, None))
        await gateway.metric_reaches('tickgate_disconnects_total{reason="no_pong"}', 1, 3)
        counted = await gateway.metrics()
        for reason in ("protocol_error", "invalid_utf8", "unexpected_binary", "flood", "message_too_big", "no_pong"):
            name = f'tickgate_disconnects_total{{reason="{reason}"}}'
            report.check(f"counted: {reason}", counted.get(name, 0) > 0, counted.get(name))
        for reason in ("bad_request", "unknown_action", "bad_topic", "unknown_topic", "topic_limit", "stream_limit", "unknown_sub",
                       "sub_in_use", "rate_limited"):
            name = f'tickgate_refusals_total{{reason="{reason}"}}'
            report.check(f"counted: {reason}", counted.get(name, 0) > 0, counted.get(name))
        listed = re.findall(r' = "(\w+)", (End|Refusal|Loss)', (ROOT / "src/base/reason.rs").read_text())
        families = {"disconnects": "End", "refusals": "Refusal", "losses": "Loss"}
        shown = re.findall(r'tickgate_(disconnects|refusals|losses)_total\{reason="(\w+)"\}', "\n".join(counted))
        report.equal("every reason is counted under one name", sorted((reason, families[name]) for name, reason in shown), sorted(listed))
        panics = [line for line in gateway.errors.read_text().splitlines() if "panicked" in line]
        report.equal("nothing panicked", panics, [])
    await overload(report, options.binary)


if __name__ == "__main__":
    run(main)
