"""The reference client: written from docs/protocol.md alone, and strict about it.

`Session` is the contract: it is fed messages, keeps the tables and notes every broken rule. `Client` is a `Session`
on a socket. A `Stream` is what it holds of one subscription; another session can go on from it. Numbers are read
exactly: a decimal is an int or a Decimal, never a float.
"""

import asyncio
import contextlib
import copy
import itertools
import json
import time
from collections import defaultdict, deque
from decimal import Decimal

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import digest

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
    "sub_in_use", "node_behind", "rate_limited", "unknown_tick", "not_carried",
}
LATER = {"node_behind", "rate_limited"}  # these say when the same would be taken
GAP_REASONS = {"ingest_overflow", "log_overrun", "upstream_gap"}
EVENTS = {"trade", "status"}
BARS = {"bar_1s", "bar_1m", "bar_5m", "bar_1h"}

# The options of a subscription, as they are asked for and as an answer says that they are in effect.
WINDOW = {"hi", "lo", "vol"}
OPTIONS = {"mode", "rate", "fields", "delta", "depth", "decimals", "columns", "digest", "window"}
# (required keys, optional keys) of every message and part of one.
SUBSCRIPTION = OPTIONS | {"filter", "sub", "stream", "seq", "rev", "wish", "capped_by", "topics", "q", "rejected", "recovered"}
LIMITS = ({"message_bytes", "topics_per_command", "topics", "streams", "commands_per_second", "commands_burst", "rate"}, set())
SHAPES = {
    "welcome": ({"type", "epoch", "session", "version", "heartbeat_ms", "simulated", "path", "limits"}, set()),
    "subscribed": ({"type"} | SUBSCRIPTION, {"id", "rejected_more"}),
    "updated": ({"type"} | SUBSCRIPTION, {"id", "removed", "rejected_more"}),
    "unsubscribed": ({"type", "sub", "stream"}, {"id"}),
    "list": ({"type", "subs"}, {"id"}),
    "pong": ({"type", "ts_us"}, {"id"}),
    "error": ({"type", "code", "message"}, {"id", "retry_after_ms", "rejected"}),
    "link": ({"type", "state", "reason"}, set()),
    "drain": ({"type", "reconnect_in_ms", "to"}, set()),
    "heartbeat": ({"type", "ts_us", "streams"}, set()),
    "batch": (
        {"type", "stream", "seq", "prev", "rev", "ts_us", "rows"}, {"snapshot", "more", "gaps", "added", "rejected", "digest", "epoch"},
    ),
}
LISTED = (SUBSCRIPTION | {"held_seq", "held_rev", "lag_revs", "merged", "rows", "gaps"}, set())
REJECTED = ({"topic", "code", "message"}, set())
REJECTED_LATER = ({"topic", "code"}, set())
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
# Parts of one picture follow each other without a wait for the next slot, when the client reads.
MORE_US_MAX = 400_000


