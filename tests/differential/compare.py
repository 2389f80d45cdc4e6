"""Feeds the same documents to every reader and fails where one differs from the gate.

Usage: compare.py COUNT [SEED]. Wants the programs that run.sh builds.
"""

import base64
import collections
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
DOCUMENTS = os.environ["DOCUMENTS"]
TOOLS = pathlib.Path(os.environ["DIFFERENTIAL"])
READERS = [
    ["node", HERE / "read.mjs"],
    [sys.executable, HERE / "read.py"],
    [TOOLS / "read-v1"],
    [TOOLS / "read-v2"],
]
BATCH = 50_000
SHOWN_MAX = 20


def rows(path):
    """The rows of a file of readings, its column names first."""
    with open(path, encoding="ascii") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")


class Tally:
    def __init__(self):
        self.documents = self.forwarded = self.contested = self.divergent = 0
        self.accepted = collections.Counter()

    def document(self, names, readings, raw, seed, number):
        self.documents += 1
        accepted = {name: found for name, found in zip(names, readings) if found != "-"}
        self.accepted.update(accepted.keys())
        kinds = collections.defaultdict(set)
        for name, found in accepted.items():
            kinds[name.split(":")[1]].add(found)
        agreed = all(len(found) == 1 for found in kinds.values())
        if "gate:value" not in accepted:
            # Documents that two readers read differently must be among those that the gate refuses.
            self.contested += not agreed
            return
        self.forwarded += 1
        if agreed:
            return
        self.divergent += 1
        if self.divergent <= SHOWN_MAX:
            print(f"READ DIFFERENTLY (seed {seed}, document {number}):")
            print(f"  {base64.b64decode(raw)!r}")
            for name, found in accepted.items():
                print(f"  {found}  {name}")


def batch(tally, seed, count, folder):
    documents, ours = folder / "documents", folder / "ours"
    seeds = HERE / "../../fuzz/seeds"
    subprocess.run([DOCUMENTS, str(seed), str(count), seeds, documents, ours], check=True)
    outputs = [folder / f"reader{at}" for at in range(len(READERS))]
    running = []
    for command, output in zip(READERS, outputs):
        with open(output, "wb") as to:
            running.append(subprocess.Popen([*command, documents], stdout=to))
    # Wait for all readers first, then report one that failed.
    if any([reader.wait() for reader in running]):
        sys.exit("a reader failed")
    with open(documents, encoding="ascii") as lines:
        tables = itertools.zip_longest(rows(ours), *map(rows, outputs))
        names = list(itertools.chain(*next(tables)))
        for number, (raw, row) in enumerate(itertools.zip_longest(lines, tables)):
            # A reader that stopped early gives no row, and fails here.
            tally.document(names, list(itertools.chain(*row)), raw, seed, number)
    return names


def main():
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    tally, started, names = Tally(), time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, count, BATCH):
            size = min(BATCH, count - first)
            names = batch(tally, seed + first // BATCH, size, pathlib.Path(folder))
    print(f"{'reader':<36}{'accepted':>10}")
    for name in names:
        print(f"{name:<36}{tally.accepted[name]:>10}")
    print(
        f"{tally.documents} documents from seed {seed}, {tally.forwarded} would be forwarded, "
        f"{tally.divergent} of those read differently; "
        f"{tally.contested} refused ones are ({time.monotonic() - started:.0f} s)"
    )
    if tally.divergent:
        sys.exit(1)
    # If no readers ever differ, or the gate forwards almost nothing, the comparison is worthless.
    if tally.contested * 100 < count or tally.forwarded * 4 < count:
        sys.exit("too few documents that tell anything")


main()
