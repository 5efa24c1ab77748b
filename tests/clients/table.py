"""What a client holds and how it takes a message: the rules of docs/protocol.md and nothing else.

An SDK's core is no more than this. tests/clients/vectors_test.py runs it against the golden vectors; contract.py is stricter,
and is for live gateways.
"""

import json

import digest
from contract import INDEX, QUOTE

COMMON = {"rev", "q", "time_us"}
NOT_HELD = {"symbol", "channel", "full", "hi", "lo", "vol"}
ABSENT = {"trade_id", "ref_trade_id", "source_seq"}  # an array says `null` where an object leaves them out
EVENTS = {"trade", "status"}
HOLDING = {"subscribed", "updated", "unsubscribed", "batch", "heartbeat", "link"}  # these change what is held


def read(text: str) -> object:
    """JSON with every number as its text: no digit is lost, and `1968.70` equals the string that a vector expects."""
    return json.loads(text, parse_int=str, parse_float=str)


class Subscription:
    """What is held of one subscription."""

    def __init__(self, answer: dict, epoch: str):
        self.epoch, self.rows, self.lost, self.rev = epoch, {}, {}, "0"
        self.q = dict(answer["q"]) if answer["q"] != "sparse" else {}
        self.begin(answer)

    def begin(self, answer: dict) -> None:
        """Its options are in effect from now on."""
        self.answer, self.stream, self.seq = answer, answer["stream"], answer["seq"]

    def narrow(self) -> None:
        """Drops what the answer to an update says is selected no more."""
        for topic in self.answer.get("removed", []):
            for held in (self.rows, self.q, self.lost):
                held.pop(topic, None)
        selected = set(self.answer["fields"] or ())
        for topic, row in self.rows.items():
            if topic.startswith("book:"):
                depth = int(self.answer["depth"])
                row |= {"bids": row["bids"][:depth], "asks": row["asks"][:depth]}
            elif ":" not in topic and selected & row.keys() - {"state"}:
                for name in row.keys() - selected - COMMON:
                    del row[name]

    def named(self, row: dict | list) -> dict:
        """A row by its names, whichever way it came."""
        if isinstance(row, dict):
            return row
        channel, *names = self.answer["columns"][int(row[0])]
        values = row[1:]
        if channel not in ("quote", "index"):
            pairs = {name: value for name, value in zip(names, values, strict=True)
                     if not (name in ABSENT and value is None or name == "partial" and not value)}
            return pairs | {"channel": channel}
        at = names.index("mask")
        fields = [name for bit, name in enumerate(names[at + 1:]) if int(values[at]) >> bit & 1]
        full = {"full": True} if fields == names[at + 1:] else {}
        return dict(zip(names[:at], values)) | dict(zip(fields, values[at + 1:], strict=True)) | full

    def lose(self, gap: dict) -> None:
        """Some events will not come. (Of an image the full row is in the same batch.)"""
        topic, to = gap["topic"], int(gap["to"])
        if ":" not in topic:
            return
        # Who expects no number yet misses none before the first that it is told.
        expected = int(self.q[topic]) + 1 if topic in self.q else int(gap["from"] or to + 1)
        first = max(expected, int(gap["from"] or expected))
        if first <= to:
            self.lost[topic] = str(int(self.lost.get(topic, 0)) + to - first + 1)
        self.q[topic] = str(max(to, expected - 1))

    def gives_every(self, row: dict) -> bool:
        """Whether no event of the row's topic may be missing."""
        channel = row.get("channel", "")
        if channel == "trade":
            return self.answer["mode"] in ("every", "trade_safe")
        return channel in EVENTS or row.get("final") is True

    def apply(self, row: dict) -> tuple[bool, list]:
        """Takes a row; says whether it was new, and which events are in it."""
        topic = f"{row['channel']}:{row['symbol']}" if "channel" in row else row["symbol"]
        held, events = self.rows.get(topic, {}), []
        if row.get("out"):
            return self.rows.pop(topic, None) is not None, events
        if self.gives_every(row):
            last = int(self.q.get(topic, int(row["q"]) - 1))
            if int(row["q"]) <= last:
                return False, events
            if int(row["q"]) > last + 1 and self.answer["q"] != "sparse":
                raise ValueError(f"{topic}: {row['q']} after {last}, and no gap")
            self.q[topic] = row["q"]
            events = [[topic, row["q"]]]
        elif not (row.get("full") or "channel" in row):
            if held and int(row["rev"]) <= int(held["rev"]):
                return False, events
            events = [[topic, row["q"]]] if self.answer["mode"] == "every" else []
        news = {name: value for name, value in row.items() if name not in NOT_HELD}
        self.rows[topic] = news if row.get("full") or "channel" in row else held | news
        return True, events

    def digest(self) -> str:
        """Of the images and books that are held. (An index among them is one without `bid`: so the vectors choose.)"""
        texts = []
        for topic, row in self.rows.items():
            if topic.startswith("book:"):
                texts.append(digest.book(topic, row))
            elif ":" not in topic:
                texts.append(digest.image(topic, row, [name for name in (QUOTE if "bid" in row else INDEX) if name in row]))
        return str(digest.digest(texts))