class Stream:
    """What the client holds of one subscription."""

    def __init__(self, answer: dict, asked: dict, epoch: str):
        self.sub, self.epoch = answer["sub"], epoch
        self.asked = {"topics": [], "snapshot": True}
        self.table: dict[str, dict] = {}
        self.q: dict[str, int] = dict(answer["q"])  # of event topics: the last number held
        self.repeats: dict[str, int] = {}  # of event topics: numbers up to this one may come again
        self.resumed = False  # rows of images may be newer than the cursor, so what changed before they did may come again
        self.since: dict | None = None  # the cursor from which another session can go on
        self.times_us: deque[int] = deque(maxlen=16)
        self.count()
        self.take(answer, asked)
        self.begin()

    def count(self) -> None:
        """What a script asks about a session."""
        self.changes = 0
        self.frames = self.rows = self.merged = self.near = self.digests = self.digests_due = 0
        self.lost: dict[str, int] = defaultdict(int)

    def take(self, answer: dict, asked: dict) -> None:
        """From this answer on its options are in effect."""
        names = asked.get("topics") or [name for name in self.asked["topics"] if name not in asked.get("remove", [])]
        refused = {rejected["topic"] for rejected in answer["rejected"]}
        self.asked |= {key: value for key, value in asked.items() if key in OPTIONS | {"snapshot"}}
        self.asked["topics"] = [name for name in [*names, *asked.get("add", [])] if name not in refused]
        self.answer, self.number = answer, answer["stream"]
        self.mode, self.rate, self.strings = answer["mode"], answer["rate"], answer["decimals"] == "string"
        self.columns: list[list[str] | None] | None = answer["columns"]
        self.more = False  # the frame before said that it goes on
        self.owed = True  # what is owed at first does not wait for a slot
        self.part_us = 0  # when the frame before was made
        self.merged_here = 0
        self.frames_since_heartbeat = 1  # the answer said where the stream stands
        self.times_us.clear()
        # What was asked says more than the answer, which has the names of both channels together.
        selected = self.asked.get("fields", answer["fields"])
        self.selections = []
        for every in (QUOTE, INDEX):
            some = [name for name in every if selected and name in selected]
            # A channel that has none of the names is whole.
            self.selections.append([name for name in every if name in {"state", *some}] if some else every)

    def begin(self) -> None:
        """Nothing is held: a whole picture comes, or only what changes from now on."""
        self.whole = not self.asked["snapshot"]
        self.seq, self.rev = (self.answer["seq"], self.answer["rev"]) if self.whole else (None, 0)
        self.table.clear()
        self.note()

    def begin_epoch(self, epoch: str) -> None:
        """Nothing that was held means anything in another epoch; the number of the last frame goes on."""
        self.epoch, self.rev, self.whole, self.more, self.owed = epoch, 0, False, False, True
        self.table.clear()
        self.q.clear()
        self.repeats.clear()

    def note(self) -> None:
        """The cursor is that of the last whole batch: before an update's first one, topics that came with it are not held."""
        if self.whole and not self.more:
            self.since = {"epoch": self.epoch, "rev": self.rev, "wish": self.answer["wish"]}

    def change(self, answer: dict, asked: dict) -> None:
        """The subscription was updated: what is held stays, but for what is no longer selected."""
        held = {topic: q for topic, q in self.q.items() if self.gives_all(topic)}
        merged = self.merged_here if answer["stream"] == self.number else 0
        self.take(answer, asked)
        self.merged_here, self.q = merged, answer["q"] | {topic: q for topic, q in held.items() if topic in answer["q"]}
        if not self.whole:
            return self.begin()
        self.seq = answer["seq"]
        for topic in answer.get("removed", []):
            self.table.pop(topic, None)
        for row in self.table.values():
            kept = fields_of(row).keys() & set(asked.get("fields") or ()) if "channel" not in row else set()
            # A row with none of the names stays whole, or comes anew.
            for name in fields_of(row).keys() - kept - {"state"} if kept else ():
                del row[name]
            if "bids" in row:
                # The best levels may not have changed for longer than those below them.
                row |= {"bids": row["bids"][: answer["depth"]], "asks": row["asks"][: answer["depth"]], "rev": 0}

    def go_on(self, answer: dict, epoch: str) -> "Stream":
        """The same in another session, from where this one left off."""
        other = copy.deepcopy(self)
        # Some of what was cut off came already.
        other.repeats = dict(self.q) if self.more or self.owed or self.mode == "trade_safe" else {}
        other.resumed = True
        other.count()
        other.take(answer, {})
        other.q = answer["q"] | self.q
        other.seq, other.whole, other.epoch = answer["seq"], True, epoch
        return other

    def gives_all(self, topic: str) -> bool:
        """Whether every event of the topic is given: of trades where the mode says so."""
        channel = topic.partition(":")[0]
        return channel in ("status", *BARS) or channel == "trade" and self.mode in ("every", "trade_safe")

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
        # All columns at once may also be all that changed.
        return read | {"full": True} if named == fields and read["symbol"] not in self.table else read

    def digest(self) -> int:
        """Of the images and books that are held."""
        images = (digest.image(topic, row, fields_of(row)) for topic, row in self.table.items() if "channel" not in row)
        books = (digest.book(topic, row) for topic, row in self.table.items() if "bids" in row)
        return digest.digest(itertools.chain(images, books))


