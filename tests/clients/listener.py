"""A client on an event stream: a `Client` that cannot speak. Its parser is that of the HTML Standard, 9.2.6."""

import asyncio
import contextlib
import json
import re
import socket
import time

from contract import Client, Stream

EVENT_BYTES_MAX = 1 << 20


class Refused(Exception):
    """The answer was no event stream: its head, in lower case, and its body."""

    def __init__(self, head: str, body: str):
        super().__init__(head, body)
        self.status, self.head, self.body = int(head.split()[1]), head, body


class Listener(Client):
    """A session on an event stream. `closed` is (code, reason) of its last event, or (None, None) where none said why."""

    def __init__(self, source: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str):
        self.source, self.writer, self.head = source, writer, head
        self.last_id, self.retry_ms, self.why = "", None, (None, None)
        self.batches: list[tuple[str, str]] = []  # id, or nothing, and text
        super().__init__(None)

    @classmethod
    async def open(cls, port: int, query: str, last_id: str = "", held: Stream | None = None, room: int = EVENT_BYTES_MAX,
                   **headers: str) -> "Listener":
        """Asks for a stream, to go on from `last_id`, where `held` was held. `room` is what is read ahead of us."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        source, writer = await asyncio.open_connection(sock=sock, limit=room)
        headers |= {"Last-Event-ID": last_id} if last_id else {}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([f"GET /stream?{query} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        head = (await source.readuntil(b"\r\n\r\n")).decode().lower()
        if "content-type: text/event-stream" not in head:
            size = int(re.search(r"content-length: (\d+)", head)[1])
            body = (await source.readexactly(size)).decode()
            writer.close()
            raise Refused(head, body)
        listener = cls(source, writer, head)
        if last_id or "since=" in query:
            listener.asked[None], listener.held[None] = {"since": last_id}, held
        return listener

    async def read(self) -> None:
        """Feeds the session until the stream ends."""
        rest, lines = b"", []
        with contextlib.suppress(ConnectionError):
            while chunk := await self.source.read(1 << 16):
                *ended, rest = (rest + chunk).split(b"\n")
                for line in ended:
                    if line:
                        lines.append(line.decode())
                    else:
                        self.take_event(lines)
                        lines = []
                async with self.news:
                    self.news.notify_all()
        async with self.news:
            self.closed = self.why
            self.news.notify_all()

    def take_event(self, lines: list[str]) -> None:
        """One event: its fields for the browser's own machinery, and a message."""
        fields = {name: value.removeprefix(" ") for name, _, value in (line.partition(":") for line in lines)}
        if len(fields) < len(lines) or fields.keys() - {"id", "data", "retry"} or "data" not in fields:
            return self.broke(f"an event of {[line[:20] for line in lines]}")
        text = fields["data"]
        self.last_id = fields.get("id", self.last_id)
        self.retry_ms = int(fields.get("retry", 0)) or self.retry_ms
        if self.why[0]:
            self.broke(f"an event behind the close: {text[:80]}")
        if text.startswith('{"type":"close"'):
            said = json.loads(text)
            self.why = said["code"], said["reason"]
            return None
        self.feed(text, time.monotonic())
        if text.startswith('{"type":"batch"'):
            self.batches.append((fields.get("id", ""), text))
        elif "id" in fields:
            self.broke(f"an id that is no batch's: {lines[0]}")
        return None

    async def vanish(self) -> None:
        """Is gone without a word."""
        self.writer.transport.abort()
        await self.reader

    async def close(self) -> None:
        """There is no other goodbye."""
        await self.vanish()
