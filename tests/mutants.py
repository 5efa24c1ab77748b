"""Breaks a copy of the gateway in one place after the other; simulated clients must notice each: mutants.py --target target

Owns the list of breaks (MUTANTS). A test that cannot fail proves nothing, so each stands for a kind of fault that
the contract forbids. All are built at once, each behind a question to the environment that only the copy asks: the
product knows nothing of them. A break whose text is no longer in the source is a failure too.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["world::every_client_holds_what_it_was_promised", "fairness::", "stage::each_row"]
SEEDS = 200
RUN_S = 120
# What the copy has besides: whether this is the break that is to be tried.
ASKS = """
/// Whether the gateway is to be broken so.
pub fn is_broken(so: &str) -> bool {
    static HOW: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    HOW.get_or_init(|| std::env::var("TICKGATE_MUTANT").unwrap_or_default()) == so
}
"""


class Mutant(NamedTuple):
    """`old` is an expression that stands once in the file, `new` another of its type."""

    fault: str
    file: str
    old: str
    new: str

    def put_into(self, text: str) -> str:
        """The source with this break beside what it breaks."""
        if (count := text.count(self.old)) != 1:
            raise LookupError(f"{self.fault}: {count} places in src/{self.file} say {self.old!r}, expected 1")
        # Of a match arm only what it does.
        head, arrow, old = self.old.rpartition(" => ")
        new, comma = self.new.removeprefix(head + arrow), "," * old.endswith(",")
        choice = f'if crate::base::is_broken("{self.fault}") {{ {new} }} else {{ {old.removesuffix(",")} }}'
        return text.replace(self.old, f"{head}{arrow}({choice}){comma}")


MUTANTS = [
    Mutant("a field changes and its revision does not", "flow/conflation/images.rs",
           "*cell = Cell { rev, value }", "*cell = Cell { rev: cell.rev.max(1), value }"),
    Mutant("a field becomes nothing and its revision stays", "flow/conflation/images.rs", "cell.rev = rev", "()"),
    Mutant("a change of state is not sent", "flow/frame/encoder.rs",
           "Shape { since: held, fields, style: stream.wish.style }",
           "Shape { since: held, fields: if held > 0 { fields & !1 } else { fields }, style: stream.wish.style }"),
    Mutant("what one frame has no room for is left out", "flow/frame/encoder.rs",
           "self.push_images(stream, topics, stream.rev, batch) < topics.len()",
           "self.push_images(stream, topics, stream.rev, batch) > topics.len()"),
    Mutant("an event is left out without a gap", "flow/frame/encoder/events.rs",
           "push_gap(&mut batch.gaps, topic.channel(), name, from, to, reason.label())", "()"),
    Mutant("events that fell out of the log are forgotten", "flow/conflation/log.rs",
           "(topic.gone_q, topic.gone_rev) = (event.q, event.rev)", "()"),
    Mutant("a number of one of several frames is skipped", "flow/frame/encoder.rs",
           "(stream.rev, stream.events_rev, stream.seq) = (position.target, self.replica.rev, seq)",
           "(stream.rev, stream.events_rev, stream.seq) = (position.target, self.replica.rev, seq + 1)"),
    Mutant("a number of a frame is skipped", "flow/frame/encoder.rs", "stream.seq += 1", "stream.seq += 2"),
    Mutant("`prev` is not what was given before", "flow/frame/encoder.rs",
           "(stream.number, position.seq, now.wall.us())", "(stream.number, Some(stream.seq), now.wall.us())"),
    Mutant("a debt is forgotten although the frame was refused", "gateway/shard/deliver.rs",
           "Ok(Offered::Refused) => self.owe(member, Debt::at(before))", "Ok(Offered::Refused) => member.debt = None"),
    Mutant("a debt is cleared before it is paid", "gateway/shard/deliver.rs",
           "Ok(Offered::Refused) => return self.encoder.recount(-1),", "Ok(Offered::Refused) => {}"),
    Mutant("a part promises what is still to come", "flow/frame/encoder.rs",
           "if done { debt.target } else { debt.held }", "debt.target"),
    Mutant("a symbol that joins a group has no row", "flow/dispatch/streams.rs", "stream.joined.push((topic, rev))", "()"),
    Mutant("a row that the filter takes out stays", "flow/frame/encoder.rs", "Owed::Out => push_out(out, name)", "Owed::Out => {}"),
    Mutant("a book that changed is not sent", "flow/frame/encoder.rs",
           "encode_book(out, &replica.images, name, book, wish.depth, wish.style)",
           "if held == 0 { encode_book(out, &replica.images, name, book, wish.depth, wish.style) }"),
    Mutant("a payment begins anew with each frame", "flow/frame/encoder.rs",
           "debt.cursor as usize > walk.topics.len()", "debt.under_way"),
    Mutant("a payment goes on while events come", "flow/frame/encoder.rs",
           "if stream.is_ahead() { stream.events_rev } else { debt.target }", "stream.events_rev"),
    Mutant("the first subscription is always paid first", "gateway/shard/deliver.rs", "(paid + after) % count", "after - 1"),
    Mutant("rows of a frame that some could not take are timed as if they had", "flow/frame/encoder.rs",
           "self.rows.count_given(times)", "()"),
    Mutant("a heartbeat names more than was given", "gateway/shard/keepalive.rs",
           "(stream.number, seq, debt.held)", "(stream.number, seq, stream.rev)"),
]


def sources() -> dict[str, bytes]:
    """The files of the copy, by their names: as they are, but for the breaks and what these ask."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    files = {name: (ROOT / name).read_bytes() for name in listed.split("\0") if name and (ROOT / name).is_file()}
    files["src/base.rs"] += ASKS.encode()
    # Of another version it is another package, so that the same target can hold both and share all others.
    files["Cargo.toml"] = re.sub(rb'(?m)^version = "[^"]*', rb"\g<0>-broken", files["Cargo.toml"], count=1)
    for mutant in MUTANTS:
        name = f"src/{mutant.file}"
        files[name] = mutant.put_into(files[name].decode()).encode()
    return files