class Client:
    """All subscriptions by name; they outlive a connection."""

    def __init__(self):
        self.subs, self.state, self.silence_ms = {}, "live", 0.0

    def connect(self) -> None:
        """Streams of the connection before mean nothing."""
        self.state = "live"
        for sub in self.subs.values():
            sub.stream = sub.seq = None

    def take(self, text: str) -> dict | None:
        """Takes a message; what is held then, or nothing if it changes nothing."""
        message = read(text)
        if message["type"] == "welcome":
            self.epoch, self.silence_ms = message["epoch"], 2.5 * int(message["heartbeat_ms"])
        if message["type"] not in HOLDING:
            return None
        return self.show(**(getattr(self, message["type"])(message) or {}))

    def subscribed(self, message: dict) -> dict:
        had = self.subs.pop(message["sub"], None)
        sub = self.subs[message["sub"]] = Subscription(message, self.epoch)
        if had and message["recovered"] in ("exact", "conflated"):
            sub.rows, sub.lost, sub.rev, sub.q = had.rows, had.lost, had.rev, sub.q | had.q
            return {}
        return {"verdict": "reset"} if had and had.rows else {}

    def updated(self, message: dict) -> None:
        sub = self.subs[message["sub"]]
        if sub.stream != message["stream"]:
            sub.q = (message["q"] if message["q"] != "sparse" else {}) | sub.q
            sub.begin(message)
            sub.narrow()

    def unsubscribed(self, message: dict) -> None:
        del self.subs[message["sub"]]

    def heartbeat(self, message: dict) -> dict:
        verdict = "ok"
        for sub in self.subs.values():
            if told := message["streams"].get(sub.stream):
                if told["seq"] == sub.seq:
                    sub.rev = told["rev"]
                else:
                    verdict = "gap"
        return {"verdict": verdict}

    def batch(self, message: dict) -> dict:
        sub = next(sub for sub in self.subs.values() if sub.stream == message["stream"])
        prev, anew = message["prev"], message.get("epoch", sub.epoch) != sub.epoch
        if prev not in (None, sub.seq):
            return {"verdict": "gap"}
        meaning = {"verdict": "ok"}
        if anew:
            sub.epoch, sub.q = message["epoch"], {}
        if anew or prev is None:
            meaning["verdict"] = "reset" if sub.rows else "ok"
            sub.rows = {}
        if prev and int(message["seq"]) > int(prev) + 1:
            meaning["merged"] = str(int(message["seq"]) - int(prev) - 1)
        sub.seq, sub.rev = message["seq"], message["rev"]
        for gap in message.get("gaps", []):
            sub.lose(gap)
        taken = [sub.apply(sub.named(row)) for row in message["rows"]]
        if taken and not any(is_new for is_new, _ in taken):
            meaning["verdict"] = "repeat"
        if "digest" in message and sub.digest() != message["digest"]:
            raise ValueError(f"digest {message['digest']}, held {sub.digest()}")
        return meaning | {"events": [event for _, events in taken for event in events]}

    def link(self, message: dict) -> None:
        self.state = message["state"]

    def show(self, verdict: str = "ok", **meaning: object) -> dict:
        """What a vector says is held."""
        subs = {name: {key: getattr(sub, key) for key in ("seq", "rev", "q", "lost", "rows")} for name, sub in self.subs.items()}
        link = {"link": self.state} if self.state != "live" else {}
        return {"verdict": verdict, "subs": subs} | link | {key: value for key, value in meaning.items() if value}
