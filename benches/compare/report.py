"""Draws the charts of docs/benchmarks and writes the measured part of docs/benchmarks.md.

Reads the raw results that compare.py has written there, and nothing else: two runs over the same
results give the same page. Differences and ratios are taken within each round, and their medians
over the rounds are shown.
"""

import json
import math
import pathlib
import statistics
import sys
from html import escape
from typing import Any

from load import BUSY_MAX

DOCS = pathlib.Path(__file__).resolve().parent.parent.parent / "docs"
RESULTS = DOCS / "benchmarks"
PAGE = DOCS / "benchmarks.md"
BEGIN = "<!-- measured: written by benches/compare/report.py -->\n"
END = "<!-- measured: end -->\n"
ORDER = ("proxies", "sizes", "rules", "streams", "stdio", "peers")
TITLES = {
    "proxies": "Beside nginx and Envoy",
    "sizes": "Sizes",
    "rules": "Number of rules",
    "streams": "Events of a stream",
    "stdio": "Standard input and output",
    "peers": "Other gateways and proxies",
}
COLOURS = {
    "direct": "#8c959f", "nginx": "#2da44e", "envoy": "#bf3989", "bartizan": "#0969da",
    "1 rule": "#79c0ff", "10 rules": "#54a3f5", "100 rules": "#2b7de0", "500 rules": "#0a4ea8",
}
OTHER = "#9a6700"
BAR, GAP, LEFT, WIDTH, RIGHT = 16, 12, 330, 420, 90
Json = dict[str, Any]


class Subset:
    """The results of one subset."""

    def __init__(self, whole: Json) -> None:
        self.whole = whole
        self.name: str = whole["subset"]
        self.rounds = {(one["case"], one["target"]): one["rounds"] for one in whole["series"]}
        self.cases = list(dict.fromkeys(one["case"] for one in whole["series"]))
        self.targets = list(dict.fromkeys(one["target"] for one in whole["series"]))
        self.base = "nginx" if "nginx" in self.targets else "direct"

    def values(self, case: str, target: str, what: str) -> list[float]:
        return [one[what] for one in self.rounds.get((case, target), []) if what in one]

    def median(self, case: str, target: str, what: str) -> float | None:
        values = self.values(case, target, what)
        return statistics.median(values) if values else None

    def is_alone(self, case: str) -> bool:
        """Whether one call or event follows the other, so that a median is what one takes."""
        return "1 connection" in case or case.startswith("one ")

    def added(self, case: str, target: str) -> float | None:
        """What a target adds to a direct call, µs."""
        values = self.values(case, target, "p50_us")
        direct = self.values(case, "direct", "p50_us")
        if target == "direct" or not values or not self.is_alone(case):
            return None
        return statistics.median(one - base for one, base in zip(values, direct, strict=True))

    def added_ratio(self, case: str, target: str) -> float | None:
        added, base = self.added(case, target), self.added(case, self.base)
        # Below the clock's resolution a ratio would say nothing.
        return added / base if added is not None and base is not None and base >= 2 else None

    def rate_ratio(self, case: str, target: str) -> float | None:
        values, base = self.values(case, target, "rate"), self.values(case, self.base, "rate")
        if not values or not base:
            return None
        return statistics.median(one / other for one, other in zip(values, base, strict=True))


