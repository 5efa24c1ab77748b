"""Any node is as good as any other: gateways that take their updates from another one, and clients that go between them.
And a gateway that takes its updates from several others is one of its own.

    python3 edge_test.py --binary PATH [--seed N]
"""

import asyncio
import contextlib
import json
import random
import signal
import time
from pathlib import Path

from contract import Client, Stream
from harness import Gateway, Report, arguments, http, run, scratch
from restart_test import call

FEED = "synthetic:vn30?rate=300"
TOPICS = ["@VN30", "trade:@VN30", "status:*", "book:VCB", "book:FPT"]
SILENCE_MS = 1000
HOPS = 40
CONFIG = "[limits]\nheartbeat_ms = 500\ndrain_ms = 1000\nclose_timeout_ms = 500\n"
EXIT_USAGE, EXIT_UNAVAILABLE = 64, 69


def upstream(gateway: Gateway, more: str = "") -> str:
    """The feed spec of a gateway's edge."""
    return f"tickgate:ws://127.0.0.1:{gateway.port}?silence_ms={SILENCE_MS}{more}"


async def come_back(client: Client, held: Stream) -> dict:
    """Goes on from a cursor, as soon as the node has come so far."""
    deadline = time.monotonic() + 10
    while True:
        answer = await client.resume(held)
        if answer.get("code") != "node_behind" or time.monotonic() > deadline:
            return answer
        await asyncio.sleep(answer["retry_after_ms"] / 1000)


async def hops(report: Report, nodes: list[Gateway], chance: random.Random) -> None:
    """One cursor, many nodes: nothing begins anew, no event is lost or comes twice."""
    client = await Client.connect(nodes[0].url)
    await client.subscribe(*TOPICS, sub="tape", mode="every", digest=4)
    held, behind, violations, verdicts, digests, lost = client.subs["tape"], 0, [], set(), 0, {}
    epochs = {client.welcome["epoch"]}
    for _ in range(HOPS):
        rows = held.rows + chance.randrange(300)
        await client.until(lambda rows=rows: held.rows >= rows, 10, "rows")  # noqa: B023
        await client.vanish()
        violations += client.violations
        digests += held.digests
        # Changes of an image that nobody watched at a node are not kept there: it comes whole instead.
        lost |= {topic: number for topic, number in held.lost.items() if ":" in topic}
        client = await Client.connect(chance.choice(nodes).url)
        epochs.add(client.welcome["epoch"])
        answer = await come_back(client, held)
        behind += sum(error["code"] == "node_behind" for error in client.errors)
        verdicts.add(answer.get("recovered", str(answer)))
        held = client.subs["tape"]
    violations += client.violations
    await client.close()
    report.equal(f"hops: {len(nodes)} nodes are in one epoch", len(epochs), 1)
    report.check(f"hops: {HOPS} of them, and nothing begins anew ({behind} times a node was behind)", verdicts <= {"exact", "conflated"},
                 verdicts)
    report.clean("hops: the contract is kept", violations)
    report.check(f"hops: {digests} digests agree", digests > HOPS, digests)
    report.equal("hops: no trade is lost on the way", lost, {})


async def same(report: Report, nodes: list[Gateway], name: str) -> None:
    """At one revision all nodes have one digest."""
    clients = [await Client.connect(node.url) for node in nodes]
    told: list[dict] = [{} for _ in nodes]
    for at, client in enumerate(clients):
        client.on_batch = lambda _, frame, at=at: told[at].update({frame["rev"]: frame["digest"]} if "digest" in frame else {})
        await client.subscribe("*", "book:VCB", sub="all", digest=1)
    common: set[int] = set()

    def enough() -> bool:
        common.update(set.intersection(*[set(digests) for digests in told]))
        return len(common) >= 20

    for client in clients:
        with contextlib.suppress(TimeoutError):
            await client.until(enough, 20, "common revisions")
    differ = [rev for rev in common if len({digests[rev] for digests in told}) > 1]
    report.check(f"{name}: {len(common)} digests at common revisions are the same on {len(nodes)} nodes", len(common) >= 20 and not differ,
                 (len(common), differ, [len(digests) for digests in told]))
    report.clean(f"{name}: the contract is kept", [v for client in clients for v in client.violations])
    for client in clients:
        await client.close()


