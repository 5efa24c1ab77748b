"""Any node is as good as any other: gateways that take their updates from another one, and clients that go between them.

    python3 edge_test.py --binary PATH [--seed N]
"""

import asyncio
import contextlib
import json
import random
import signal
import tempfile
import time
from pathlib import Path

from contract import Client, Stream
from harness import Gateway, Report, arguments, http, run
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


async def ended(report: Report, binary: str) -> None:
    """A market that stands still: who comes from the origin with a revision that changed nothing is not sent away for good."""
    recording = Path(tempfile.mkdtemp(prefix="tickgate-test-")) / "short.ndjson"
    trade = '{"stream":"btcusdt@trade","data":{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"61.50","q":"2","T":%d,"m":true}}'
    lines = [f"{at * 10**9} {trade % (at * 1000, at, at * 1000)}" for at in range(1_700_000_000, 1_700_000_050)]
    recording.write_text("\n".join(lines) + "\n")
    async with await Gateway.start(binary, f"capture:{recording}?speed=max", config=CONFIG) as origin, \
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


async def wrong(report: Report, binary: str, origin: Gateway) -> None:
    """One clear line and the right exit code."""
    free = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    async with await Gateway.start(binary, FEED, config=CONFIG + "topics_per_session_max = 40\n") as small:
        for name, feeds, code, words in [
            ("nobody there", ["tickgate:ws://127.0.0.1:1"], EXIT_UNAVAILABLE, ["ws://127.0.0.1:1", "refused"]),
            ("no address", ["tickgate:"], EXIT_USAGE, ["address of another gateway"]),
            ("not ws", ["tickgate:http://h"], EXIT_USAGE, ["ws://"]),
            ("an unknown option", [upstream(origin, "&book=3")], EXIT_USAGE, ["did you mean \"books\"?"]),
            ("two feeds", [upstream(origin), FEED], EXIT_USAGE, ["no other feed"]),
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


if __name__ == "__main__":
    run(main)
