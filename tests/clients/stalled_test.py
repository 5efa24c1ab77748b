"""Two thousand clients, of which two hundred never read: the others must not notice.

    python3 stalled_test.py --binary PATH [--clients N] [--stuck N] [--rate R] [--seconds N]

Plain sockets and one epoll: the clients must take less of the machine than the gateway. A client looks at the numbers
of each frame and skips its rows.
"""

import asyncio
import base64
import os
import re
import resource
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from harness import Gateway, Report, arguments, cpu_s, run

STALL_MS = 2500
CONFIG = f"""
[limits]
connections_max = 2500
symbols_max = 1000
log_events_max = 1000
outbox_bytes_max = 32768
frame_bytes_max = 32768
message_bytes_max = 4096
write_stall_ms = {STALL_MS}
close_timeout_ms = 20000
ping_ms = 600000
"""
NUMBERS = re.compile(rb'\{"type":"batch","stream":(\d+),"seq":(\d+),"prev":(null|\d+),"rev":(\d+),"ts_us":(\d+)(,"snapshot":true)?')
CHUNK = 1 << 18


def request(path: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n").encode()


def frames(data: bytes, at: int):
    """Every whole frame from `at` on: (opcode, where its payload begins, where it ends)."""
    while len(data) - at >= 2:
        size, begin = data[at + 1], at + 2
        if size == 126 and len(data) - at >= 4:
            size, begin = struct.unpack_from(">H", data, at + 2)[0], at + 4
        elif size == 127 and len(data) - at >= 10:
            size, begin = struct.unpack_from(">Q", data, at + 2)[0], at + 10
        elif size > 125:
            return
        if len(data) < begin + size:
            return
        yield data[at] & 15, begin, begin + size
        at = begin + size


class Reader:
    """A client that reads everything and checks the numbers of what it reads."""

    def __init__(self, sock: socket.socket):
        self.sock, self.rest, self.upgraded = sock, b"", False
        self.seq = self.rev = None
        self.batches = self.bytes = 0
        self.last_us = self.longest_us = 0
        self.wrong: list[str] = []
        self.ended: str | None = None

    def read(self) -> None:
        """Takes what has come."""
        try:
            chunk = self.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self.ended = repr(error)
            return
        if not chunk:
            self.ended = self.ended or "closed"
            return
        self.bytes += len(chunk)
        data, at = self.rest + chunk, 0
        if not self.upgraded:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self.rest = data
                return
            self.upgraded = True
            if not data.startswith(b"HTTP/1.1 101"):
                self.ended = data[:80].decode("latin-1")
                return
        for opcode, begin, end in frames(data, at):
            at = end
            if opcode == 1:
                if match := NUMBERS.match(data, begin, end):
                    self.batch(*match.groups())
            elif opcode == 8:
                self.ended = f"close {struct.unpack_from('>H', data, begin)[0]} {data[begin + 2:end].decode()}"
        self.rest = data[at:]

    def batch(self, stream: bytes, seq: bytes, prev: bytes, rev: bytes, ts_us: bytes, snapshot: bytes | None) -> None:
        """The gap rule and the revisions; nothing may have been merged for a client that reads."""
        seq, rev, ts_us = int(seq), int(rev), int(ts_us)
        if self.seq is None:
            if prev != b"null" or not snapshot:
                self.wrong.append(f"the first frame has prev {prev!r}")
        elif prev == b"null" or int(prev) != self.seq:
            self.wrong.append(f"prev {prev!r} where {self.seq} is held")
        elif not 0 <= seq - self.seq <= 1:
            # Parts of a picture, and what completes it, may have the number before; more than 1 would be a merged frame.
            self.wrong.append(f"seq {seq} after {self.seq}")
        if self.rev is not None and rev < self.rev:
            self.wrong.append(f"rev falls from {self.rev} to {rev}")
        if self.batches > 1:
            self.longest_us = max(self.longest_us, ts_us - self.last_us)
        self.seq, self.rev, self.last_us = seq, rev, ts_us
        self.batches += 1


def connect(port: int, path: str, room: int | None = None) -> socket.socket:
    """A socket that has asked for its upgrade."""
    sock = socket.socket()
    if room:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.connect(("127.0.0.1", port))
    sock.sendall(request(path))
    sock.setblocking(False)
    return sock


class Pool(threading.Thread):
    """All readers on one epoll."""

    def __init__(self):
        super().__init__(daemon=True)
        self.poll, self.readers, self.over = select.epoll(), {}, threading.Event()
        self.moved = threading.Condition()  # somebody has read something

    def add(self, sock: socket.socket) -> Reader:
        reader = Reader(sock)
        self.readers[sock.fileno()] = reader
        self.poll.register(sock.fileno(), select.EPOLLIN)
        return reader

    def run(self) -> None:
        while not self.over.is_set():
            for number, _ in self.poll.poll(0.1):
                reader = self.readers[number]
                reader.read()
                if reader.ended:
                    self.poll.unregister(number)
            with self.moved:
                self.moved.notify_all()

    async def until(self, reached: Callable[[Reader], bool], timeout: float) -> None:
        """Waits until each reader has reached something that it will not lose again, or has ended."""
        left = list(self.readers.values())

        def all_have() -> bool:
            while left and (left[-1].ended or reached(left[-1])):
                left.pop()
            return not left

        def wait() -> None:
            with self.moved:
                self.moved.wait_for(all_have, timeout)

        await asyncio.to_thread(wait)


def last_words(sock: socket.socket) -> str:
    """Reads a stuck client's socket to its end: what was the last that it heard?"""
    sock.setblocking(True)
    sock.settimeout(10)
    reader = Reader(sock)
    while not reader.ended:
        reader.read()
        if reader.ended == "closed" and reader.rest:
            reader.ended = "ends in the middle of a frame"
    return reader.ended


async def main(report: Report) -> None:
    """Readers, stuck ones, and what the gateway says about them."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--stuck", type=int, default=200)
    parser.add_argument("--rate", type=float, default=2)
    parser.add_argument("--seconds", type=float, default=15, help="how long to watch once all are connected")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * options.clients + 500)), hard))
    path = f"/ws?symbols=*&rate={options.rate:g}"
    async with await Gateway.start(options.binary, "synthetic:load?symbols=200&rate=5000", config=CONFIG) as gateway:
        pool = Pool()
        pool.start()
        every = max(1, options.clients // max(1, options.stuck))
        stuck = []

        def arrive() -> None:
            for number in range(options.clients):
                if number % every == 0 and len(stuck) < options.stuck:
                    # Some stop in the middle of the first picture, others when they are on the stream.
                    stuck.append(connect(gateway.port, path, 4096 if len(stuck) % 2 else 131072))
                else:
                    pool.add(connect(gateway.port, path))

        await asyncio.to_thread(arrive)
        readers = list(pool.readers.values())
        await pool.until(lambda reader: reader.batches > 0, 20)
        arrived = sum(reader.batches > 0 for reader in readers)
        report.check(f"{arrived} readers have their picture", arrived == options.clients - options.stuck,
                     Counter(reader.ended for reader in readers))
        slow = 'tickgate_disconnects_total{reason="slow"}'
        before, begun, cpu = {reader: reader.seq or 0 for reader in readers}, time.monotonic(), cpu_s(gateway.process.pid)
        counted = await gateway.metric_reaches(slow, len(stuck), 40)
        half = len(stuck) // 2
        heard = await asyncio.to_thread(lambda: [last_words(sock) for sock in stuck[:half]])
        await pool.until(lambda reader: (reader.seq or 0) - before[reader] >= options.seconds * options.rate, 2 * options.seconds)
        took, cpu = time.monotonic() - begun, cpu_s(gateway.process.pid) - cpu
        got = [(reader.seq or 0) - before[reader] for reader in readers]  # parts of a picture have one number
        pool.over.set()
        pool.join()
        report.check("no reader was closed", not any(reader.ended for reader in readers), Counter(r.ended for r in readers))
        wrong = [rule for reader in readers for rule in reader.wrong]
        report.check("every reader got every frame, none merged", not wrong, f"{len(wrong)}: {wrong[:5]}")
        low, high = took * options.rate * 0.95 - 2, took * options.rate + 3
        report.check(f"frames of each: {min(got)} to {max(got)} in {took:.1f} s", low <= min(got) and max(got) <= high,
                     f"expected {low:.0f} to {high:.0f}")
        longest = max(reader.longest_us for reader in readers) / 1000
        report.check(f"the longest wait of any reader was {longest:.0f} ms", longest < 2500 / options.rate, longest)
        report.check(f"the gateway had processor time left: {cpu / took:.2f} of {os.cpu_count()} cores", cpu / took < os.cpu_count() * 0.9, cpu)
        peak = gateway.peak_mib()
        report.check(f"memory stayed under the printed bound: {peak:.0f} of {gateway.memory_mib} MiB", peak < gateway.memory_mib, peak)
        report.equal("metrics count the stuck ones as slow", counted, float(len(stuck)))
        words = Counter(re.sub(r"\d{5,}", "N", word) for word in heard)
        report.check("those that read at last find close 4001", words and all(w.startswith("close 4001 slow:") for w in words), words)
        after = await gateway.metrics()
        report.equal("nobody else was ended", {k: v for k, v in after.items() if k.startswith("tickgate_disconnects") and v and k != slow}, {})
        behind = after["tickgate_fell_behind_total"]
        report.check(f"{behind:.0f} frames were owed and not queued", behind >= half, behind)
        for sock in stuck:
            sock.close()
        for reader in readers:
            reader.sock.close()


if __name__ == "__main__":
    run(main)