async def directory(report: Report, nodes: list[Gateway]) -> None:
    """Names, groups and price steps are the origin's."""
    for door in ("/v1/groups", "/v1/symbols"):
        answers = []
        for node in nodes:
            _, _, body = await http(node.port, door)
            listed = json.loads(body)
            answers.append(sorted((name["symbol"], name["channel"], name["simulated"], str(name.get("steps"))) for name in listed["symbols"])
                           if door == "/v1/symbols" else sorted((group["group"], sorted(group["symbols"])) for group in listed["groups"]))
        report.check(f"directory: {door} says the same everywhere", all(answer == answers[0] and answer for answer in answers), answers)
    client = await Client.connect(nodes[-1].url)
    path = client.welcome["path"]
    report.check("directory: the welcome names the way", len(path) == len(nodes) == len(set(path)) and path[0] == client.welcome["epoch"], path)
    await client.close()


async def carried(report: Report, origin: Gateway, binary: str) -> None:
    """What an edge does not take it refuses, and what it takes it says."""
    async with await Gateway.start(binary, upstream(origin, "&symbols=VN30,V*&books=3&bars=1s"), config=CONFIG) as edge:
        client = await Client.connect(edge.url)
        refused = [await client.subscribe("bar_1m:VCB"), await client.subscribe("book:VCB", depth=4), await client.subscribe("FPT")]
        codes = [answer["rejected"][0]["code"] for answer in refused]
        report.equal("carried: refusals", codes, ["not_carried", "not_carried", "unknown_topic"])
        answer = await client.subscribe("V*", "book:V*", "bar_1s:V*", "trade:V*", depth=3, mode="every", sub="all")
        report.check("carried: the rest is served", answer["type"] == "subscribed" and not answer["rejected"], answer)
        finals = set()
        client.on_row = lambda _, topic, row: finals.add(topic) if row.get("final") else None
        await client.until(lambda: len(finals) > 3, 15, "final bars")
        report.clean("carried: the contract is kept", client.violations)
        _, _, body = await http(edge.port, "/v1/snapshot?symbols=book:VCB&depth=4")
        report.equal("carried: a one-off answer refuses too", json.loads(body)["rejected"][0]["code"], "not_carried")
        await client.close()


async def seen(client: Client, state: str, since_s: float, limit_s: float) -> float:
    """How long after a moment the link was said to be so; it was not before."""
    await client.until(lambda: client.link == state, limit_s + 5, f"link {state}")
    return client.links[-1][1] - since_s


async def silent(report: Report, origin: Gateway, edges: list[Gateway]) -> None:
    """An origin that says nothing is seen at every edge in time, and so is its return."""
    clients = [await Client.connect(edge.url) for edge in edges]
    for client in clients:
        await client.subscribe("@VN30", rate=10, sub="board")
    begun = time.monotonic()
    origin.process.send_signal(signal.SIGSTOP)
    took = [await seen(client, "stale", begun, SILENCE_MS / 1000) for client in clients]
    report.check(f"silent: stale after {[round(s, 2) for s in took]} s", all(0.5 <= s <= SILENCE_MS / 1000 + 0.5 for s in took), took)
    begun = time.monotonic()
    origin.process.send_signal(signal.SIGCONT)
    took = [await seen(client, "live", begun, 1) for client in clients]
    report.check(f"silent: live again after {[round(s, 2) for s in took]} s", all(s <= 3 for s in took), took)
    for client in clients:
        report.clean("silent: the contract is kept", client.violations)
        await client.close()


