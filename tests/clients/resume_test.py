"""Who comes back, and who changes a subscription, holds what somebody holds who never left, or who came new.

    python3 resume_test.py --binary PATH [--clients N]
"""

import asyncio
import copy
import json
import re
import resource
import select
import statistics
import time
from collections import defaultdict
from decimal import Decimal

from contract import Client, Stream, fields_of
from harness import Gateway, Report, arguments, http, run
from stalled_test import connect, frames

LOAD = "synthetic:load?symbols=500&rate=300"
VN30 = "synthetic:vn30?rate=300"
AWAY_REVS = 200
AWAY_TRADES = 300
LOG_EVENTS = 64
TEXTS = {"state", "phase", "trading_date", "channel", "side", "kind"}


def config(shards: int = 1, **limits: object) -> str:
    """The configuration of a gateway with so many shards and these limits."""
    return f"shards = {shards}\n[limits]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items())


def values(row: dict) -> dict:
    """What a row says of an image or a book, however its decimals are written."""
    def plain(value: object) -> object:
        return Decimal(value).normalize() if isinstance(value, (int, Decimal, str)) else value

    if "bids" in row:
        return {"state": row["state"], **{side: [[*map(plain, level)] for level in row[side]] for side in ("bids", "asks")}}
    return {name: row[name] if name in TEXTS else plain(row[name]) for name in fields_of(row)}


class Record:
    """What a client was given and what it held after its last frames, by subscription."""

    def __init__(self, client: Client):
        self.client = client
        self.batches: dict[str, list[tuple[int, dict]]] = defaultdict(list)
        self.tables: dict[str, dict] = {}  # of those that somebody compares
        self.rows: dict[str, dict] = defaultdict(dict)
        self.events: dict[str, dict] = defaultdict(dict)
        client.on_batch, client.on_row = self.on_batch, self.on_row

    @classmethod
    async def connect(cls, gateway: Gateway, query: str = "", held: Stream | None = None) -> "Record":
        return cls(await Client.connect(gateway.url + query, held))

    def on_row(self, stream: Stream, topic: str, row: dict) -> None:
        if row.get("channel") in (None, "book"):
            self.rows[stream.sub][topic, row["rev"]] = dict(stream.table[topic])
        elif stream.gives_all(topic):
            self.events[stream.sub][topic, row["q"]] = row

    def on_batch(self, stream: Stream, frame: dict) -> None:
        self.batches[stream.sub].append((self.client.size, frame))
        if stream.sub in self.tables:
            # Shared frames are the same to the digit for all who get them.
            key = (frame["stream"], frame["seq"], frame["ts_us"], frame["rev"])
            table = {topic: dict(row) for topic, row in stream.table.items() if not stream.gives_all(topic)}
            self.tables[stream.sub][key] = table

    def bytes_of_picture(self, sub: str) -> int:
        return sum(size for size, frame in self.batches[sub] if frame.get("snapshot"))

    def changed(self, sub: str, after: int, to: int) -> set[str]:
        """The images and books of which a row between these revisions was seen."""
        return {topic for topic, rev in self.rows[sub] if after < rev <= to}


async def same_table(report: Report, name: str, one: Record, other: Record, sub: str) -> None:
    """Both are on one stream: after the same frame they hold the same."""
    for record in (one, other):
        record.tables[sub] = {}
    deadline = time.monotonic() + 10
    while not (both := one.tables[sub].keys() & other.tables[sub].keys()) and time.monotonic() < deadline:
        frames = one.client.subs[sub].frames
        await one.client.until(lambda: one.client.subs[sub].frames > frames, 10, f"{name}: a frame")  # noqa: B023
    if not report.check(f"{name}: both are given the same frames", both, [list(r.tables[sub])[-3:] for r in (one, other)]):
        return
    held, expected = ({topic: values(row) for topic, row in record.tables.pop(sub)[max(both)].items()} for record in (one, other))
    wrong = [(topic, held.get(topic), expected.get(topic)) for topic in held.keys() | expected.keys() if held.get(topic) != expected.get(topic)]
    report.check(f"{name}: the tables of {len(expected)} topics are equal", not wrong, f"{len(wrong)} differ, first {wrong[:1]}")


