"""Second, independent verifier of a Bartizan journal: `verify_journal.py DIRECTORY`.

Written from the description in crates/audit/src/lib.rs, sharing nothing with the program. Also computes
the Merkle root of each checkpoint; it does not check signatures. Prints
`ok <records> records, head <hash>` and ends with 0, or `bad <seq> <file>: <why>` and ends with 1.
"""
import base64
import hashlib
import json
import pathlib
import re
import sys


def unique(pairs):
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise ValueError("a member is there twice")
    return dict(pairs)


def fail(seq, file, why):
    print(f"bad {seq} {file}: {why}")
    sys.exit(1)


lines = []  # (file, bytes without LF or None, for the first in its file: the seq in its name)
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    match = re.fullmatch(r"journal-(\d{20})\.ndjson", path.name)
    if not match:
        continue
    pieces = path.read_bytes().split(b"\n")
    lines += [(path.name, piece, 0 if n else int(match[1])) for n, piece in enumerate(pieces[:-1])]
    if pieces[-1]:
        lines.append((path.name, None, 0 if len(pieces) > 1 else int(match[1])))
if not lines:
    fail(1, ".", "there is no journal")

EVENTS = (
    "start stop intent hold hold_state approval denial outcome notice drop repeated policy store webhook recovery gap rotation checkpoint".split()
)


def push(stack, leaf):
    """Appends a leaf to a tree (RFC 6962), kept as a list of (leaves, root) of complete subtrees."""
    size, root = 1, hashlib.sha256(b"\0" + leaf).digest()
    while stack and stack[-1][0] == size:
        size, root = 2 * size, hashlib.sha256(b"\1" + stack.pop()[1] + root).digest()
    stack.append((size, root))


def top(stack):
    root = stack[-1][1]
    for _, left in reversed(stack[:-1]):
        root = hashlib.sha256(b"\1" + left + root).digest()
    return root


tree, grown = [], 0  # The tree of the first `grown` records.
fresh = False  # Only `start` and what follows it in a recovery was read since the last start.
prev, last_file, owed = "0" * 64, None, {}
for seq, (file, line, first) in enumerate(lines, 1):
    if first and first != seq:
        fail(seq, file, f"the file begins with record {first}")
    if line is None:
        fail(seq, file, "the line is cut off")
    try:
        record = json.loads(line.decode(), object_pairs_hook=unique)
        if record["seq"] != seq:
            fail(seq, file, f"record {record['seq']} is in its place")
    except (ValueError, KeyError, TypeError) as error:
        fail(seq, file, f"not a record: {error}")
    own = hashlib.sha256(line).hexdigest()
    if record["prev"] != prev:
        # The hash in the next line shows which of the two lines was changed.
        after = lines[seq][1] if seq < len(lines) else b'"prev":"%s"' % own.encode()
        vouched = after is not None and b'"prev":"%s"' % own.encode() in after
        if vouched and last_file:
            fail(seq - 1, last_file, "the record was changed")
        fail(seq, file, "the record was changed")
    if (record["event"] == "rotation") != (first > 1):
        fail(seq, file, "rotation record missing or misplaced")
    call = record.get("call")
    if record["event"] not in EVENTS:
        fail(seq, file, "an unknown event")
    if record["event"] == "start":
        fresh = True
    elif record["event"] not in ("outcome", "recovery", "rotation", "gap", "checkpoint", "retention"):
        if record["event"] == "stop" and not fresh and any(owed.values()):
            fail(seq, file, "stopped with open calls")
        fresh = False
    if record["event"] == "intent":
        owed[call] = owed.get(call, 0) + 1
    elif record["event"] == "outcome":
        if not owed.get(call):
            fail(seq, file, f"outcome of {call} without intent")
        owed[call] -= 1
    elif record["event"] == "rotation" and "open_elided" not in record:
        if sorted(record["open"]) != sorted(c for c, n in owed.items() for _ in range(n)):
            fail(seq, file, "open calls are others")
    if record["event"] == "checkpoint":
        _, size, root, *_ = record["checkpoint"]["note"].split("\n")
        if not grown <= int(size) < seq:
            fail(seq, file, "the checkpoint covers what it cannot")
        for _, covered, _ in lines[grown : int(size)]:
            push(tree, covered)
        signed, grown = grown + 1, int(size)
        peaks = [base64.b64encode(peak).decode() for _, peak in tree]
        if base64.b64decode(root) != top(tree) or record["checkpoint"]["peaks"] != peaks:
            fail(signed, file, f"it or a record up to {size} was rewritten")
    prev, last_file = own, file
print(f"ok {len(lines)} records, head {prev}")