async def killed(report: Report, binary: str, origin: Gateway, edges: list[Gateway]) -> Gateway:
    """kill -9 of the origin: stale in time; another one in its place: a new epoch in-band, and no number of the old one."""
    clients = [await Client.connect(edge.url) for edge in edges]
    for client in clients:
        await client.subscribe("@VN30", "book:VCB", "trade:@VN30", mode="every", sub="board", digest=1)
        await client.subscribe("VCB", rate=5, fields=["last"], sub="rated")
    epoch, cursor = clients[0].welcome["epoch"], clients[0].subs["board"].since
    begun = time.monotonic()
    await origin.stop(signal.SIGKILL)
    took = [await seen(client, "stale", begun, SILENCE_MS / 1000) for client in clients]
    report.check(f"killed: stale after {[round(s, 2) for s in took]} s, {SILENCE_MS} ms are configured",
                 all(s <= SILENCE_MS / 1000 + 0.5 for s in took), took)
    late = await Client.connect(edges[-1].url)
    await late.until(lambda: late.link == "stale", 5, "the link")
    _, _, body = await http(edges[0].port, "/v1/snapshot?symbols=VCB")
    report.equal("killed: a newcomer and a one-off answer are told too", (late.link, json.loads(body).get("link")), ("stale", "stale"))
    metrics = await edges[0].metrics()
    name = f'feed="tickgate:127.0.0.1:{origin.port}"'
    report.equal("killed: the metrics say it", metrics[f'tickgate_feed_state{{{name},state="stale"}}'], 1)
    report.check("killed: and count it", metrics['tickgate_losses_total{reason="upstream_silent"}'] >= 1, metrics)
    again = await Gateway.start(binary, FEED, config=CONFIG, listen=f"127.0.0.1:{origin.port}")
    began = time.monotonic()
    for client in clients:
        await client.until(lambda c=client: all(s.epoch != epoch and s.whole for s in c.subs.values()) and c.link == "live", 20, "another epoch")
    took_s = time.monotonic() - began
    report.check(f"killed: another epoch in-band after {took_s:.2f} s, nobody is disconnected", all(not c.closed for c in clients))
    fresh = await Client.connect(again.url)
    report.equal("killed: it is the origin's", {s.epoch for c in clients for s in c.subs.values()}, {fresh.welcome["epoch"]})
    digests = [client.subs["board"].digests for client in clients]
    for client, before in zip(clients, digests, strict=True):
        await client.until(lambda c=client, n=before: c.subs["board"].digests > n + 5, 10, "digests")
    # A client from before that subscribes now is told the epoch with its picture.
    await late.subscribe("VCB", sub="after")
    report.equal("killed: so is that of a later subscription", late.subs["after"].epoch, fresh.welcome["epoch"])
    answer = await late.subscribe("@VN30", "book:VCB", "trade:@VN30", mode="every", sub="old", digest=1, since=cursor)
    report.equal("killed: a cursor of the old epoch begins anew", answer["recovered"], "reset")
    for client in [*clients, late]:
        report.clean("killed: the contract is kept", client.violations)
        await client.close()
    await fresh.close()
    return again


def recording(*trades: tuple[int, str, int, str]) -> Path:
    """Trades: when in seconds, of which symbol, their number, and at what price."""
    path = scratch() / "short.ndjson"
    trade = '{"stream":"%s@trade","data":{"e":"trade","E":%d,"s":"%s","t":%d,"p":"%s","q":"2","T":%d,"m":true}}'
    with path.open("w") as out:
        for at, symbol, number, price in trades:
            print(at * 10**9, trade % (symbol.lower(), at * 1000, symbol, number, price, at * 1000), file=out)
    return path


def still(*trades: tuple[str, int, str]) -> str:
    """The feed of a market in which all of this has just happened, and nothing more does for a minute."""
    begun = 1_700_000_000
    return f"capture:{recording(*[(begun, *trade) for trade in trades], (begun + 60, 'LATE', 1, '1'))}"


async def images(gateway: Gateway) -> dict[str, dict]:
    """Every image and one book, without the numbers that are the gateway's own."""
    _, _, body = await http(gateway.port, "/v1/snapshot?symbols=*,book:VCB&depth=5&decimals=string")
    rows = json.loads(body)["rows"]
    # What changes below the levels that are told changes the time of the book at its source alone.
    own = {"rev", "q"}
    return {row.get("channel", "") + row["symbol"]: {key: row[key] for key in row.keys() - (own | {"time_us"} if "bids" in row else own)}
            for row in rows}


async def agrees(gateway: Gateway, source: Gateway, names: set[str]) -> set[str]:
    """Those of the names whose images were not seen to be the same at both: each is compared while it stands still."""
    deadline, left = time.monotonic() + 10, set(names)
    while left and time.monotonic() < deadline:
        before, here, after = await images(source), await images(gateway), await images(source)
        left -= {name for name in left if name in here and before[name] == here[name] == after[name]}
    return left


