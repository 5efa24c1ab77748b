"""The reference client tries itself, then every kind of subscription at once.

    python3 contract_test.py --binary PATH [--seconds N]     against a gateway of its own
    python3 contract_test.py --url ws://.../ws --seconds N   watches a gateway that runs already
"""

import contextlib
import json
import time
from collections import defaultdict

import digest
from contract import LIMITS, Client, Session, Stream
from harness import Gateway, Report, arguments, run


def broken_frames(report: Report) -> None:
    """The client notices what it is there to notice: each of these sequences breaks one rule."""
    welcome = {"type": "welcome", "epoch": "e", "session": "s", "version": "0", "heartbeat_ms": 3000, "simulated": True, "path": ["n"],
               "limits": dict.fromkeys(LIMITS[0], 1)}
    subscribed = {"type": "subscribed", "sub": "1", "stream": 1, "seq": 1, "rev": 5, "mode": "every", "rate": 10,
                  "capped_by": None, "fields": ["state", "last"], "delta": True, "depth": 10, "decimals": "number", "digest": 2, "window": False,
                  "filter": None, "columns": None,
                  "wish": "w", "topics": 2, "q": {"trade:A": 7}, "rejected": [], "recovered": None}
    updated = {**subscribed, "type": "updated", "stream": 2, "seq": 9}
    picture = {"type": "batch", "stream": 1, "seq": 1, "prev": None, "rev": 5, "ts_us": 0, "snapshot": True, "rows": [
        {"symbol": "A", "rev": 5, "q": 3, "time_us": 1, "full": True, "state": "live", "last": 1}]}

    def batch(seq=2, prev=1, rev=6, ts_us=1_000_000, rows=None, **more):
        rows = [{"symbol": "A", "rev": 6, "q": 4, "time_us": 1, "last": 2}] if rows is None else rows
        return {"type": "batch", "stream": 1, "seq": seq, "prev": prev, "rev": rev, "ts_us": ts_us, "rows": rows, **more}

    def trade(q):
        return {"symbol": "A", "channel": "trade", "rev": 6, "q": q, "time_us": 1, "price": 1, "size": 1, "side": None, "kind": "new"}

    def row(**changed):
        return {"symbol": "A", "rev": 6, "q": 4, "time_us": 1, "last": 2, **changed}

    def whole(q=4):
        return {"symbol": "A", "rev": 6, "q": q, "time_us": 1, "full": True, "state": "live", "last": 2}

    def after(seq=10, prev=9, **more):
        return {**batch(seq, prev, rev=7, **more), "stream": 2}

    listed = {**{key: value for key, value in subscribed.items() if key != "type"}, "held_seq": 1, "held_rev": 5, "lag_revs": 0,
              "merged": 0, "rows": 1, "gaps": 0}

    def lists(**changed):
        return {"type": "list", "subs": [{**listed, **changed}]}

    def gap(begin, to):
        return {"topic": "trade:A", "from": begin, "to": to, "reason": "log_overrun"}

    cases = [
        ("nothing wrong", [batch()], 0),
        ("nothing wrong with an announced gap", [batch(rows=[trade(10)], gaps=[gap(8, 9)])], 0),
        ("nothing wrong with a gap from the next one", [batch(rows=[trade(10)], gaps=[gap(None, 9)])], 0),
        ("nothing wrong with a lost change", [batch(rows=[whole(q=9)], gaps=[{**gap(None, 8), "topic": "A"}])], 0),
        ("a lost change without its row", [batch(rows=[trade(8)], gaps=[{**gap(None, 8), "topic": "A"}])], 1),
        ("a whole row where nothing is lost", [batch(rows=[whole()])], 1),
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
        ("nothing wrong with a digest", [batch(digest=digest.digest(["A;state=live;last=2"]))], 0),
        ("a digest of something else", [batch(digest=digest.digest(["A;state=live;last=1"]))], 1),
        ("a digest that is not due", [batch(digest=1), batch(seq=3, prev=2, rev=7, rows=[row(rev=7)], digest=1)], 1),
        ("nothing wrong with a list", [lists()], 0),
        ("a list of another seq", [lists(held_seq=2)], 1),
        ("a list of other options", [lists(depth=9)], 1),
        ("nothing wrong with an update", [batch(), updated, after(rows=[row(rev=7)])], 0),
        ("an update without its seq", [batch(), updated, after(prev=2, rows=[row(rev=7)])], 1),
        ("a whole row after an update", [batch(), updated, after(rows=[row(rev=7, full=True, state="live")])], 1),
        ("a batch of the stream before the update", [updated, batch()], 1),
        ("added without a row", [batch(added=["B"])], 1),
        ("a heartbeat ahead of us", [{"type": "heartbeat", "ts_us": 1, "streams": {"1": {"seq": 2, "rev": 6}}}], 1),
        ("a heartbeat that forgets a quiet stream", [batch(), *[{"type": "heartbeat", "ts_us": 1, "streams": {}}] * 2], 1),
    ]
    for name, frames, expected in cases:
        session = Session()
        for frame in (welcome, subscribed, picture, *frames):
            session.feed(json.dumps(frame), 0.0)
        report.check(f"the client's eye: {name}", bool(session.violations) == bool(expected), session.violations)
    exact = {"recovered": "exact", "rev": 6}
    for name, cut, answer, frames, expected in [
        ("nothing wrong with going on", {}, {}, [batch(rows=[row(), trade(9)])], 0),
        ("an event that came before the cursor", {}, {}, [batch(rows=[trade(8)])], 1),
        ("nothing wrong with a repeat after a part", {"more": True, "rev": 5}, {}, [batch(rows=[trade(8), trade(9)])], 0),
        ("a whole picture again", {}, {}, [{**picture, "rev": 6}], 1),
        ("exact, and an image changed", {}, {**exact, "mode": "conflate"}, [batch(rows=[row(rev=6)])], 1),
        ("exact, and an event is lost", {}, exact, [batch(rows=[trade(10)], gaps=[gap(9, 9)])], 1),
        ("exact, and nothing wrong", {}, exact, [batch(rows=[trade(9), trade(10)], rev=7)], 0),
    ]:
        old, new = Session(), Session()
        for frame in (welcome, subscribed, picture, batch(rows=[trade(8)], seq=2, **{"rev": 5, **cut})):
            old.feed(json.dumps(frame), 0.0)
        new.asked[1], new.held[1] = {"since": old.subs["1"].since}, old.subs["1"]
        for frame in (welcome, {**subscribed, "id": 1, "recovered": "conflated", **answer}, *frames):
            new.feed(json.dumps(frame), 0.0)
        report.check(f"the client's eye: {name}", bool(new.violations) == bool(expected), old.violations + new.violations)