def build(tree: Path, target: Path) -> Path:
    """Builds the copy's tests. What has not changed keeps its time, so that cargo builds little."""
    files = sources()
    for old in tree.rglob("*"):
        if old.is_file() and str(old.relative_to(tree)) not in files:
            old.unlink()
    for name, text in files.items():
        path = tree / name
        if not path.is_file() or path.read_bytes() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
    done = subprocess.run(["cargo", "test", "--offline", "--target-dir", target, "--test", "tests", "--no-run"], cwd=tree,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    program = re.search(r"Executable .*\((.*)\)", done.stdout)
    if done.returncode or not program:
        raise RuntimeError(f"the broken copy does not build:\n{done.stdout}")
    return Path(program[1])


def world(program: Path, tree: Path, fault: str) -> tuple[bool, str]:
    """Whether the tests go well with this fault, and what they say."""
    environment = {**os.environ, "TICKGATE_MUTANT": fault, "TICKGATE_SEEDS": str(SEEDS), "RUST_BACKTRACE": "0"}
    environment.pop("TICKGATE_SEED", None)
    done = subprocess.run([program, *TESTS], cwd=tree, env=environment, timeout=RUN_S,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if "test result:" not in done.stdout or "running 0 tests" in done.stdout:
        raise RuntimeError(f"no test was run:\n{done.stdout[-2000:]}")
    return done.returncode == 0, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Tries whether the simulated world notices a broken gateway.")
    parser.add_argument("--target", type=Path, default=ROOT / "target", help="where cargo builds")
    target = parser.parse_args().target.resolve()
    tree = target / "mutants"
    passed = failed = 0
    try:
        begun = time.monotonic()
        program = build(tree, target)
        print(f"built in {time.monotonic() - begun:.0f} s", flush=True)
        for fault in ["", *(mutant.fault for mutant in MUTANTS)]:
            begun = time.monotonic()
            good, said = world(program, tree, fault)
            # The client must notice: a gateway that breaks down by itself shows nothing about the test.
            found = re.search(r"panicked at (tests/(?:world|fairness|stage)\S+):\n(.*)", said)
            right = good if fault == "" else not good and found is not None
            passed, failed = passed + right, failed + (not right)
            name = fault or "nothing is broken, and nothing is noticed"
            print(f"{'ok' if right else 'FAILED'} {name} ({time.monotonic() - begun:.1f} s)", flush=True)
            if fault and found:
                print(f"   {found[1]} {found[2][:120]}")
            if not right:
                print(said[-2000:])
    except (LookupError, RuntimeError, subprocess.SubprocessError) as error:
        failed += 1
        print(f"FAILED {error}")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