async def beside(report: Report, binary: str) -> None:
    """Two upstreams that know nothing of each other: one gateway with all that both have, and an epoch of its own."""
    first = await Gateway.start(binary, FEED, config=CONFIG)
    second = await Gateway.start(binary, still(("BTCUSDT", 7, "61.50"), ("BTCUSDT", 8, "61.500"), ("ETHUSDT", 3, "2.10"), ("VCB", 1, "1")),
                                 config=CONFIG)
    both = await Gateway.start(binary, upstream(first, "&books=5&bars=1s"), upstream(second), config=CONFIG)
    client = await Client.connect(both.url)
    others = [await Client.connect(gateway.url) for gateway in (first, second)]
    report.check("beside: the epoch is its own", client.welcome["epoch"] not in [other.welcome["epoch"] for other in others]
                 and client.welcome["path"] == [client.welcome["epoch"]], client.welcome)
    await client.subscribe("*", "trade:*", "status:*", "book:VCB", "bar_1s:VCB", mode="every", depth=5, digest=4, sub="all")
    table, of_first = client.table("all"), {name for name in await images(first)}
    left = await agrees(both, first, of_first) | await agrees(both, second, {"BTCUSDT", "ETHUSDT", "LATE"} & set(await images(second)))
    report.check(f"beside: {len(of_first)} images of one upstream and those of the other are the same here", not left, left)
    groups = [[(group["group"], sorted(group["symbols"])) for group in json.loads((await http(gateway.port, "/v1/groups"))[2])["groups"]]
              for gateway in (first, both)]
    report.check("beside: so are groups", groups[0] == groups[1] and groups[0], groups)
    refused = (await both.metrics())['tickgate_losses_total{reason="symbol_refused"}']
    report.equal("beside: a symbol that the other upstream has is refused and counted", refused, 1)

    begun = time.monotonic()
    await second.stop(signal.SIGKILL)
    await client.until(lambda: table["BTCUSDT"]["state"] == table["ETHUSDT"]["state"] == "stale", 10, "stale")
    took = time.monotonic() - begun
    report.check(f"beside: a killed upstream's symbols are stale after {took:.2f} s, {SILENCE_MS} ms are configured", took <= SILENCE_MS / 1000 + 0.5)
    report.equal("beside: the other's are live, and so is the gateway", (table["VCB"]["state"], client.link), ("live", "live"))
    again = await Gateway.start(binary, still(("BTCUSDT", 9, "62.5")), config=CONFIG, listen=f"127.0.0.1:{second.port}")
    await client.until(lambda: table["BTCUSDT"]["state"] == "live" and table["ETHUSDT"]["state"] == "pending", 15, "another run")
    report.equal("beside: another run of it is no other epoch here", (client.closed, client.subs["all"].epoch), (None, client.welcome["epoch"]))
    report.check("beside: its images are the new ones, and nothing of the old run stands", not await agrees(both, again, {"BTCUSDT"})
                 and table["ETHUSDT"]["last"] is None, table["ETHUSDT"])
    report.check("beside: what was lost between the runs is announced", client.subs["all"].lost["trade:ETHUSDT"] >= 1, client.subs["all"].lost)
    report.equal("beside: nothing of the other upstream is lost", {t for t in client.subs["all"].lost if "USDT" not in t}, set())
    report.clean("beside: the contract is kept", client.violations)
    for each in (client, *others):
        await each.close()
    for gateway in (both, again, first):
        report.check("beside: no panic, and an end in good order",
                     await gateway.stop() == 0 and "panicked" not in gateway.errors.read_text(), gateway.errors.read_text()[-500:])


async def ended(report: Report, binary: str) -> None:
    """A market that stands still: who comes from the origin with a revision that changed nothing is not sent away for good."""
    trades = [(at, "BTCUSDT", at, "61.50") for at in range(1_700_000_000, 1_700_000_050)]
    async with await Gateway.start(binary, f"capture:{recording(*trades)}?speed=max", config=CONFIG) as origin, \
            await Gateway.start(binary, upstream(origin), config=CONFIG) as edge:
        for _ in range(3):
            client = await Client.connect(origin.url)
            # Each of these is a revision of its own at the origin.
            await client.subscribe("bar_1h:*", "bar_1m:*", sub="bars")
            await client.subscribe("*", sub="one")
            held = client.subs["one"]
            await client.vanish()
            begun = time.monotonic()
            client = await Client.connect(edge.url)
            answer = await come_back(client, held)
            took = time.monotonic() - begun
            report.check(f"quiet: a cursor from the origin is taken after {took:.2f} s", answer.get("recovered") in ("exact", "conflated"), answer)
            report.clean("quiet: the contract is kept", client.violations)
            await client.close()


