"""The reference client: written from docs/protocol.md alone, and strict about it.

    python3 contract.py --binary PATH [--seconds N]     tries every kind of subscription against a gateway of its own
    python3 contract.py --url ws://.../ws --seconds N   watches a gateway that runs already

`Session` is the contract: it is fed messages, keeps the tables and notes every broken rule. `Client` is a `Session`
on a socket. Numbers are read exactly: a decimal is an int or a Decimal, never a float.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import defaultdict, deque
from decimal import Decimal

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from harness import Gateway, Report, arguments, http, run

QUOTE = (
    "state phase last last_size bid bid_size ask ask_size open high low prev_close volume turnover change change_pct average"
    " reference ceiling floor auction_price auction_volume open_interest foreign_buy foreign_sell foreign_room trading_date"
).split()
INDEX = (
    "state phase last open high low prev_close change change_pct volume turnover advances declines unchanged ceilings floors"
).split()
STATES = {"pending", "live", "closed", "halted", "stale", "suspect"}
PHASES = {"pre_open", "ato", "continuous", "break", "atc", "put_through", "closed"}
CODES = {
    "bad_request", "unknown_action", "bad_topic", "unknown_topic", "topic_limit", "stream_limit", "unknown_sub",
    "sub_in_use", "rate_limited", "unknown_tick",
}
GAP_REASONS = {"ingest_overflow", "log_overrun", "upstream_gap", "feed_reset"}
EVENTS = {"trade", "status"}
BARS = {"bar_1s", "bar_1m", "bar_5m", "bar_1h"}

# (required keys, optional keys) of every message and part of one.
LIMITS = ({"message_bytes", "topics_per_command", "topics", "streams", "commands_per_second", "commands_burst", "rate"}, set())
SHAPES = {
    "welcome": ({"type", "epoch", "session", "version", "heartbeat_ms", "simulated", "limits"}, set()),
    "subscribed": (
        {"type", "sub", "stream", "seq", "rev", "wish", "mode", "rate", "capped_by", "fields", "delta", "depth", "decimals",
         "columns", "digest", "filter", "topics", "q", "rejected", "recovered"}, {"id"},
    ),
    "unsubscribed": ({"type", "sub", "stream"}, {"id"}),
    "list": ({"type", "subs"}, {"id"}),
    "pong": ({"type", "ts_us"}, {"id"}),
    "error": ({"type", "code", "message"}, {"id", "retry_after_ms", "rejected"}),
    "drain": ({"type", "reconnect_in_ms", "to"}, set()),
    "heartbeat": ({"type", "ts_us", "streams"}, set()),
    "batch": (
        {"type", "stream", "seq", "prev", "rev", "ts_us", "rows"}, {"snapshot", "more", "gaps", "added", "removed", "epoch"},
    ),
}
LISTED = (SHAPES["subscribed"][0] - {"type"} | {"held_seq", "held_rev", "lag_revs", "merged", "rows", "gaps"}, set())
REJECTED = ({"topic", "code", "message"}, set())
GAP = ({"topic", "from", "to", "reason"}, set())
ROW = {"symbol", "rev", "q", "time_us"}
BOOK = (ROW | {"channel", "full", "state", "bids", "asks"}, set())
TRADE = (ROW | {"channel", "price", "size", "side", "kind"}, {"trade_id", "ref_trade_id", "source_seq"})
STATUS = (ROW | {"channel", "phase"}, set())
BAR = (ROW | {"channel", "full", "start_us", "open", "high", "low", "close", "volume", "trades", "final"}, {"partial"})
FRAME_BYTES_MAX = 64 << 10
# Wall and monotonic clock of the server drift apart by this much at most while frames are compared.
SLOT_TOLERANCE_US = 1_000
QUIET_INTERVALS = 2.5
# Parts of one picture follow each other without a wait for the next slot.
MORE_US_MAX = 400_000


class Stream:
    """What the client holds of one subscription."""

    def __init__(self, answer: dict, snapshot: bool, selected: list[str] | None):
        self.answer, self.sub, self.number = answer, answer["sub"], answer["stream"]
        self.snapshot_asked = snapshot
        self.mode, self.rate = answer["mode"], answer["rate"]
        self.strings = answer["decimals"] == "string"
        self.columns: list[list[str] | None] | None = answer["columns"]
        self.seq = None if snapshot else answer["seq"]
        self.rev = 0 if snapshot else answer["rev"]
        self.whole = not snapshot  # the first picture is complete
        self.more = False  # the frame before said that it goes on
        self.table: dict[str, dict] = {}
        self.q: dict[str, int] = dict(answer["q"])  # of event topics: the last number held
        self.frames = self.rows = self.merged = self.near = 0
        self.part_us = 0  # when the frame before was made
        self.frames_since_heartbeat = 1  # `subscribed` said where the stream stands
        self.times_us: deque[int] = deque(maxlen=16)
        self.lost: dict[str, int] = defaultdict(int)
        self.selections = []
        for every in (QUOTE, INDEX):
            # A channel that has none of the names is whole.
            some = {name for name in every if selected is None or name in selected}
            self.selections.append(some | {"state"} if some else set(every))

    def read(self, row: object) -> dict:
        """A row as an object, whichever way it came; what is wrong with an array is raised."""
        if self.columns is None or not isinstance(row, list):
            return row
        channel, *names = self.columns[row[0]]
        values = row[1:]
        if channel not in ("quote", "index"):
            read = dict(zip(names, values, strict=True)) | {"channel": channel}
            # What an array need not say, and what an object would leave out.
            if channel == "book" or channel in BARS:
                read["full"] = True
            absent = {name for name in ("trade_id", "ref_trade_id", "source_seq") if read.get(name, 0) is None}
            return {name: value for name, value in read.items() if name not in absent}
        at = names.index("mask")
        fields = names[at + 1:]
        named = [name for bit, name in enumerate(fields) if values[at] >> bit & 1]
        if values[at] >> len(fields):
            raise ValueError(f"mask {values[at]} of {len(fields)} columns")
        read = dict(zip(names[:at], values)) | dict(zip(named, values[at + 1:], strict=True))
        return read | {"full": True} if named == fields else read


def topic_of(row: dict) -> str:
    """The topic whose row this is, as the contract writes it."""
    channel = row.get("channel")
    return row["symbol"] if channel in (None, "quote", "index") else f"{channel}:{row['symbol']}"


class Session:
    """Everything one client knows, and every rule it saw broken."""

    def __init__(self):
        self.violations: list[str] = []
        self.welcome: dict | None = None
        self.streams: dict[int, Stream] = {}
        self.subs: dict[str, Stream] = {}
        self.ended: set[int] = set()
        self.answers: dict[object, dict] = {}
        self.errors: list[dict] = []
        self.drain: dict | None = None
        self.asked: dict[object, dict] = {}  # subscriptions by their id
        self.examples: dict[str, str] = {}
        self.heartbeats = self.messages = self.bytes = 0
        self.heard_s = self.beat_s = None
        self.on_batch = lambda stream, frame: None
        self.on_row = lambda stream, topic, row: None

    # What a script asks.

    def table(self, sub: str) -> dict[str, dict]:
        """The rows of a subscription by topic."""
        return self.subs[sub].table if sub in self.subs else {}

    # What the socket says.

    def broke(self, rule: str) -> None:
        """Notes a broken rule; a thousand are enough."""
        if len(self.violations) < 1000:
            self.violations.append(rule)

    def feed(self, text: str, now_s: float) -> None:
        """Takes one message."""
        self.messages += 1
        self.bytes += len(text)
        if not isinstance(text, str):
            return self.broke("a binary message on a JSON session")
        try:
            frame = json.loads(text, parse_float=Decimal, parse_constant=lambda name: self.broke(f"constant {name}"))
        except ValueError as error:
            return self.broke(f"not JSON: {error}: {text[:80]!r}")
        kind = frame.get("type") if isinstance(frame, dict) else None
        if kind not in SHAPES:
            return self.broke(f"unknown message {text[:80]!r}")
        name = kind
        if kind == "batch":
            name = "batch" + "".join(f" {key}" for key in ("snapshot", "more", "gaps", "added") if key in frame)
        self.examples.setdefault(name, text)
        if self.welcome is None and kind != "welcome":
            self.broke(f"{kind} before welcome")
        if self.heard_s is not None and self.welcome:
            quiet_ms = (now_s - self.heard_s) * 1000
            if quiet_ms > QUIET_INTERVALS * self.welcome["heartbeat_ms"]:
                self.broke(f"nothing came for {quiet_ms:.0f} ms")
        self.heard_s = now_s
        if not self.shape(frame, SHAPES[kind], kind):
            return None
        getattr(self, f"take_{kind}")(frame, text, now_s)

    def shape(self, part: object, shape: tuple[set, set], what: str) -> bool:
        """Whether an object has the keys it must have and no key that nobody knows."""
        if not isinstance(part, dict):
            self.broke(f"{what}: not an object: {part!r}")
            return False
        keys, (required, optional) = part.keys(), shape
        if missing := required - keys:
            self.broke(f"{what}: without {sorted(missing)}")
        if unknown := keys - required - optional:
            self.broke(f"{what}: unknown keys {sorted(unknown)}")
        return not missing

    def take_welcome(self, frame: dict, text: str, now_s: float) -> None:
        """The first message, once."""
        if self.welcome is not None:
            self.broke("a second welcome")
        self.shape(frame["limits"], LIMITS, "limits")
        self.welcome, self.beat_s = frame, now_s

    def take_subscribed(self, frame: dict, text: str, now_s: float) -> None:
        """A stream begins."""
        for rejected in frame["rejected"]:
            self.take_rejected(rejected)
        if frame["stream"] in self.streams or frame["stream"] in self.ended:
            self.broke(f"stream {frame['stream']} is used again")
        if frame["sub"] in self.subs:
            self.broke(f"sub {frame['sub']} is used twice")
        if frame["mode"] not in ("conflate", "every", "snapshot"):
            self.broke(f"mode {frame['mode']!r}")
        if frame["recovered"] not in (None, "reset", "exact", "conflated"):
            self.broke(f"recovered {frame['recovered']!r}")
        if frame["capped_by"] not in (None, "limit"):
            self.broke(f"capped_by {frame['capped_by']!r}")
        asked = self.asked.pop(frame.get("id"), {})
        stream = Stream(frame, asked.get("snapshot", True), asked.get("fields", frame["fields"]))
        self.streams[frame["stream"]] = self.subs[frame["sub"]] = stream
        self.answer(frame)

    def take_unsubscribed(self, frame: dict, text: str, now_s: float) -> None:
        """A stream ends: nothing of it may follow."""
        stream = self.subs.pop(frame["sub"], None)
        if stream is None or stream.number != frame["stream"]:
            self.broke(f"unsubscribed from what was not subscribed: {frame}")
        self.streams.pop(frame["stream"], None)
        self.ended.add(frame["stream"])
        self.answer(frame)

    def take_list(self, frame: dict, text: str, now_s: float) -> None:
        """What the server thinks we hold must be what we hold: it stands in the same sequence of bytes."""
        for listed in frame["subs"]:
            if not self.shape(listed, LISTED, "list"):
                continue
            stream = self.subs.get(listed["sub"])
            if stream is None or stream.number != listed["stream"]:
                self.broke(f"list: {listed} is not ours")
            elif stream.whole and stream.seq != listed["held_seq"]:
                self.broke(f"list: seq {listed['held_seq']} where {stream.seq} was given")
        if {listed["sub"] for listed in frame["subs"]} != set(self.subs):
            self.broke("list: not all our subscriptions")
        self.answer(frame)

    def take_pong(self, frame: dict, text: str, now_s: float) -> None:
        """An answer to ping."""
        self.answer(frame)

    def take_error(self, frame: dict, text: str, now_s: float) -> None:
        """A refusal: its code is one of a closed list, and it repeats little."""
        if frame["code"] not in CODES:
            self.broke(f"error: code {frame['code']!r}")
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in frame["message"]):
            self.broke(f"error: control characters in {frame['message']!r}")
        for rejected in frame.get("rejected", []):
            self.take_rejected(rejected)
        self.errors.append(frame)
        self.answer(frame)

    def take_rejected(self, rejected: object) -> None:
        """A topic that was not taken."""
        if self.shape(rejected, REJECTED, "rejected"):
            if rejected["code"] not in CODES:
                self.broke(f"rejected: code {rejected['code']!r}")
            for key in ("topic", "message"):
                if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in rejected[key]):
                    self.broke(f"rejected: control characters in {key} {rejected[key]!r}")
            if len(rejected["topic"]) > 64:
                self.broke(f"rejected: repeats {len(rejected['topic'])} characters")

    def take_drain(self, frame: dict, text: str, now_s: float) -> None:
        """The gateway goes; it says when to come back."""
        if not 0 <= frame["reconnect_in_ms"] <= 60_000:
            self.broke(f"drain: reconnect_in_ms {frame['reconnect_in_ms']}")
        self.drain = frame

    def take_heartbeat(self, frame: dict, text: str, now_s: float) -> None:
        """Every interval, whatever else flows; it lists the streams that were quiet, with the `seq` we hold."""
        self.heartbeats += 1
        since_ms = (now_s - self.beat_s) * 1000
        if since_ms > QUIET_INTERVALS * self.welcome["heartbeat_ms"]:
            self.broke(f"heartbeat after {since_ms:.0f} ms")
        self.beat_s = now_s
        for number, position in frame["streams"].items():
            stream = self.streams.get(int(number))
            if not self.shape(position, ({"seq", "rev"}, set()), "heartbeat"):
                continue
            if stream is None:
                self.broke(f"heartbeat: stream {number} is not ours")
            elif position["seq"] != stream.seq:
                self.broke(f"heartbeat: stream {number} at seq {position['seq']}, we hold {stream.seq}")
            elif position["rev"] < stream.rev:
                self.broke(f"heartbeat: stream {number} falls from rev {stream.rev} to {position['rev']}")
            elif not stream.more:
                stream.rev = position["rev"]
        for stream in self.streams.values():
            if stream.whole and not stream.frames_since_heartbeat and str(stream.number) not in frame["streams"]:
                self.broke(f"heartbeat: stream {stream.number} was quiet and is not listed")
            stream.frames_since_heartbeat = 0

    def take_batch(self, frame: dict, text: str, now_s: float) -> None:
        """Rows: the gap rule, then the revisions, then the table."""
        stream = self.streams.get(frame["stream"])
        if stream is None:
            ended = "ended" if frame["stream"] in self.ended else "unknown"
            return self.broke(f"batch of {ended} stream {frame['stream']}")
        snapshot, more = frame.get("snapshot", False), frame.get("more", False)
        where = f"stream {stream.number} seq {frame['seq']}"
        if "epoch" in frame:
            stream.seq, stream.rev, stream.whole, stream.table = None, 0, False, {}
            self.welcome["epoch"] = frame["epoch"]
        if frame["prev"] != stream.seq:
            self.broke(f"{where}: prev {frame['prev']}, we hold {stream.seq}")
        before = frame["prev"] if frame["prev"] is not None else stream.answer["seq"]
        if frame["seq"] < before:
            self.broke(f"{where}: falls from {before}")
        if frame["prev"] is not None:
            stream.merged += max(0, frame["seq"] - frame["prev"] - 1)
        if frame["rev"] < stream.rev:
            self.broke(f"{where}: rev falls from {stream.rev} to {frame['rev']}")
        if more and frame["rev"] != stream.rev:
            self.broke(f"{where}: a part moves rev from {stream.rev} to {frame['rev']}")
        if snapshot == stream.whole:
            self.broke(f"{where}: snapshot is {snapshot} where the first picture is {stream.whole and 'whole' or 'owed'}")
        if stream.more and frame["ts_us"] - stream.part_us > MORE_US_MAX:
            self.broke(f"{where}: the frame before said more, and more came {frame['ts_us'] - stream.part_us} us later")
        elif not stream.more and not snapshot:
            self.slot(stream, frame["ts_us"], where)
        stream.part_us = frame["ts_us"]
        if len(text) > FRAME_BYTES_MAX and len(frame["rows"]) > 1:
            self.broke(f"{where}: {len(text)} bytes in {len(frame['rows'])} rows")
        if not frame["rows"] and not snapshot and not {"gaps", "added", "removed"} & frame.keys() and not stream.more:
            if frame["seq"] == frame["prev"]:
                self.broke(f"{where}: says nothing")
        added = set(frame.get("added", []))
        self.take_rows(stream, frame, snapshot, added, where)
        for topic in added:
            if topic.split(":")[0] not in EVENTS | BARS and topic not in stream.table:
                self.broke(f"{where}: added {topic} without its row")
        stream.seq, stream.rev, stream.more = frame["seq"], frame["rev"], more
        if snapshot and not more:
            stream.whole = True
        stream.frames += 1
        stream.frames_since_heartbeat += 1
        self.on_batch(stream, frame)

    def slot(self, stream: Stream, ts_us: int, where: str) -> None:
        """At most one frame per slot of 1/rate: some grid of that width must put every frame into a slot of its own."""
        if stream.times_us and ts_us < stream.times_us[-1]:
            self.broke(f"{where}: ts_us falls")
        if not stream.rate:
            return stream.times_us.append(ts_us)
        slot_us = round(1_000_000 / float(stream.rate))
        if stream.times_us and ts_us - stream.times_us[-1] < 0.8 * slot_us:
            stream.near += 1
        stream.times_us.append(ts_us)
        free = [(0.0, float(slot_us))]
        times = list(stream.times_us)
        for before, after in itertools.pairwise(times):
            if after - before >= slot_us:
                continue
            begin = before % slot_us - SLOT_TOLERANCE_US
            end = begin + after - before + 2 * SLOT_TOLERANCE_US
            arcs = [(begin + turn * slot_us, end + turn * slot_us) for turn in (-2, -1, 0, 1)]
            free = [(max(a, c), min(b, d)) for a, b in free for c, d in arcs if max(a, c) <= min(b, d)]
        if not free:
            gaps = [after - before for before, after in itertools.pairwise(times)]
            self.broke(f"{where}: more than one frame per slot of {slot_us} us, intervals {gaps}")
            stream.times_us.clear()

    def take_rows(self, stream: Stream, frame: dict, snapshot: bool, added: set[str], where: str) -> None:
        """Rows apply from top to bottom; losses stand before the rows they precede."""
        gaps: dict[str, deque] = defaultdict(deque)
        for gap in frame.get("gaps", []):
            if self.shape(gap, GAP, "gap"):
                gaps[gap["topic"]].append(gap)
                if gap["reason"] not in GAP_REASONS:
                    self.broke(f"{where}: gap reason {gap['reason']!r}")
        for row in frame["rows"]:
            stream.rows += 1
            try:
                row = stream.read(row)
            except (ValueError, IndexError, TypeError) as error:
                self.broke(f"{where}: {error} in row {row!r}")
                continue
            if not isinstance(row, dict) or "symbol" not in row:
                self.broke(f"{where}: row {row!r}")
                continue
            topic = topic_of(row)
            if row.get("gone"):
                stream.table.pop(topic, None)
                continue
            if not self.row_shape(stream, row, f"{where} {topic}"):
                continue
            held = stream.table.get(topic)
            if row["rev"] <= stream.rev and not snapshot and topic not in added:
                self.broke(f"{where} {topic}: rev {row['rev']} had to come with frame rev {stream.rev}")
            channel = row.get("channel")
            event = channel in EVENTS or channel in BARS and row["final"]
            # Status and final bars come one by one in every mode, trades where the mode says so.
            if event and (stream.mode == "every" or channel != "trade"):
                self.number(stream, topic, row["q"], gaps[topic], where)
            elif held is not None and (row["q"] < held["q"] or row["rev"] < held["rev"]):
                self.broke(f"{where} {topic}: falls from q {held['q']} rev {held['rev']} to {row['q']}, {row['rev']}")
            if event or row.get("full"):
                stream.table[topic] = row
            elif held is None:
                stream.table[topic] = row
                if stream.snapshot_asked:
                    self.broke(f"{where} {topic}: a changed row before a full one")
            else:
                held.update(row)
            self.on_row(stream, topic, row)
        for topic, rest in gaps.items():
            while rest:
                self.number(stream, topic, None, rest, where)

    def number(self, stream: Stream, topic: str, q: int | None, gaps: deque, where: str) -> None:
        """Events have every number but those in gaps. `q` None: a gap after the last row."""
        held = stream.q.get(topic)
        while gaps and (q is None or held is None or held + 1 != q):
            gap = gaps.popleft()
            begin = gap["from"] if gap["from"] is not None else (gap["to"] if held is None else held + 1)
            if held is not None and (begin != held + 1 or gap["to"] < begin):
                self.broke(f"{where} {topic}: gap {gap} where {held + 1} is expected")
            stream.lost[topic] += gap["to"] - begin + 1
            held = gap["to"]
            if q is None:
                break
        if q is not None:
            if held is not None and q != held + 1:
                self.broke(f"{where} {topic}: q {q} where {held + 1} is expected")
            held = q
        stream.q[topic] = held

    def row_shape(self, stream: Stream, row: dict, where: str) -> bool:
        """Whether the row has the keys of its channel, and each key a value of its kind."""
        channel = row.get("channel")
        if channel in ("book", "trade", "status"):
            if not self.shape(row, {"book": BOOK, "trade": TRADE, "status": STATUS}[channel], where):
                return False
            values = []
            if channel == "trade":
                values = [row["price"], row["size"]]
                if row["side"] not in ("buy", "sell", None) or row["kind"] not in ("new", "correct", "cancel"):
                    self.broke(f"{where}: side {row['side']!r}, kind {row['kind']!r}")
            elif channel == "status" and row["phase"] not in PHASES:
                self.broke(f"{where}: phase {row['phase']!r}")
            elif channel == "book":
                if row["state"] not in STATES:
                    self.broke(f"{where}: state {row['state']!r}")
                for side, sign in (("bids", -1), ("asks", 1)):
                    prices = [sign * Decimal(price) for price, _ in row[side]]
                    if len(prices) > stream.answer["depth"] or any(a >= b for a, b in itertools.pairwise(prices)):
                        self.broke(f"{where}: {side} out of order or too many ({len(prices)})")
                    values += [value for level in row[side] for value in level]
            self.decimals(stream, values, where)
            return True
        if channel in BARS:
            if not self.shape(row, BAR, where):
                return False
            prices = [Decimal(row[name]) for name in ("low", "open", "close", "high")]
            if min(prices) != prices[0] or max(prices) != prices[3] or row["trades"] < 1:
                self.broke(f"{where}: no bar: {row}")
            self.decimals(stream, [row[name] for name in ("open", "high", "low", "close", "volume")], where)
            return True
        if channel is not None:
            self.broke(f"{where}: channel {channel!r}")
            return False
        if ROW - row.keys():
            self.broke(f"{where}: without {sorted(ROW - row.keys())}")
            return False
        fields = row.keys() - ROW - {"full"}
        if row.get("full"):
            if fields not in stream.selections:
                self.broke(f"{where}: a full row with the fields {sorted(fields)}")
        elif not any(fields <= selection for selection in stream.selections):
            self.broke(f"{where}: fields {sorted(fields)} were not selected")
        elif not fields:
            self.broke(f"{where}: a row without fields")
        if "state" in row and row["state"] not in STATES:
            self.broke(f"{where}: state {row['state']!r}")
        if row.get("phase") is not None and row["phase"] not in PHASES:
            self.broke(f"{where}: phase {row['phase']!r}")
        self.decimals(stream, [row[name] for name in fields - {"state", "phase", "trading_date"} if row[name] is not None], where)
        return True

    def decimals(self, stream: Stream, values: list, where: str) -> None:
        """Exact numbers, in the form that was asked for, without exponents."""
        for value in values:
            if stream.strings:
                good = isinstance(value, str) and value.lstrip("-").replace(".", "", 1).isdigit()
            else:
                good = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
            if not good:
                self.broke(f"{where}: {value!r} is not a decimal {'string' if stream.strings else 'number'}")

    def answer(self, frame: dict) -> None:
        if "id" in frame:
            self.answers[frame["id"]] = frame


class Client(Session):
    """A session on a socket."""

    def __init__(self, socket):
        super().__init__()
        self.socket = socket
        self.closed: ConnectionClosed | None = None
        self.ids = itertools.count(1)
        self.news = asyncio.Condition()
        self.reader = asyncio.create_task(self.read())

    @classmethod
    async def connect(cls, url: str, **options) -> "Client":
        """Connects and waits for the welcome."""
        options = {"max_size": None, "compression": None, "ping_interval": None, "close_timeout": 2, "proxy": None, **options}
        client = cls(await connect(url, **options))
        await client.until(lambda: client.welcome is not None, 10, "the welcome")
        return client

    async def read(self) -> None:
        """Feeds the session until the socket ends."""
        try:
            async for text in self.socket:
                self.feed(text, time.monotonic())
                async with self.news:
                    self.news.notify_all()
        except ConnectionClosed:
            pass
        async with self.news:
            code, reason = self.socket.close_code, self.socket.close_reason
            self.closed = (code, reason)
            self.news.notify_all()

    async def until(self, condition, timeout: float, what: str = "") -> None:
        """Waits for messages until the condition holds."""
        try:
            async with asyncio.timeout(timeout), self.news:
                await self.news.wait_for(lambda: condition() or self.closed is not None)
        except TimeoutError:
            raise TimeoutError(f"{what or 'the condition'} did not come within {timeout} s") from None
        if not condition():
            raise ConnectionError(f"closed with {self.closed} while waiting for {what}")

    async def command(self, timeout: float = 10, **command) -> dict:
        """Sends a command with an id of ours and waits for its answer."""
        command.setdefault("id", next(self.ids))
        if command.get("action") == "subscribe":
            self.asked[command["id"]] = command
        await self.socket.send(json.dumps(command))
        await self.until(lambda: command["id"] in self.answers, timeout, f"the answer to {str(command)[:80]}")
        return self.answers[command["id"]]

    async def subscribe(self, *topics: str, whole: bool = True, **options) -> dict:
        """Subscribes and, if wanted, waits for the whole first picture."""
        answer = await self.command(action="subscribe", topics=list(topics), **options)
        if whole and answer["type"] == "subscribed" and options.get("snapshot", True):
            stream = self.subs.get(answer["sub"])
            if stream is not None:
                await self.until(lambda: stream.whole, 10, "the first picture")
        return answer

    async def end(self) -> tuple:
        """Waits for the server's close; its code and reason."""
        await self.reader
        return self.closed

    async def close(self) -> None:
        """Says goodbye."""
        with contextlib.suppress(ConnectionError):
            await self.socket.close()
        await self.reader