def same_rows(report: Report, name: str, one: dict, other: dict, least: int, of=values) -> None:
    """Rows of the same topic and revision (events: the same number) say the same."""
    both = one.keys() & other.keys()
    wrong = [(key, one[key], other[key]) for key in both if of(one[key]) != of(other[key])]
    report.check(f"{name}: {len(both)} rows of the same number are equal", len(both) >= least and not wrong,
                 f"expected {least}; {len(wrong)} differ, first {wrong[:1]}")


def clean(report: Report, name: str, *records: Record) -> None:
    report.clean(f"{name}: the contract is kept", [rule for record in records for rule in record.client.violations])


async def rev_passes(gateway: Gateway, rev: int) -> None:
    """Waits until the gateway is beyond a revision, with no client to tell."""
    async with asyncio.timeout(20):
        while True:
            _, _, body = await http(gateway.port, "/v1/snapshot?symbols=V*&fields=last")
            if json.loads(body)["rev"] > rev:
                return


async def away(report: Report, binary: str, shards: int) -> None:
    """500 symbols: the way back costs what changed, and no more."""
    what = f"500 symbols, {shards} shards"
    wishes = {"all": {"digest": 50}, "rated": {"digest": 5, "rate": 10, "fields": ["last", "bid"]}}
    async with await Gateway.start(binary, LOAD, config=config(shards)) as gateway:
        stayed, left = await Record.connect(gateway), await Record.connect(gateway)
        for record in (stayed, left):
            for sub, wish in wishes.items():
                await record.client.subscribe("*", sub=sub, **wish)
        await left.client.vanish()
        cursors = left.client.subs
        rev = max(stream.rev for stream in cursors.values()) + AWAY_REVS
        await stayed.client.until(lambda: all(stream.rev > rev for stream in stayed.client.subs.values()), 20, "the revisions")
        back = await Record.connect(gateway)
        for sub, cursor in cursors.items():
            begun = back.client.messages
            answer = await back.client.resume(cursor)
            report.equal(f"{what}, {sub}: recovered", answer.get("recovered"), "conflated")
            stream = back.client.subs[sub]
            await back.client.until(lambda s=stream: s.frames, 5, "the catch-up")
            size, first = back.batches[sub][0]
            newest = max(row["rev"] for row in first["rows"])
            await stayed.client.until(lambda s=sub, n=newest: stayed.client.subs[s].rev >= n, 5, "the same revision")
            topics = {row["symbol"] for row in first["rows"]}
            least = stayed.changed(sub, cursor.rev, first["rev"])
            most = stayed.changed(sub, cursor.rev, 1 << 60)
            report.check(f"{what}, {sub}: one batch with the {len(topics)} that changed", least <= topics <= most and "more" not in first,
                         f"missing {sorted(least - topics)[:3]}, too many {sorted(topics - most)[:3]}, more {first.get('more')}")
            report.check(f"{what}, {sub}: no whole row", not any("full" in row for row in first["rows"]), first["rows"][:1])
            picture = left.bytes_of_picture(sub)
            bound = picture * len(topics) // 500 + 256
            report.check(f"{what}, {sub}: {size} bytes, the picture was {picture}", size <= bound and len(topics) < 400, f"at most {bound}")
            others = [message for message in (answer,) if message["type"] != "subscribed"]
            report.check(f"{what}, {sub}: one answer", not others and len(back.client.answers) == len(back.client.subs), begun)
            if shards == 1:
                await same_table(report, f"{what}, {sub}", back, stayed, sub)
            same_rows(report, f"{what}, {sub}: against who stayed", back.rows[sub], stayed.rows[sub], 10)
            await back.client.until(lambda s=stream: s.digests, 10, "a digest")
        held = {(topic, row["rev"]): dict(row) for topic, row in back.client.table("all").items()}
        _, _, body = await http(gateway.port, "/v1/snapshot")
        told = json.loads(body, parse_float=Decimal)
        await back.client.until(lambda: back.client.subs["all"].rev >= told["rev"], 5, "the snapshot's revision")
        rows = {(row["symbol"], row["rev"]): row for row in told["rows"]}
        same_rows(report, f"{what}: against /v1/snapshot", held | back.rows["all"], rows, 400)
        clean(report, what, stayed, left, back)


