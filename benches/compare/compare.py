"""Measures what stands between a client and an MCP server, and writes one file of results a subset.

Started by compare.sh with names of subsets. The targets take turns in many short rounds, so that
whatever else the machine does strikes all of them; differences and ratios are taken within each
round by report.py. Before and after, every target must give the answer that the server gives, every
answer of the warm-up is looked at, and no request may fail: a refusal would be fast.
"""

import contextlib
import json
import os
import pathlib
import statistics
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import channels
import load
import peers
from load import Json, Work
from targets import Target, bartizan, envoy, nginx_proxy, rules, session_server, upstream

ROUNDS = int(os.environ.get("ROUNDS", "9"))
SECONDS = float(os.environ.get("SECONDS_EACH", "1"))
RESULTS = pathlib.Path(os.environ["RESULTS"])
ARGUMENTS_BYTES = 400  # with the rest of the message, about 600
RULE_COUNTS = (1, 10, 100, 500)
# A target that answers fewer calls a second gets longer rounds, by this factor.
SLOW_RATE = 50
SLOW_TIMES = 6


@dataclass(frozen=True)
class Case:
    """What is measured of each target: some work at a number of connections."""

    name: str
    connections: int
    works: dict[str, Work]  # by target


@dataclass
class Results:
    """What one subset found."""

    subset: str
    what: str
    machine: Json = field(default_factory=load.machine)
    series: list[Json] = field(default_factory=list)
    memory: list[Json] = field(default_factory=list)
    not_measured: list[Json] = field(default_factory=list)

    def add(self, target: str, case: str, found: Json) -> None:
        for one in self.series:
            if (one["target"], one["case"]) == (target, case):
                one["rounds"].append(found)
                return
        self.series.append({"target": target, "case": case, "rounds": [found]})

    def leave_out(self, target: str, error: Exception) -> None:
        """Drops what was measured of a target, for a reason."""
        self.series = [one for one in self.series if one["target"] != target]
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        self.not_measured.append({"target": target, "reason": reason})

    def write(self) -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        run = self.machine | {"rounds": ROUNDS, "seconds": SECONDS}
        whole = {
            "subset": self.subset, "what": self.what, "run": run, "series": self.series,
            "memory": self.memory, "not_measured": self.not_measured,
        }
        (RESULTS / f"{self.subset}.json").write_text(json.dumps(whole, indent=1) + "\n")


def take_turns(results: Results, targets: list[Target], cases: list[Case], must: Collection[str] | None = None) -> None:
    """Every case of every target, in rounds. A target that is not in `must` may fail, and is left out then."""
    lasts: dict[tuple[str, str], float] = {}
    failed: set[str] = set()

    def each(what: Callable[[Target, Case], None], first: int = 0) -> None:
        """Does something for each case and target, beginning with another target each time."""
        for case in cases:
            for target in targets[first:] + targets[:first]:
                if target.name in failed:
                    continue
                try:
                    what(target, case)
                except Exception as error:  # whatever keeps a target from being measured is the finding
                    if must is None or target.name in must:
                        raise
                    failed.add(target.name)
                    results.leave_out(target.name, error)

    def warm_up(target: Target, case: Case) -> None:
        """Looks at every answer for a while, and finds out how long a round must last."""
        probe(target, case)
        work = case.works[target.name]
        try:
            slow = load.wrk(target, work, case.connections, 1, check=True)["rate"] < SLOW_RATE
        except load.NoneAnswered:
            load.wrk(target, work, case.connections, SLOW_TIMES, check=True)
            slow = True
        lasts[target.name, case.name] = SECONDS * (SLOW_TIMES if slow else 1)

    def measure(target: Target, case: Case) -> None:
        seconds = lasts[target.name, case.name]
        results.add(target.name, case.name, load.wrk(target, case.works[target.name], case.connections, seconds))

    def probe(target: Target, case: Case) -> None:
        load.probe(target, case.works[target.name])

    each(warm_up)
    for number in range(ROUNDS):
        each(measure, number % len(targets))
    for target in targets:
        if target.name not in failed:
            results.memory.append({"target": target.name, "rss_kib": target.rss_kib()})
    each(probe)
    sizes_agree(results)


def sizes_agree(results: Results) -> None:
    """Answers of another size than the usual are no answers."""
    for one in results.series:
        sizes = [found["bytes"] / found["requests"] for found in one["rounds"]]
        if max(sizes) > 1.1 * min(sizes):
            raise RuntimeError(f"{one['target']}, {one['case']}: answers of {min(sizes):.0f} to {max(sizes):.0f} bytes")


def same(work: Work, targets: list[Target]) -> dict[str, Work]:
    return {target.name: work for target in targets}


def started(stack: contextlib.ExitStack, targets: list[Target]) -> list[Target]:
    for target in targets:
        stack.callback(target.stop)
        target.start()
    return targets


def proxies() -> Results:
    results = Results("proxies", "A `tools/call` of 600 B whose arguments never repeat")
    with contextlib.ExitStack() as stack:
        server = upstream()
        targets = started(stack, [server, nginx_proxy(server.port), envoy(server.port), bartizan(server.port)])
        works = same(Work(load.call(ARGUMENTS_BYTES)), targets)
        counts = (1, 16, 256)
        take_turns(results, targets, [Case(plural(count), count, works) for count in counts])
    return results