# The reference client tries itself.


def broken_frames(report: Report) -> None:
    """The client notices what it is there to notice: each of these sequences breaks one rule."""
    welcome = {"type": "welcome", "epoch": "e", "session": "s", "version": "0", "heartbeat_ms": 3000, "simulated": True,
               "limits": dict.fromkeys(LIMITS[0], 1)}
    subscribed = {"type": "subscribed", "sub": "1", "stream": 1, "seq": 1, "rev": 5, "mode": "every", "rate": 10,
                  "capped_by": None, "fields": ["state", "last"], "delta": True, "depth": 10, "decimals": "number",
                  "wish": "w", "columns": None, "digest": 0, "filter": None, "topics": 2,
                  "q": {"trade:A": 7}, "rejected": [], "recovered": None}
    picture = {"type": "batch", "stream": 1, "seq": 1, "prev": None, "rev": 5, "ts_us": 0, "snapshot": True, "rows": [
        {"symbol": "A", "rev": 5, "q": 3, "time_us": 1, "full": True, "state": "live", "last": 1}]}

    def batch(seq=2, prev=1, rev=6, ts_us=1_000_000, rows=None, **more):
        rows = [{"symbol": "A", "rev": 6, "q": 4, "time_us": 1, "last": 2}] if rows is None else rows
        return {"type": "batch", "stream": 1, "seq": seq, "prev": prev, "rev": rev, "ts_us": ts_us, "rows": rows, **more}

    def trade(q):
        return {"symbol": "A", "channel": "trade", "rev": 6, "q": q, "time_us": 1, "price": 1, "size": 1, "side": None, "kind": "new"}

    def row(**changed):
        return {"symbol": "A", "rev": 6, "q": 4, "time_us": 1, "last": 2, **changed}

    def gap(begin, to):
        return {"topic": "trade:A", "from": begin, "to": to, "reason": "log_overrun"}

    cases = [
        ("nothing wrong", [batch()], 0),
        ("nothing wrong with an announced gap", [batch(rows=[trade(10)], gaps=[gap(8, 9)])], 0),
        ("nothing wrong with a gap from the next one", [batch(rows=[trade(10)], gaps=[gap(None, 9)])], 0),
        ("a missed frame", [batch(seq=3, prev=2)], 1),
        ("a falling rev", [batch(), batch(seq=3, prev=2, rev=5, ts_us=1_100_000, rows=[row(rev=7)])], 1),
        ("a late row", [batch(rows=[row(rev=5)])], 1),
        ("a falling q", [batch(rows=[row(q=2)])], 1),
        ("a hole among events", [batch(rows=[trade(9)])], 1),
        ("an event twice", [batch(rows=[trade(8), trade(8)])], 1),
        ("a gap that does not fit", [batch(rows=[trade(10)], gaps=[gap(9, 9)])], 1),
        ("an unknown key", [batch(colour="red")], 1),
        ("an unknown key in a row", [batch(rows=[row(colour="red")])], 1),
        ("a field that was not selected", [batch(rows=[row(bid=1)])], 1),
        ("a state nobody knows", [batch(rows=[row(state="good")])], 1),
        ("a string where numbers were asked for", [batch(rows=[row(last="2")])], 1),
        ("four frames in two slots", [batch(seq=s, prev=s - 1, ts_us=1_000_000 + 40_000 * s, rev=s + 4, rows=[row(rev=s + 4)])
                                    for s in (2, 3, 4, 5)], 1),
        ("a delta before its picture", [batch(rows=[row(symbol="B")])], 1),
        ("a stream that nobody has", [{**batch(), "stream": 2}], 1),
        ("a heartbeat ahead of us", [{"type": "heartbeat", "ts_us": 1, "streams": {"1": {"seq": 2, "rev": 6}}}], 1),
        ("a heartbeat that forgets a quiet stream", [batch(), *[{"type": "heartbeat", "ts_us": 1, "streams": {}}] * 2], 1),
    ]
    for name, frames, expected in cases:
        session = Session()
        for frame in (welcome, subscribed, picture, *frames):
            session.feed(json.dumps(frame), 0.0)
        report.check(f"the client's eye: {name}", bool(session.violations) == bool(expected), session.violations)