async def cut_off(report: Report, binary: str) -> None:
    """Frames of 4 KiB: who is gone between two parts goes on from there."""
    wish = {"sub": "all", "mode": "every", "digest": 10}
    topics = ["*", "trade:*", "book:*"]
    async with await Gateway.start(binary, VN30, config=config(frame_bytes_max=4096)) as gateway:
        stayed = await Record.connect(gateway)
        await stayed.client.subscribe(*topics, **wish)
        records, cursor = [], None
        for what, verdict, in_picture in [
            ("the first picture", None, True), ("the picture again", None, True), ("nothing", None, False),
            ("a catch-up", "conflated", True), ("a catch-up again", "conflated", True), ("nothing at last", "conflated", False),
        ]:
            back = await Record.connect(gateway)
            parts: list[Stream] = []

            def on_batch(stream: Stream, frame: dict, parts=parts, record=back.on_batch) -> None:
                record(stream, frame)
                if stream.more and stream.q != stream.answer["q"] or stream.frames == 2:
                    parts.append(copy.deepcopy(stream))

            back.client.on_batch = on_batch
            if cursor is None:
                await back.client.subscribe(*topics, whole=False, **wish)
            else:
                answer = await back.client.resume(cursor)
                report.equal(f"cut off in {what}: recovered", answer.get("recovered"), verdict)
            stream = back.client.subs["all"]
            await back.client.until((lambda p=parts: p) if in_picture else (lambda s=stream: s.frames and not s.owed), 5, "a part")
            records.append(back)
            if what == "nothing at last":
                break
            await back.client.vanish()
            cursor = parts[0] if in_picture else stream
            rev = stayed.client.subs["all"].rev + AWAY_REVS
            await stayed.client.until(lambda r=rev: stayed.client.subs["all"].rev > r, 10, "revisions")
        await same_table(report, "cut off", back, stayed, "all")
        same_rows(report, "cut off: trades", back.events["all"], stayed.events["all"], 20, dict)
        clean(report, "cut off", stayed, *records)


