"""What the Python peers share: the two workloads, and the frames that the load client times.

    python PEER.py broadcast|market PORT CLIENTS

A peer brings a server, which calls `join` and `leave`, and its way to send. Rounds begin when CLIENTS have subscribed:
a busy peer would let nobody in. Bound: one row for each symbol; for each client the names it asked for.
"""

import asyncio
import itertools
import json
import random
import sys
import time

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

WORKLOAD, PORT, CLIENTS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ROUND_S = 0.1
PAYLOAD_BYTES = 200
SYMBOLS = 1_000
TICKS_PER_S = 20_000
FEED_S = 0.005  # between two looks at what ticks are due
BACKLOG = 4096  # the load client has 512 handshakes under way


def now_us() -> int:
    return time.time_ns() // 1_000


async def every(seconds: float):
    """A schedule that does not drift; whoever is late begins at once, and what was missed altogether is left out."""
    due = time.monotonic()
    while True:
        due += seconds
        late = time.monotonic() - due
        due += max(0, late // seconds) * seconds
        await asyncio.sleep(max(0, -late))
        yield


def frame(stream: int, seq: int, rev: int, ts_us: int, rows: str) -> str:
    """What the load client reads a frame's number and age from."""
    numbers = f'"stream":{stream},"seq":{seq},"prev":{seq - 1},"rev":{rev},"ts_us":{ts_us}'
    return f'{{"type":"batch",{numbers},"rows":[{rows}]}}'


class Market:
    """Ticks over all symbols by Zipf's law, the latest of each symbol kept."""

    def __init__(self) -> None:
        self.names = [f"L{number:04}" for number in range(SYMBOLS)]
        self.weights = list(itertools.accumulate(1 / rank for rank in range(1, SYMBOLS + 1)))
        self.q = dict.fromkeys(self.names, 0)
        self.changed = {}
        self.rev = 0
        self.begun_us = now_us()

    def feed(self) -> None:
        """Takes the ticks that are due by now."""
        due = (now_us() - self.begun_us) * TICKS_PER_S // 1_000_000 - self.rev
        for name in random.choices(self.names, cum_weights=self.weights, k=max(0, due)):
            self.rev += 1
            self.q[name] += 1
            self.changed[name] = self.rev

    def rows(self) -> dict[str, str]:
        """What has changed since the last call: each row is encoded once."""
        changed, self.changed = self.changed, {}
        return {name: self.row(name, rev) for name, rev in changed.items()}

    def row(self, name: str, rev: int) -> str:
        time_us = self.begun_us + rev * 1_000_000 // TICKS_PER_S
        return f'{{"symbol":"{name}","rev":{rev},"q":{self.q[name]},"time_us":{time_us},"last":{rev % 9 + 1}}}'


class Wish:
    """What a client asked for, and the number of its last frame."""

    def __init__(self, stream: int, names: list[str]) -> None:
        self.stream, self.names, self.seq = stream, names, 0


class Peer:
    """The clients that have subscribed. `to_each` sends (client, text) pairs, `to_all` (by default the same) a text."""

    def __init__(self, to_each, to_all=None) -> None:
        self.to_each = to_each
        self.to_all = to_all or (lambda clients, text: to_each((client, text) for client in clients))
        self.clients = {}
        self.all_here = asyncio.Event()

    def join(self, client, command: str) -> None:
        self.clients[client] = Wish(len(self.clients) + 1, json.loads(command)["topics"])
        if len(self.clients) == CLIENTS:
            self.all_here.set()

    def leave(self, client) -> None:
        self.clients.pop(client, None)

    async def run(self) -> None:
        """Sends for as long as the process lives."""
        await self.all_here.wait()
        if WORKLOAD == "broadcast":
            await self.broadcast()
        else:
            market = Market()
            await asyncio.gather(self.take_ticks(market), self.conflate(market))

    async def broadcast(self) -> None:
        """W1: the same text to everybody."""
        seq = 0
        async for _ in every(ROUND_S):
            seq += 1
            bare, ts_us = '{"symbol":"VCB","pad":""}', now_us()
            pad = "x" * (PAYLOAD_BYTES - len(frame(1, seq, seq, ts_us, bare)))
            text = frame(1, seq, seq, ts_us, bare.replace('""', f'"{pad}"'))
            await self.to_all(list(self.clients), text)

    async def take_ticks(self, market: Market) -> None:
        async for _ in every(FEED_S):
            market.feed()

    async def conflate(self, market: Market) -> None:
        """W3: to everybody the latest of what it asked for and has changed."""
        async for _ in every(ROUND_S):
            market.feed()
            await self.to_each(self.frames(market.rows(), market.rev, now_us()))

    def frames(self, rows: dict[str, str], rev: int, ts_us: int):
        for client, wish in list(self.clients.items()):
            if mine := [rows[name] for name in wish.names if name in rows]:
                wish.seq += 1
                yield client, frame(wish.stream, wish.seq, rev, ts_us, ",".join(mine))


def run_websockets(peer: Peer) -> None:
    """A server of the `websockets` library, as it comes."""

    async def on_client(client) -> None:
        try:
            async for command in client:
                peer.join(client, command)
        except ConnectionClosed:
            pass
        finally:
            peer.leave(client)

    async def main() -> None:
        async with serve(on_client, "127.0.0.1", PORT, backlog=BACKLOG):
            await peer.run()

    asyncio.run(main())