def fields_of(row: dict) -> dict[str, None]:
    """The fields in an image's row, in their order."""
    return dict.fromkeys(name for name in row if name not in ROW | WINDOW and name != "full")


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
        self.link = "live"  # how far everything can be trusted, whatever the rows say
        self.links: list[tuple[str, float]] = []  # what was said of it, and when
        self.asked: dict[object, dict] = {}  # commands by their id
        self.held: dict[object, Stream] = {}  # what a command with a cursor goes on from
        self.examples: dict[str, str] = {}
        self.heartbeats = self.messages = self.bytes = 0
        self.size = 0  # of the message under way, in characters
        self.reads = True  # all the time
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
        self.size = len(text)
        self.bytes += self.size
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
            name = "batch" + "".join(f" {key}" for key in ("snapshot", "more", "gaps", "added", "digest") if key in frame)
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
        """A stream begins, or goes on from where another session left it."""
        self.take_options(frame)
        if frame["sub"] in self.subs:
            self.broke(f"sub {frame['sub']} is used twice")
        asked, held = self.asked.get(frame.get("id"), {}), self.held.get(frame.get("id"))
        if (frame["recovered"] is None) != ("since" not in asked) or frame["recovered"] not in (None, "exact", "conflated", "reset"):
            self.broke(f"recovered {frame['recovered']!r} where since is {asked.get('since')}")
        if held is not None and frame["recovered"] in ("exact", "conflated"):
            stream = held.go_on(frame, self.welcome["epoch"])
        else:
            stream = Stream(frame, asked, self.welcome["epoch"])
        self.streams[frame["stream"]] = self.subs[frame["sub"]] = stream
        self.answer(frame)

    def take_updated(self, frame: dict, text: str, now_s: float) -> None:
        """A subscription goes on with other topics or options, most often on another stream."""
        stream = self.subs.get(frame["sub"])
        if stream is None:
            return self.broke(f"updated what was not subscribed: {frame}")
        if stream.number == frame["stream"]:
            return self.answer(frame)  # nothing was to be changed
        self.ended.add(stream.number)
        self.streams.pop(stream.number, None)
        self.take_options(frame)
        if frame["recovered"] is not None:
            self.broke(f"recovered {frame['recovered']!r} in an update")
        stream.change(frame, self.asked.get(frame.get("id"), {}))
        self.streams[frame["stream"]] = stream
        self.answer(frame)

    def take_options(self, frame: dict) -> None:
        """What an answer says of a subscription."""
        for rejected in frame["rejected"]:
            self.take_rejected(rejected)
        if frame["stream"] in self.streams:
            self.broke(f"stream {frame['stream']} is used twice")
        self.ended.discard(frame["stream"])
        if frame["mode"] not in ("conflate", "trade_safe", "every", "snapshot"):
            self.broke(f"mode {frame['mode']!r}")
        if frame["capped_by"] not in (None, "limit"):
            self.broke(f"capped_by {frame['capped_by']!r}")
        if not isinstance(frame["wish"], str) or not frame["wish"]:
            self.broke(f"wish {frame['wish']!r}")

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
                continue
            for key in OPTIONS | {"wish", "capped_by"}:
                if listed[key] != stream.answer[key]:
                    self.broke(f"list: {key} {listed[key]!r} where {stream.answer[key]!r} was answered")
            if listed["held_seq"] != stream.seq:
                self.broke(f"list: held_seq {listed['held_seq']} where {stream.seq} was given")
            if listed["held_rev"] < stream.rev:
                self.broke(f"list: held_rev {listed['held_rev']} where {stream.rev} was given")
            if listed["merged"] != stream.merged_here:
                self.broke(f"list: merged {listed['merged']} where {stream.merged_here} were")
            for key in ("lag_revs", "rows", "gaps"):
                if not isinstance(listed[key], int) or listed[key] < 0:
                    self.broke(f"list: {key} {listed[key]!r}")
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
        if ("retry_after_ms" in frame) != (frame["code"] in LATER):
            self.broke(f"error: {frame['code']} with retry_after_ms {frame.get('retry_after_ms')}")
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

    def take_link(self, frame: dict, text: str, now_s: float) -> None:
        """The whole node knows the market better or worse than before."""
        if frame["state"] not in STATES or frame["state"] == self.link:
            self.broke(f"link: state {frame['state']!r} after {self.link!r}")
        if frame["reason"] != (None if frame["state"] == "live" else "upstream_silent"):
            self.broke(f"link: {frame['state']} with reason {frame['reason']!r}")
        self.link = frame["state"]
        self.links.append((self.link, now_s))

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
            else:
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
        if frame.get("epoch", stream.epoch) != stream.epoch:
            if not snapshot:
                self.broke(f"{where}: a new epoch without a picture")
            stream.begin_epoch(frame["epoch"])
        if frame["prev"] != stream.seq:
            self.broke(f"{where}: prev {frame['prev']}, we hold {stream.seq}")
        before = frame["prev"] if frame["prev"] is not None else stream.answer["seq"]
        if frame["seq"] < before:
            self.broke(f"{where}: falls from {before}")
        if frame["prev"] is not None:
            stream.merged += max(0, frame["seq"] - frame["prev"] - 1)
            stream.merged_here += max(0, frame["seq"] - frame["prev"] - 1)
        if frame["rev"] < stream.rev:
            self.broke(f"{where}: rev falls from {stream.rev} to {frame['rev']}")
        if snapshot == stream.whole:
            self.broke(f"{where}: snapshot is {snapshot} where the first picture is {stream.whole and 'whole' or 'owed'}")
        if stream.more and self.reads and frame["ts_us"] - stream.part_us > MORE_US_MAX:
            self.broke(f"{where}: the frame before said more, and more came {frame['ts_us'] - stream.part_us} us later")
        # In this mode trades do not wait for a slot, nor does what goes with them.
        ahead = stream.mode == "trade_safe" and (not frame["rows"] or "gaps" in frame or any("channel" in row for row in frame["rows"]))
        if not stream.more and not snapshot and not stream.owed and not ahead:
            self.slot(stream, frame["ts_us"], where)
        stream.part_us = frame["ts_us"]
        if len(text) > FRAME_BYTES_MAX and len(frame["rows"]) > 1:
            self.broke(f"{where}: {len(text)} bytes in {len(frame['rows'])} rows")
        if not frame["rows"] and not snapshot and not {"gaps", "added", "rejected"} & frame.keys() and not stream.more:
            if (frame["seq"], frame["rev"]) == (frame["prev"], stream.rev):
                self.broke(f"{where}: says nothing")
        for rejected in frame.get("rejected", []):
            if self.shape(rejected, REJECTED_LATER, f"{where} rejected") and rejected["code"] != "topic_limit":
                self.broke(f"{where}: rejected {rejected}")
        self.take_rows(stream, frame, snapshot, where)
        stream.seq, stream.rev, stream.more = frame["seq"], frame["rev"], more
        self.check_digest(stream, frame, where)
        stream.whole |= snapshot and not more
        stream.owed &= more
        stream.note()
        stream.frames += 1
        stream.frames_since_heartbeat += 1
        self.on_batch(stream, frame)

    def check_digest(self, stream: Stream, frame: dict, where: str) -> None:
        """What is held is what should be; who began without a picture cannot tell."""
        every = stream.answer["digest"]
        due = every and frame["seq"] % every == 0 and not stream.more
        # A catch-up may come without one.
        # Frames of trades between two slots have none.
        ahead = stream.mode == "trade_safe" and any("channel" in row for row in frame["rows"])
        stream.digests_due += bool(due and not ahead and frame["prev"] is not None and frame["seq"] == frame["prev"] + 1 and not stream.owed)
        if "digest" not in frame:
            return
        if not due:
            self.broke(f"{where}: a digest where none is due")
        stream.digests += 1
        if stream.asked["snapshot"] and (held := stream.digest()) != frame["digest"]:
            self.broke(f"{where}: the digest is {frame['digest']}, of what we hold {held}")

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

    def take_rows(self, stream: Stream, frame: dict, snapshot: bool, where: str) -> None:
        """Rows apply from top to bottom; losses stand before the rows they precede."""
        added, rowed = set(frame.get("added", [])), set()
        # Nothing between was merged, says the answer.
        exact_rev = stream.answer["rev"] if stream.owed and stream.answer["recovered"] == "exact" else 0
        gaps: dict[str, deque] = defaultdict(deque)
        lost = set()
        for gap in frame.get("gaps", []):
            if self.shape(gap, GAP, "gap"):
                if ":" not in gap["topic"]:
                    lost.add(gap["topic"])
                    stream.lost[gap["topic"]] += 1
                    if stream.mode not in ("every", "trade_safe") or gap["from"] is not None:
                        self.broke(f"{where}: gap {gap} of an image")
                    continue
                # What lies at or below what is held is no loss.
                if gap["to"] > stream.q.get(gap["topic"], 0):
                    gaps[gap["topic"]].append(gap)
                if gap["reason"] not in GAP_REASONS:
                    self.broke(f"{where}: gap reason {gap['reason']!r}")
                if exact_rev and gap["reason"] == "log_overrun":
                    self.broke(f"{where}: recovered is exact, and there is {gap}")
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
            rowed.add(topic)
            if not self.row_shape(stream, row, f"{where} {topic}"):
                continue
            held = stream.table.get(topic)
            image = row.get("channel") is None
            if image and stream.resumed and held is not None and row["rev"] <= held["rev"] and not row.get("full"):
                continue  # it came with a newer one, maybe from a node that was further
            if image and stream.mode == "every" and held is not None and not row.get("full") and topic not in lost:
                self.change(stream, row, held, f"{where} {topic}")
            if image and row.get("full") and not (snapshot or topic in added | lost) and stream.answer["delta"]:
                self.broke(f"{where} {topic}: a full row of what is held")
            if image and not row.get("full") and topic in added:
                self.broke(f"{where} {topic}: added without a full row")
            if (image and stream.mode != "every" or row.get("channel") == "book") and row["rev"] <= exact_rev:
                self.broke(f"{where} {topic}: recovered is exact, and rev {row['rev']} of {exact_rev} comes late")
            if row["rev"] <= stream.rev and not snapshot and topic not in added:
                self.broke(f"{where} {topic}: rev {row['rev']} had to come with frame rev {stream.rev}")
            channel = row.get("channel")
            event = channel in EVENTS or channel in BARS and row["final"]
            # Status and final bars come one by one in every mode, trades where the mode says so.
            if event and stream.gives_all(topic):
                if row["q"] <= stream.repeats.get(topic, 0):
                    continue
                self.number(stream, topic, row["q"], gaps[topic], where)
            elif stream.resumed and row.get("full"):
                pass  # another node may not have come to what is held, which may be newer than the cursor
            elif held is not None and (row["q"] < held["q"] or row["rev"] < held["rev"]):
                self.broke(f"{where} {topic}: falls from q {held['q']} rev {held['rev']} to {row['q']}, {row['rev']}")
            if event or row.get("full"):
                stream.table[topic] = row
            elif held is None:
                stream.table[topic] = row
                if stream.asked["snapshot"]:
                    self.broke(f"{where} {topic}: a changed row before a full one")
            else:
                held.update(row)
            self.on_row(stream, topic, row)
        for topic, rest in gaps.items():
            while rest:
                self.number(stream, topic, None, rest, where)
        if (added | lost) - rowed:
            self.broke(f"{where}: added or lost {sorted((added | lost) - rowed)} without their rows")

    def change(self, stream: Stream, row: dict, held: dict, where: str) -> None:
        """Where each change is given: the next number, or the same again when no tick brought it."""
        stream.changes += 1
        narrowed = stream.asked.get("fields", stream.answer["fields"])
        if row["q"] not in (held["q"], held["q"] + 1) and not narrowed:
            self.broke(f"{where}: change {row['q']} where {held['q'] + 1} is expected")

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
        fields = list(fields_of(row))
        if row.get("full"):
            if fields not in stream.selections:
                self.broke(f"{where}: a full row with the fields {fields}")
        elif not any(set(fields) <= set(selection) for selection in stream.selections):
            self.broke(f"{where}: fields {sorted(fields)} were not selected")
        elif not fields and "hi" not in row:
            self.broke(f"{where}: a row without fields")
        if "state" in row and row["state"] not in STATES:
            self.broke(f"{where}: state {row['state']!r}")
        # The first picture has none; whole rows for other reasons may have one.
        if WINDOW & row.keys() != (WINDOW if stream.answer["window"] else set()) and not (row.get("full") and WINDOW.isdisjoint(row)):
            self.broke(f"{where}: a window of {sorted(WINDOW & row.keys())}")
        self.decimals(stream, [row[name] for name in WINDOW & row.keys() if row[name] is not None], where)
        if row.get("phase") is not None and row["phase"] not in PHASES:
            self.broke(f"{where}: phase {row['phase']!r}")
        self.decimals(stream, [row[name] for name in fields if name not in ("state", "phase", "trading_date") and row[name] is not None], where)
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
    async def connect(cls, url: str, held: Stream | None = None, **options) -> "Client":
        """Connects and waits for the welcome. `held` is what a cursor in the URL goes on from."""
        options = {"max_size": None, "compression": None, "ping_interval": None, "close_timeout": 2, "proxy": None, **options}
        client = cls(await connect(url, **options))
        if held is not None:
            client.asked[None], client.held[None] = {"since": held.since}, held
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

    async def command(self, timeout: float = 10, held: Stream | None = None, **command) -> dict:
        """Sends a command with an id of ours and waits for its answer; `held` is what its cursor goes on from."""
        command.setdefault("id", next(self.ids))
        self.asked[command["id"]] = command
        if held is not None:
            self.held[command["id"]] = held
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

    async def update(self, sub: str, **options) -> dict:
        """Changes a subscription."""
        return await self.command(action="update", sub=sub, **options)

    async def resume(self, held: Stream, **options) -> dict:
        """Subscribes to what an ended session held of a stream, to go on from there."""
        since = {"since": held.since} if held.since else {}
        return await self.command(held=held, **{"action": "subscribe", "sub": held.sub, **since, **held.asked, **options})

    async def end(self) -> tuple:
        """Waits for the server's close; its code and reason."""
        await self.reader
        return self.closed

    async def vanish(self) -> None:
        """Is gone without a word."""
        self.socket.transport.abort()
        await self.reader

    async def close(self) -> None:
        """Says goodbye."""
        with contextlib.suppress(ConnectionError):
            await self.socket.close()
        await self.reader