async def events(report: Report, binary: str, log: int | None) -> None:
    """Every trade, or an exact account of the others."""
    what = f"trades, a log of {log}" if log else "trades"
    limits = {"log_events_max": log} if log else {}
    async with await Gateway.start(binary, "synthetic:vn30?rate=1000", config=config(**limits)) as gateway:
        stayed, left = await Record.connect(gateway), await Record.connect(gateway)
        for record in (stayed, left):
            await record.client.subscribe("trade:@VN30", "status:@VN30", sub="tape", mode="every")
        await left.client.vanish()
        cursor = left.client.subs["tape"]
        known = len(stayed.events["tape"])
        await stayed.client.until(lambda: len(stayed.events["tape"]) > known + AWAY_TRADES, 20, "trades")
        back = await Record.connect(gateway)
        answer = await back.client.resume(cursor)
        report.equal(f"{what}: recovered", answer.get("recovered"), "conflated" if log else "exact")
        stream, numbers = back.client.subs["tape"], dict(stayed.client.subs["tape"].q)
        await back.client.until(lambda: all(stream.q.get(topic, 0) >= q for topic, q in numbers.items()), 5, "all numbers")
        given, lost = len(back.events["tape"]), sum(stream.lost.values())
        all_of_them = sum(stream.q[topic] - cursor.q[topic] for topic in numbers)
        report.equal(f"{what}: {given} given and {lost} announced as lost are all", given + lost, all_of_them)
        report.check(f"{what}: {lost} lost", (lost > 0) == bool(log) and given > 0, lost)
        reasons = {gap["reason"] for _, frame in back.batches["tape"] for gap in frame.get("gaps", [])}
        report.equal(f"{what}: reasons", reasons, {"log_overrun"} if log else set())
        same_rows(report, f"{what}: against who stayed", back.events["tape"], stayed.events["tape"], LOG_EVENTS // 2, dict)
        clean(report, what, stayed, left, back)


async def alone(report: Report, binary: str, shards: int, way: str) -> None:
    """Nobody else watches meanwhile, so the gateway sleeps; the verdicts are true all the same."""
    wishes = {"images": (["@VN30"], {"digest": 1}), "books": (["book:@VN30"], {"depth": 3, "digest": 1}),
              "bars": (["bar_1s:@VN30"], {"rate": 10}), "last": (["trade:@VN30"], {"decimals": "string"})}
    what = f"alone, {shards} shards, by {way}"
    async with await Gateway.start(binary, "synthetic:vn30?rate=100", config=config(shards)) as gateway:
        left = await Record.connect(gateway)
        for sub, (topics, options) in wishes.items():
            await left.client.subscribe(*topics, sub=sub, **options)
        await left.client.vanish()
        cursors = left.client.subs
        back = {sub: await Record.connect(gateway) for sub in wishes} if "a while" in way else {}
        await rev_passes(gateway, max(cursor.rev for cursor in cursors.values()) + AWAY_REVS)
        for sub, (topics, options) in wishes.items():
            cursor = cursors[sub]
            if way == "the URL":
                keys = {"symbols": ",".join(topics), "sub": sub, **options, "since": ":".join(map(str, cursor.since.values()))}
                back[sub] = await Record.connect(gateway, "?" + "&".join(f"{key}={value}" for key, value in keys.items()), cursor)
                client = back[sub].client
                await client.until(lambda c=client: c.subs or c.errors, 5, "the answer")
                answer = client.errors[0] if client.errors else client.subs[sub].answer
            else:
                back[sub] = back.get(sub) or await Record.connect(gateway)
                answer = await back[sub].client.resume(cursor)
            if not report.equal(f"{what}, {sub}: recovered", answer.get("recovered", answer.get("code")), "conflated"):
                continue
            stream = back[sub].client.subs[sub]
            await back[sub].client.until(lambda s=stream: s.frames > 1, 10, "frames")
            if shards == 1 and sub != "bars":
                fresh = await Record.connect(gateway)
                await fresh.client.subscribe(*topics, sub=sub, **options)
                await same_table(report, f"{what}, {sub}", back[sub], fresh, sub)
        clean(report, what, left, *back.values())


async def refused(report: Report, binary: str) -> None:
    """Cursors of another run, of another subscription, and of the future."""
    gateway = await Gateway.start(binary, LOAD, config=config())
    left = await Record.connect(gateway)
    await left.client.subscribe("*", sub="all", rate=10)
    cursor = left.client.subs["all"]
    back = await Record.connect(gateway)
    answer = await back.client.resume(cursor, sub="other", fields=["last"])
    report.equal("another wish: recovered", answer.get("recovered"), "reset")
    await back.client.until(lambda: back.client.subs["other"].whole, 5, "the picture")
    report.equal("another wish: a whole picture", len(back.client.table("other")), 500)
    vouched = {key: value for key, value in cursor.since.items() if key != "wish"}
    answer = await back.client.command(held=cursor, **{**cursor.asked, "action": "subscribe", "sub": "vouched", "since": vouched})
    report.check("no wish: the client vouches for it", answer.get("recovered") in ("exact", "conflated"), answer)
    ahead = {**cursor.since, "rev": cursor.rev + 10**9}
    answer = await back.client.command(**{**cursor.asked, "action": "subscribe", "sub": "ahead", "since": ahead})
    report.check("ahead: node_behind, and when to try again", answer.get("code") == "node_behind" and answer["retry_after_ms"] > 0, answer)
    answer = await back.client.resume(cursor, sub="ahead")
    report.check("ahead: the session lives, and the right cursor is taken", answer.get("recovered") in ("exact", "conflated"), answer)
    for name, since in [("a word", "now"), ("without rev", {"epoch": "x"}), ("an unknown key", {**cursor.since, "seq": 1}),
                        ("a negative rev", {**cursor.since, "rev": -1})]:
        answer = await back.client.command(action="subscribe", topics=["*"], since=since)
        report.check(f"since: {name} is refused", answer.get("code") == "bad_request" and "since" in answer["message"] or
                     "seq" in answer["message"], answer)
    clean(report, "refused cursors", left, back)
    port = gateway.port
    await gateway.stop()
    async with await Gateway.start(binary, LOAD, config=config(), listen=f"127.0.0.1:{port}") as gateway:
        back, fresh = await Record.connect(gateway), await Record.connect(gateway)
        answer = await back.client.resume(cursor)
        report.equal("another run: recovered", answer.get("recovered"), "reset")
        await back.client.until(lambda: back.client.subs["all"].whole, 5, "the picture")
        await fresh.client.subscribe("*", sub="all", rate=10)
        await same_table(report, "another run", back, fresh, "all")
        clean(report, "another run", back, fresh)


# What changes, which topics then come whole, which go.
UPDATES = [
    ("a quote and a book more", {"add": ["VCB", "book:FPT"]}, {"VCB", "book:FPT"}, set()),
    ("a quote less", {"remove": ["FPT"]}, set(), {"FPT"}),
    ("a group more", {"add": ["@VN30"]}, "the rest of the group", set()),
    ("a name of the group less", {"remove": ["VCB"]}, set(), set()),
    ("one more and one less", {"add": ["book:VCB"], "remove": ["book:FPT"]}, {"book:VCB"}, {"book:FPT"}),
    ("another rate", {"rate": 20}, set(), set()),
    ("no rate", {"rate": None}, set(), set()),
    ("fewer fields", {"fields": ["last", "volume"]}, set(), set()),
    ("other fields", {"fields": ["bid", "last"]}, "all quotes", set()),
    ("fields of quotes alone", {"fields": ["bid"]}, "the index", set()),
    ("all fields", {"fields": None}, "all quotes", set()),
    ("less depth", {"depth": 2}, set(), set()),
    ("more depth", {"depth": 5}, {"book:VCB"}, set()),
    ("strings", {"decimals": "string"}, set(), set()),
    ("numbers", {"decimals": "number"}, set(), set()),
    ("whole rows", {"delta": False}, set(), set()),
    ("changed fields", {"delta": True}, set(), set()),
    ("digests", {"digest": 1}, set(), set()),
    ("trades", {"add": ["trade:@VN30"]}, "last trades", set()),
    ("every change", {"mode": "every"}, "all images", set()),
    ("every trade", {"mode": "trade_safe"}, "all images", set()),
    ("the last trade", {"mode": "conflate"}, set(), set()),
    ("nothing", {}, set(), set()),
    ("other topics", {"topics": ["@VN30", "book:FPT", "trade:FPT"]}, {"book:FPT"}, "the others"),
    ("everything at once", {"topics": ["VCB", "VN30", "book:FPT"], "rate": 10, "fields": ["ask"], "depth": 3, "decimals": "string"},
     "some", "some"),
]


async def updates(report: Report, binary: str) -> None:
    """A running subscription is changed while ticks flow: it goes on, and holds what a new one holds."""
    async with await Gateway.start(binary, VN30, config=config(commands_burst=1000)) as gateway:
        one = await Record.connect(gateway)
        await one.client.subscribe("FPT", "VNM", sub="s", rate=10)
        for name, options, added, removed in UPDATES:
            name = f"update: {name}"
            held = dict(one.client.table("s"))
            given = len(one.batches["s"])
            answer = await one.client.update("s", **options)
            report.equal(f"{name}: answer", (answer["type"], answer.get("rejected")), ("updated", []))
            stream = one.client.subs["s"]
            if isinstance(removed, set):
                report.equal(f"{name}: removed", set(answer.get("removed", [])), removed)
            fresh = await Record.connect(gateway)
            await fresh.client.subscribe(sub="s", whole=True, *stream.asked["topics"],
                                         **{key: value for key, value in stream.asked.items() if key not in ("topics", "snapshot")})
            report.equal(f"{name}: the wish of a new one", answer["wish"], fresh.client.subs["s"].answer["wish"])
            await same_table(report, name, one, fresh, "s")
            came = {topic for _, frame in one.batches["s"][given:] for topic in frame.get("added", [])}
            images = {topic for topic, row in stream.table.items() if "channel" not in row}
            expected = {"the rest of the group": images - held.keys(), "all images": images, "all quotes": images - {"VN30"}, "the index": {"VN30"},
                        "last trades": {topic for topic in came if topic.startswith("trade:")}, "some": came}
            report.equal(f"{name}: whole rows of", came, expected.get(added, added) if isinstance(added, str) else added)
            clean(report, name, one, fresh)
            one.client.violations.clear()
            await fresh.client.close()
        await refused_updates(report, one)


async def refused_updates(report: Report, one: Record) -> None:
    """What cannot be changed stays as it was."""
    stream = one.client.subs["s"]
    for name, options, codes in [
        ("partly", {"add": ["FPT", "NOPE"], "remove": ["MWG"]}, {"NOPE": "unknown_topic", "MWG": "unknown_topic"}),
        ("nothing new", {"add": ["NOPE"]}, {"NOPE": "unknown_topic"}),
    ]:
        answer = await one.client.update("s", **options)
        got = {rejected["topic"]: rejected["code"] for rejected in answer["rejected"]}
        report.equal(f"update refused {name}: rejected", (answer["type"], got), ("updated", codes))
    await one.client.until(lambda: "FPT" in stream.table, 5, "the row of what was taken")
    report.equal("update refused partly: the rest is taken", stream.table.keys(), {"VCB", "VN30", "FPT", "book:FPT"})
    before = dict(stream.answer)
    for name, options, code in [
        ("nothing would be left", {"remove": ["VCB", "VN30", "FPT", "book:FPT"]}, "bad_request"),
        ("no topic is known", {"topics": ["NOPE"]}, "unknown_topic"),
        ("two ways at once", {"topics": ["VCB"], "add": ["FPT"]}, "bad_request"),
        ("a mode that ends", {"mode": "snapshot"}, "bad_request"),
        ("an unknown field", {"fields": ["lats"]}, "bad_request"),
        ("an unknown key", {"snapshot": True}, "bad_request"),
    ]:
        answer = await one.client.update("s", **options)
        report.equal(f"update refused, {name}", (answer["type"], answer.get("code")), ("error", code))
    answer = await one.client.update("t", rate=1)
    report.equal("update refused, an unknown sub", (answer["type"], answer.get("code")), ("error", "unknown_sub"))
    listed = (await one.client.command(action="list"))["subs"][0]
    same = {key: (listed[key], before[key]) for key in ("stream", "wish", "topics", "rate") if listed[key] != before[key]}
    report.equal("update refused: everything stays as it was", same, {})
    frames = stream.frames
    await one.client.until(lambda: stream.frames > frames, 5, "a frame")
    clean(report, "update refused", one)


async def behind(report: Report, binary: str) -> None:
    """Updates of a client that has not read for a while, and of one that has not its whole picture yet."""
    async with await Gateway.start(binary, "synthetic:load?symbols=500&rate=20000", config=config(frame_bytes_max=8192)) as gateway:
        stayed = await Record.connect(gateway)
        await stayed.client.subscribe("*", sub="s", rate=20)
        for name, options in [("nothing", {}), ("another rate", {"rate": 10}), ("fields", {"fields": ["last", "bid"]}),
                              ("topics", {"topics": ["L0*", "L1*"]})]:
            for early in (False, True):
                what = f"update while behind{', before the picture is whole' if early else ''}: {name}"
                one = await Record.connect(gateway, "?symbols=L499&sub=warm")
                one.client.socket.transport.get_extra_info("socket").setsockopt(1, 8, 4096)  # SO_RCVBUF
                one.client.reads = False
                if early:
                    one.client.socket.transport.pause_reading()
                    one.client.asked["sub"] = {"id": "sub", "action": "subscribe", "sub": "s", "topics": ["*"], "rate": 20}
                    await one.client.socket.send(json.dumps(one.client.asked["sub"]))
                else:
                    await one.client.subscribe("*", sub="s", rate=20)
                    one.client.socket.transport.pause_reading()
                seq = stayed.client.subs["s"].seq
                await stayed.client.until(lambda n=seq: stayed.client.subs["s"].seq > n + 40, 20, "frames")
                one.client.asked["up"] = {"id": "up", "action": "update", "sub": "s", **options}
                await one.client.socket.send(json.dumps(one.client.asked["up"]))
                seq = stayed.client.subs["s"].seq
                await stayed.client.until(lambda n=seq: stayed.client.subs["s"].seq > n + 10, 20, "frames")
                one.client.socket.transport.resume_reading()
                await one.client.until(lambda c=one.client: "up" in c.answers, 10, "the answer")
                stream = one.client.subs["s"]
                frames = stream.frames
                await one.client.until(lambda s=stream, n=frames: s.whole and s.frames > n + 5, 10, "frames")
                await one.client.command(action="list")
                report.check(f"{what}: {stream.merged} frames were merged", early or stream.merged > 0, stream.merged)
                clean(report, what, one)
                await one.client.close()
        clean(report, "update while behind: who reads", stayed)


async def capped(report: Report, binary: str) -> None:
    """What the gateway's limit made of a rate is said as long as it is so."""
    async with await Gateway.start(binary, VN30, config=config(rate_max=20)) as gateway:
        client = await Client.connect(gateway.url)
        await client.subscribe("VCB", sub="s")
        for name, options, expected in [
            ("as it was", {}, (20, "limit")), ("a topic more", {"add": ["FPT"]}, (20, "limit")), ("a slower rate", {"rate": 10}, (10, None)),
            ("a field less", {"fields": ["last"]}, (10, None)), ("no rate", {"rate": None}, (20, "limit")), ("too fast", {"rate": 50}, (20, "limit")),
        ]:
            answer = await client.update("s", **options)
            report.equal(f"a limit of 20, {name}: rate and capped_by", (answer["rate"], answer["capped_by"]), expected)
            await client.command(action="list")
        report.clean("a limit of 20: list says the same", client.violations)


async def twins(report: Report, binary: str) -> None:
    """Two subscriptions of one session become equal: each has a stream of its own, with the same content."""
    async with await Gateway.start(binary, VN30, config=config()) as gateway:
        one = await Record.connect(gateway)
        await one.client.subscribe("@VN30", sub="a", rate=10, digest=1)
        await one.client.subscribe("VCB", sub="b", rate=20, digest=1)
        answer = await one.client.update("b", topics=["@VN30"], rate=10)
        report.check("twins: equal wishes, two streams", answer["wish"] == one.client.subs["a"].answer["wish"]
                     and answer["stream"] != one.client.subs["a"].number, answer)
        await one.client.update("a", rate=20)
        await one.client.update("a", rate=10)
        await one.client.command(action="unsubscribe", sub="b")
        frames = one.client.subs["a"].frames
        await one.client.until(lambda: one.client.subs["a"].frames > frames + 3, 10, "frames")
        clean(report, "twins", one)


class Lean:
    """A client of which a thousand do not wait for their own reading: it looks at the heads of its messages."""

    def __init__(self, port: int, query: str, poll: select.epoll):
        self.sock, self.rest, self.heads, self.at_s = connect(port, f"/ws?symbols=*&rate=0.2&{query}"), b"", [], 0.0
        poll.register(self.sock.fileno(), select.EPOLLIN)

    def read(self) -> None:
        """Takes what has come."""
        data, at = self.rest + self.sock.recv(1 << 16), 0
        if not self.heads and not data.startswith(b"\x81"):
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self.rest = data
                return
        for _, begin, end in frames(data, at):
            self.heads.append(data[begin : min(end, begin + 600)])
            at = end
        self.rest = data[at:]
        if not self.at_s and self.said(b"batch"):
            self.at_s = time.monotonic()

    def said(self, kind: bytes) -> list[bytes]:
        """The heads of the messages of this kind."""
        return [head for head in self.heads if head.startswith(b'{"type":"%s"' % kind)]

    def since(self, epoch: str) -> str:
        """Its cursor."""
        wish = re.search(rb'"wish":"(.*?)"', self.said(b"subscribed")[0])[1].decode()
        return f"since={epoch}:{number(self.said(b'batch')[-1], b'rev')}:{wish}"


def number(head: bytes, key: bytes) -> int:
    """A number in the head of a message."""
    return int(re.search(b'"%s":(\d+)' % key, head)[1])


def all_served(port: int, queries: list[str]) -> list[Lean]:
    """So many clients at once; returns when each has its first batch, or after 30 s."""
    poll = select.epoll()
    clients = [Lean(port, query, poll) for query in queries]
    by_file = {client.sock.fileno(): client for client in clients}
    waiting, deadline = len(clients), time.monotonic() + 30
    while waiting and time.monotonic() < deadline:
        for file, _ in poll.poll(1):
            served = by_file[file].at_s
            by_file[file].read()
            waiting -= not served and by_file[file].at_s > 0
    return clients


async def storm(report: Report, binary: str, count: int) -> None:
    """All come back at once; nobody waits for much longer than the others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 500)), hard))
    async with await Gateway.start(binary, "synthetic:load?symbols=50&rate=200") as gateway:
        stayed = await Client.connect(gateway.url)
        await stayed.subscribe("*", sub="s", rate=5)
        left = await asyncio.to_thread(all_served, gateway.port, ["sub=s"] * count)
        for client in left:
            client.sock.close()
        rev = stayed.subs["s"].rev + AWAY_REVS
        await stayed.until(lambda: stayed.subs["s"].rev > rev, 10, "revisions")
        queries = [f"sub=s&{client.since(stayed.welcome['epoch'])}" for client in left]
        merged, begun = stayed.subs["s"].merged, time.monotonic()
        back = await asyncio.to_thread(all_served, gateway.port, queries)
        waits = sorted(client.at_s - begun for client in back)
        longest, median = waits[-1], statistics.median(waits)
        report.check(f"storm: {count} are back, the longest wait was {longest * 1000:.0f} ms, the median {median * 1000:.0f} ms",
                     waits[0] > 0 and longest <= 2.5 * median + 0.1, f"at most 2.5 medians and 100 ms: {2500 * median + 100:.0f} ms")
        report.check("storm: all go on from where they were", all(b'"recovered":"conflated"' in client.said(b"subscribed")[0] for client in back),
                     back[0].said(b"subscribed"))
        wrong = [client.heads for client in back if number(client.said(b"batch")[0], b"prev") != number(client.said(b"subscribed")[0], b"seq")]
        report.check("storm: the first batch follows the answer", not wrong, wrong[:1])
        report.equal("storm: who stayed got every frame", (stayed.subs["s"].merged, stayed.violations), (merged, []))
        for client in back:
            client.sock.close()


async def main(report: Report) -> None:
    """One after the other."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000, help="how many come back at once")
    options = parser.parse_args()
    for shards in (1, 2):
        await away(report, options.binary, shards)
    await cut_off(report, options.binary)
    await events(report, options.binary, None)
    await events(report, options.binary, LOG_EVENTS)
    ways = ["a command", "a command after a while", "the URL"]
    await asyncio.gather(*(alone(report, options.binary, shards, way) for shards in (1, 2) for way in ways))
    await refused(report, options.binary)
    await updates(report, options.binary)
    await capped(report, options.binary)
    await twins(report, options.binary)
    await behind(report, options.binary)
    await storm(report, options.binary, options.clients)


if __name__ == "__main__":
    run(main)