class Windows:
    """What the windows of one stream should say, by the changes and trades of another."""

    def __init__(self):
        self.since = 0  # from here on `each` gives all
        self.last = defaultdict(list)  # (rev, last) of each symbol
        self.trades = defaultdict(list)  # (rev, size)
        self.rev = 0
        self.rows = []  # (the rev before the frame, its own, the row)

    def row(self, stream: Stream, topic: str, row: dict) -> None:
        """Notes what `each` says."""
        if stream.sub != "each":
            return
        if row.get("full"):
            self.since = max(self.since, row["rev"])
        elif row.get("last") is not None:
            self.last[topic].append((row["rev"], row["last"]))
        elif topic.startswith("trade:"):
            self.trades[row["symbol"]].append((row["rev"], row["size"]))

    def batch(self, stream: Stream, frame: dict) -> None:
        """Notes what `windows` says."""
        if stream.sub == "windows":
            self.rows += [(self.rev, frame["rev"], row) for row in frame["rows"] if "hi" in row]
            self.rev = frame["rev"]

    def wrong(self) -> tuple[int, list]:
        """How many could be compared, and those that are not as they should be."""
        checked, wrong = 0, []
        for begin, end, row in self.rows:
            if begin < self.since:
                continue
            checked += 1
            lasts = [last for rev, last in self.last[row["symbol"]] if begin < rev <= end]
            sizes = [size for rev, size in self.trades[row["symbol"]] if begin < rev <= end]
            expected = (max(lasts, default=None), min(lasts, default=None), sum(sizes))
            if (row["hi"], row["lo"], row["vol"] or 0) != expected:
                wrong.append((begin, end, row, expected))
        return checked, wrong