def number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def table(subset: Subset) -> list[str]:
    beside = f"to {subset.base}"
    added = f" {beside} |" if subset.base != "direct" else ""
    lines = [
        f"| Case | Through | Median, µs | p99, µs | Adds, µs |{added} Per second | {beside} | Processor, µs |",
        "|---|---|---:|---:|---:|---:|---:|---:|" + ("---:|" if added else ""),
    ]
    for case in subset.cases:
        for at, target in enumerate(one for one in subset.targets if (case, one) in subset.rounds):
            cells = [case if at == 0 else "", target]
            cells += [number(subset.median(case, target, what)) for what in ("p50_us", "p99_us")]
            cells.append(number(subset.added(case, target)))
            if added:
                cells.append(number(subset.added_ratio(case, target), 2))
            cells.append(number(subset.median(case, target, "rate")))
            cells.append(number(subset.rate_ratio(case, target), 2))
            cells.append(number(subset.median(case, target, "cpu_us")))
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def chart(title: str, groups: list[tuple[str, list[tuple[str, float]]]]) -> str:
    """Bars beside one another, in groups; logarithmic if some would not be seen otherwise."""
    values = [value for _, bars in groups for _, value in bars]
    largest, smallest = max(values), min(values)
    logarithmic = largest > 50 * smallest
    least = 10 ** math.floor(math.log10(smallest))

    def length(value: float) -> float:
        if logarithmic:
            return WIDTH * math.log10(value / least) / math.log10(largest / least)
        return WIDTH * value / largest

    parts = []
    y = 34
    for label, bars in groups:
        parts.append(f'<text x="8" y="{y + 12}" font-weight="600">{escape(label)}</text>')
        for target, value in bars:
            colour = COLOURS.get(target, OTHER)
            wide = max(1.0, length(value))
            parts.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(target)}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR - 3}" fill="{colour}"/>')
            parts.append(f'<text x="{LEFT + wide + 6:.1f}" y="{y + 12}">{number(value)}</text>')
            y += BAR
        y += GAP
    scale = ", logarithmic" if logarithmic else ""
    width = LEFT + WIDTH + RIGHT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" '
        'font-family="sans-serif" font-size="12" fill="#1f2328">\n'
        f'<rect width="{width}" height="{y}" fill="#ffffff"/>\n'
        f'<text x="8" y="20" font-size="14" font-weight="600">{escape(title + scale)}</text>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def charts(subset: Subset) -> list[str]:
    """Writes the subset's charts; the lines that show them."""
    lines = []
    for what, title in (("p50_us", "One after the other: median, µs"), ("rate", "At once: per second")):
        groups = []
        for case in subset.cases:
            if subset.is_alone(case) != (what == "p50_us"):
                continue
            medians = [(target, subset.median(case, target, what)) for target in subset.targets]
            bars = [(target, value) for target, value in medians if value]
            if bars:
                groups.append((case, bars))
        if groups:
            file = f"{subset.name}-{'time' if what == 'p50_us' else 'rate'}.svg"
            (RESULTS / file).write_text(chart(title, groups))
            lines += [f"![{TITLES[subset.name]}. {title}](benchmarks/{file})", ""]
    return lines


def section(subset: Subset) -> list[str]:
    run = subset.whole["run"]
    busy = run["busy_processors"]
    lines = [f"### {TITLES[subset.name]}", "", subset.whole["what"] + "."]
    lines.append(
        f"{run['date']}, {run['model']}, {run['processors']} processors shared by client, proxy and server, "
        f"Linux {run['kernel']}; alternating rounds: {run['rounds']}, of {run['seconds']:g} s each. "
        f"Raw results: [{subset.name}.json](benchmarks/{subset.name}.json)."
    )
    if busy > BUSY_MAX:
        lines.append(
            f"**Other programs kept {busy:.1f} processors busy: ratios are rough, and times too high.**"
        )
    lines += ["", *charts(subset), *table(subset), ""]
    memory = [f"{one['target']} {one['rss_kib'] / 1024:.0f} MiB" for one in subset.whole["memory"]]
    lines += [f"Resident memory afterwards: {', '.join(memory)}.", ""]
    for one in subset.whole["not_measured"]:
        lines += [f"Not measured: {one['target']}: {one['reason']}.".replace("..", "."), ""]
    return lines


def main() -> int:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    lines = [""]
    for name in ORDER:
        file = RESULTS / f"{name}.json"
        if file.exists():
            lines += section(Subset(json.loads(file.read_text())))
    PAGE.write_text(before + BEGIN + "\n".join(lines) + END + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