def plural(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


def sizes() -> Results:
    results = Results("sizes", "A `tools/call` by the size of its arguments, and of its answer")
    with contextlib.ExitStack() as stack:
        server = upstream()
        targets = started(stack, [server, nginx_proxy(server.port), envoy(server.port), bartizan(server.port)])
        cases = []
        for name, size in (("200 B", 200), ("1 KiB", 1 << 10), ("64 KiB", 64 << 10)):
            works = same(Work(load.call(size)), targets)
            cases += [Case(f"{name} arguments, {plural(count)}", count, works) for count in (1, 16)]
        works = same(Work(load.call(ARGUMENTS_BYTES), path="/large"), targets)
        cases += [Case(f"4 MB answer, {plural(count)}", count, works) for count in (1, 4)]
        take_turns(results, targets, cases)
    return results


def many_rules() -> Results:
    results = Results("rules", "A `tools/call` of 600 B by the number of rules that name a tool and read an argument")
    with contextlib.ExitStack() as stack:
        server = upstream()
        with_rules = [
            bartizan(server.port, name=f"{count} rule{'s' if count > 1 else ''}", policy=rules(count))
            for count in RULE_COUNTS
        ]
        targets = started(stack, [server, *with_rules])
        works = same(Work(load.call(ARGUMENTS_BYTES)), targets)
        take_turns(results, targets, [Case(plural(count), count, works) for count in (1, 16)])
    return results


def streams() -> Results:
    results = Results("streams", "Events of 1 KiB in a long stream, one after the other and in a burst")
    with contextlib.ExitStack() as stack:
        server, listener = upstream(), channels.listener()
        events = listener.getsockname()[1]
        stack.callback(listener.close)
        proxied = [nginx_proxy(server.port, events), envoy(server.port, events), bartizan(server.port, events)]
        started(stack, [server, *proxied])
        ways = [channels.EventWay.opened("direct", events, listener)]
        ways += [channels.EventWay.opened(target.name, target.port, listener) for target in proxied]
        for number in range(ROUNDS + 1):
            singles = channels.in_turn([way.one for way in ways], SECONDS)
            for way, found in zip(ways, singles, strict=True):
                burst = way.burst()
                if number:  # the first warms up
                    results.add(way.name, "one event", found)
                    results.add(way.name, "burst of events", burst)
        for target in proxied:
            results.memory.append({"target": target.name, "rss_kib": target.rss_kib()})
        for way in ways:
            way.close()
    return results


def stdio() -> Results:
    results = Results("stdio", "A `tools/call` of 600 B over standard input and output, one after the other and 16 at once")
    template = load.call(ARGUMENTS_BYTES, meta=None)
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(channels.StdioWay.started(name)) for name in ("direct", "bartizan")]
        for number in range(ROUNDS + 1):
            singles = channels.in_turn([way.caller(template) for way in ways], SECONDS)
            for way, found in zip(ways, singles, strict=True):
                many = way.window(template, SECONDS)
                if number:
                    results.add(way.name, "one call", found)
                    results.add(way.name, "16 calls at once", many)
        for way in ways[1:]:
            results.memory.append({"target": way.name, "rss_kib": way.rss_kib()})
    return results


def sessions() -> Results:
    results = Results("peers", "A `tools/call` of 600 B in one session of MCP 2025-06-18, to a small server in Python")
    with contextlib.ExitStack() as stack:
        server = session_server()
        started(stack, [server])
        targets, works = [server], {}
        for name, make in peers.PEERS.items():
            try:
                target = make(server.port)
                stack.callback(target.stop)
                target.start()
                if name in peers.SETUP:
                    peers.SETUP[name](target, server.port)
                works[name] = peers.work(target, ARGUMENTS_BYTES)
                targets.append(target)
            except Exception as error:  # whatever keeps a peer from being measured is the finding
                if name in peers.MUST:
                    raise
                results.leave_out(name, error)
        works["direct"] = peers.work(server, ARGUMENTS_BYTES)
        cases = [Case(plural(count), count, works) for count in (1, 16)]
        take_turns(results, targets, cases, must=("direct", *peers.MUST))
    return results


SUBSETS: dict[str, Callable[[], Results]] = {
    "proxies": proxies, "sizes": sizes, "rules": many_rules, "streams": streams, "stdio": stdio, "peers": sessions,
}


def shown(results: Results) -> str:
    """A line for each target and case, with medians."""
    lines = [f"{results.subset}: {results.what}"]
    for one in results.series:
        found = [f"{one['case']:<34}", f"{one['target']:<16}"]
        for what, unit in (("p50_us", "µs"), ("rate", "/s"), ("cpu_us", "µs of processor")):
            values = [each[what] for each in one["rounds"] if what in each]
            found += [f"{statistics.median(values):>9.0f} {unit}"] if values else []
        lines.append("  ".join(found))
    lines += [f"{'memory':<36}{one['target']:<16}  {one['rss_kib'] / 1024:>9.0f} MiB" for one in results.memory]
    lines += [f"not measured: {one['target']}: {one['reason']}" for one in results.not_measured]
    return "\n".join(lines)


def main() -> int:
    busy = load.busy()
    if busy > load.BUSY_MAX:
        print(
            f"compare: other programs keep {busy:.1f} processors busy; the figures will not be worth much",
            file=sys.stderr,
        )
    for name in sys.argv[1:]:
        results = SUBSETS[name]()
        results.write()
        print(shown(results), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