async def watch(report: Report, url: str, seconds: float, dense: bool, compression: str | None = None) -> Client:
    """Every kind of subscription at once on one session, and the same wishes spread over several sessions."""
    client = await Client.connect(url, compression=compression)
    agreed = [extension.name for extension in client.socket.protocol.extensions]
    report.equal(f"compression {compression}", agreed, ["permessage-deflate"] if compression else [])
    wishes = [
        {"topics": ["*"], "sub": "all", "digest": 100},
        {"topics": ["*"], "sub": "rated", "rate": 10},
        {"topics": ["*"], "sub": "slow", "rate": 0.5},
        {"topics": ["*"], "sub": "again", "rate": 10},
        {"topics": ["*"], "sub": "some", "fields": ["last", "bid", "ask"], "rate": 5, "digest": 1},
        {"topics": ["*"], "sub": "whole", "delta": False, "rate": 4},
        {"topics": ["*"], "sub": "text", "decimals": "string", "rate": 2, "digest": 1},
        {"topics": ["*"], "sub": "arrays", "rate": 10, "columns": True, "digest": 1},
        {"topics": ["*", "book:*", "bar_1s:*"], "sub": "some-arrays", "columns": True, "fields": ["last", "bid"], "rate": 5},
        {"topics": ["trade:*", "status:*"], "sub": "event-arrays", "mode": "every", "columns": True, "decimals": "string"},
        {"topics": ["trade:*", "status:*"], "sub": "events", "mode": "every"},
        {"topics": ["trade:*"], "sub": "events-rated", "mode": "every", "rate": 5, "decimals": "string"},
        {"topics": ["*", "trade:*"], "sub": "each", "mode": "every", "digest": 10},
        {"topics": ["*"], "sub": "each-rated", "mode": "every", "rate": 2, "fields": ["last", "volume"], "digest": 1},
        {"topics": ["*", "trade:*"], "sub": "windows", "rate": 2, "fields": ["last"], "window": True, "digest": 1},
        {"topics": ["*"], "sub": "safe", "mode": "trade_safe", "rate": 2, "digest": 1},
        {"topics": ["trade:*"], "sub": "last-trades", "rate": 10},
        {"topics": ["book:*"], "sub": "books", "rate": 4, "depth": 3, "digest": 2},
        {"topics": ["book:*", "*"], "sub": "both", "rate": 1, "depth": 1000, "digest": 1},
        {"topics": ["*"], "sub": "from-now", "snapshot": False},
        {"topics": ["bar_1s:*", "bar_1m:*"], "sub": "bars", "rate": 5},
        {"topics": ["trade:*"], "sub": "events-from-now", "mode": "every", "snapshot": False, "rate": 10},
    ]
    windows = Windows()
    client.on_row, client.on_batch = windows.row, windows.batch
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
    checked, wrong = windows.wrong()
    report.check(f"windows have what was merged ({checked})", checked > seconds and not wrong, wrong[:3])
    pong = await client.command(action="ping")
    report.check("ping is answered", abs(pong["ts_us"] / 1e6 - time.time()) < 5, pong)
    for name, stream in client.subs.items():
        quiet = not dense and ("event" in name or "trade" in name or name in ("books", "bars"))
        low = seconds * float(stream.rate) * 0.6 if dense and stream.rate else int(not quiet)
        report.check(f"{name}: frames came ({stream.frames} with {stream.rows} rows)", stream.frames >= low, f"at least {low}")
        report.equal(f"{name}: nothing was merged on an idle line", stream.merged, 0)
        report.equal(f"{name}: no event was lost", dict(stream.lost), {})
        if stream.answer["digest"]:
            report.check(f"{name}: digests came ({stream.digests}, {stream.digests_due} due)", stream.digests >= stream.digests_due > 0)
    near = {name: s.near for name, s in client.subs.items() if s.near > 2}
    report.check("busy rated streams keep 0.8 of a slot between frames", not dense or not near, near)
    report.check("a second equal subscription has a stream of its own",
                 client.subs["rated"].number != client.subs["again"].number)
    each = client.subs["each"]
    report.check(f"each: changes came one by one ({each.changes})", each.changes > seconds, each.changes)
    safe = client.subs["safe"]
    report.check(f"safe: trades do not wait for a slot ({safe.frames} frames)", not dense or safe.frames > 2 * 2 * seconds)
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
    report.equal("the checksum is that of RFC 3720, B.4", [digest.crc32c(b"123456789"), digest.crc32c(bytes(32))], [0xE3069283, 0x8A9136AA])
    broken_frames(report)
    if options.url:
        client = await watch(report, options.url, options.seconds, False)
    else:
        for feed, dense in [("synthetic:vn30?rate=500", True), ("synthetic:load?symbols=150&rate=1000", False)]:
            async with await Gateway.start(options.binary, feed, config="[limits]\nheartbeat_ms = 1000\n") as gateway:
                print(f"# {feed}")
                client = await watch(report, gateway.url, options.seconds, dense, None if dense else "deflate")
    if options.examples:
        for name, text in sorted(client.examples.items()):
            print(f"## {name}\n{text[:2000]}")


if __name__ == "__main__":
    run(main)