async def own_group(report: Report, binary: str) -> None:
    """A group that the operator of an edge has set is not the origin's to change, though it begins anew."""
    members = ["FPT", "VCB"]
    async with await Gateway.start(binary, FEED, config=CONFIG) as origin, \
            await Gateway.start(binary, upstream(origin), config=f"{CONFIG}[groups]\nVN30 = {members}\n") as edge:
        client = await Client.connect(edge.url)
        await client.subscribe("@VN30", sub="own")
        epoch = client.welcome["epoch"]
        await origin.stop(signal.SIGKILL)
        async with await Gateway.start(binary, FEED, config=CONFIG, listen=f"127.0.0.1:{origin.port}"):
            held = client.subs["own"]
            await client.until(lambda: held.epoch != epoch and held.whole, 20, "another epoch")
            _, _, body = await http(edge.port, "/v1/groups")
            report.equal("own group: its members", json.loads(body)["groups"], [{"group": "VN30", "symbols": members}])
            report.equal("own group: its rows", sorted(client.table("own")), members)
            report.clean("own group: the contract is kept", client.violations)
        await client.close()


async def wrong(report: Report, binary: str, origin: Gateway) -> None:
    """One clear line and the right exit code."""
    free = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    async with await Gateway.start(binary, FEED, config=CONFIG + "topics_per_session_max = 40\n") as small:
        for name, feeds, code, words in [
            ("nobody there", ["tickgate:ws://127.0.0.1:1"], EXIT_UNAVAILABLE, ["ws://127.0.0.1:1", "refused"]),
            ("no address", ["tickgate:"], EXIT_USAGE, ["address of another gateway"]),
            ("not ws", ["tickgate:http://h"], EXIT_USAGE, ["ws://"]),
            ("an unknown option", [upstream(origin, "&book=3")], EXIT_USAGE, ["did you mean \"books\"?"]),
            ("nobody there, beside another feed", [FEED, "tickgate:ws://127.0.0.1:1"], EXIT_UNAVAILABLE, ["ws://127.0.0.1:1", "refused"]),
            ("no gateway", [f"tickgate:ws://127.0.0.1:{origin.admin_port}"], EXIT_UNAVAILABLE, ["/v1/symbols", "404"]),
            ("too many topics for it", [upstream(small)], EXIT_UNAVAILABLE, ["topic_limit"]),
            ("no such group there", [upstream(origin, "&symbols=@NONE")], EXIT_UNAVAILABLE, ["unknown_topic"]),
        ]:
            command = [*free, *[part for feed in feeds for part in ("--feed", feed)]]
            got, out, errors = await call(binary, *command, timeout=30)
            lines = [line for line in errors.splitlines() if line.startswith("tickgate: ")]
            report.check(f"wrong: {name}: exit code {code} and one clear line",
                         got == code and len(lines) == 1 and all(word in lines[0] for word in words) and not out, (got, errors))


async def main(report: Report) -> None:
    """All of it, one after the other."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    binary, chance = options.binary, random.Random(options.seed)
    print(f"seed {options.seed}")
    origin = await Gateway.start(binary, FEED, config=CONFIG)
    first = await Gateway.start(binary, upstream(origin), config=CONFIG)
    second = await Gateway.start(binary, upstream(first), config=CONFIG)
    nodes = [origin, first, second]
    try:
        await directory(report, nodes)
        await hops(report, nodes, chance)
        await same(report, nodes, "same")
        await carried(report, origin, binary)
        await wrong(report, binary, origin)
        await silent(report, origin, [first, second])
        origin = await killed(report, binary, origin, [first, second])
        nodes[0] = origin
        await same(report, nodes, "same after the kill")
        await hops(report, nodes, chance)
        for edge in (first, second):
            report.check("no panic", "panicked" not in edge.errors.read_text(), edge.errors.read_text()[-500:])
    finally:
        for node in reversed([origin, first, second]):
            report.equal("it ends in good order", await node.stop(), 0)
    await ended(report, binary)
    await own_group(report, binary)
    await beside(report, binary)


if __name__ == "__main__":
    run(main)