async def watch(report: Report, url: str, seconds: float, dense: bool) -> Client:
    """Every kind of subscription at once on one session, and the same wishes spread over several sessions."""
    client = await Client.connect(url)
    wishes = [
        {"topics": ["*"], "sub": "all"},
        {"topics": ["*"], "sub": "rated", "rate": 10},
        {"topics": ["*"], "sub": "slow", "rate": 0.5},
        {"topics": ["*"], "sub": "again", "rate": 10},
        {"topics": ["*"], "sub": "some", "fields": ["last", "bid", "ask"], "rate": 5},
        {"topics": ["*"], "sub": "whole", "delta": False, "rate": 4},
        {"topics": ["*"], "sub": "text", "decimals": "string", "rate": 2},
        {"topics": ["*"], "sub": "arrays", "rate": 10, "columns": True},
        {"topics": ["*", "book:*", "bar_1s:*"], "sub": "some-arrays", "columns": True, "fields": ["last", "bid"], "rate": 5},
        {"topics": ["trade:*", "status:*"], "sub": "event-arrays", "mode": "every", "columns": True, "decimals": "string"},
        {"topics": ["trade:*", "status:*"], "sub": "events", "mode": "every"},
        {"topics": ["trade:*"], "sub": "events-rated", "mode": "every", "rate": 5, "decimals": "string"},
        {"topics": ["trade:*"], "sub": "last-trades", "rate": 10},
        {"topics": ["book:*"], "sub": "books", "rate": 4, "depth": 3},
        {"topics": ["book:*", "*"], "sub": "both", "rate": 1, "depth": 1000},
        {"topics": ["*"], "sub": "from-now", "snapshot": False},
        {"topics": ["bar_1s:*", "bar_1m:*"], "sub": "bars", "rate": 5},
        {"topics": ["trade:*"], "sub": "events-from-now", "mode": "every", "snapshot": False, "rate": 10},
    ]
    for wish in wishes:
        answer = await client.subscribe(*wish.pop("topics"), **wish)
        report.equal(f"{wish['sub']} is served", answer["type"], "subscribed")
    # A snapshot ends by itself, and so does its stream.
    answer = await client.subscribe("*", mode="snapshot", sub="once", whole=False)
    await client.until(lambda: answer["stream"] in client.ended, 10, "the end of a snapshot")
    report.check("mode snapshot ends with unsubscribed", "once" not in client.subs)
    since = {"epoch": "0", "rev": 1, "wish": "0"}
    answer = await client.subscribe("*", sub="resumed", rate=10, fields=["last"], since=since)
    report.equal("a cursor of another epoch is answered by reset and a picture", answer.get("recovered"), "reset")
    others = [await Client.connect(f"{url}?symbols=*&rate=10") for _ in range(3)]
    for other in others:
        await other.until(lambda other=other: other.subs and next(iter(other.subs.values())).whole, 10, "a URL's subscription")
    report.check("a URL subscribes", True)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        await client.command(action="list")
        with contextlib.suppress(TimeoutError):
            await client.until(lambda: False, min(left, 1.5))
    pong = await client.command(action="ping")
    report.check("ping is answered", abs(pong["ts_us"] / 1e6 - time.time()) < 5, pong)
    for name, stream in client.subs.items():
        quiet = not dense and ("event" in name or "trade" in name or name in ("books", "bars"))
        low = seconds * float(stream.rate) * 0.6 if dense and stream.rate else int(not quiet)
        report.check(f"{name}: frames came ({stream.frames} with {stream.rows} rows)", stream.frames >= low, f"at least {low}")
        report.equal(f"{name}: nothing was merged on an idle line", stream.merged, 0)
        report.equal(f"{name}: no event was lost", dict(stream.lost), {})
    near = {name: s.near for name, s in client.subs.items() if s.near > 2}
    report.check("busy rated streams keep 0.8 of a slot between frames", not dense or not near, near)
    report.check("a second equal subscription has a stream of its own",
                 client.subs["rated"].number != client.subs["again"].number)
    # Streams that show the same market hold the same rows once they are quiet at the same revision.
    for sub in list(client.subs):
        answer = await client.command(action="unsubscribe", sub=sub)
        report.equal(f"{sub} is left", answer["type"], "unsubscribed")
    report.clean("the contract is kept on one session with many streams", client.violations)
    report.check("heartbeats came", client.heartbeats >= 1, client.heartbeats)
    for at, other in enumerate(others):
        report.clean(f"the contract is kept on session {at}", other.violations)
        client.examples.update({k: v for k, v in other.examples.items() if k not in client.examples})
        await other.close()
    await client.close()
    return client


async def main(report: Report) -> None:
    """Tries the client on broken frames, then a gateway on the client."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--url", help="watch a gateway that runs already")
    parser.add_argument("--seconds", type=float, default=8, help="how long to watch each gateway")
    parser.add_argument("--examples", action="store_true", help="print one message of each kind as it came")
    options = parser.parse_args()
    broken_frames(report)
    if options.url:
        client = await watch(report, options.url, options.seconds, False)
    else:
        for feed, dense in [("synthetic:vn30?rate=500", True), ("synthetic:load?symbols=150&rate=1000", False)]:
            async with await Gateway.start(options.binary, feed, config="[limits]\nheartbeat_ms = 1000\n") as gateway:
                print(f"# {feed}")
                client = await watch(report, gateway.url, options.seconds, dense)
    if options.examples:
        for name, text in sorted(client.examples.items()):
            print(f"## {name}\n{text[:2000]}")


if __name__ == "__main__":
    run(main)
