"""Kills a firewall under load, starts it again, and holds its journal against what the server received.

After each kill: the server has received no call without an intent, and none twice. After some kills, once
the firewall has recovered and was stopped in order: each intent has exactly one outcome, and the program
finds the chain whole. The server is a process of its own and is never killed.
"""

import http.client
import itertools
import json
import multiprocessing
import pathlib
import random
import sys
import tempfile
import threading
import time

from stage import Agent, Firewall, get, journal, server, settled_once, verify

AGENTS = 8
# A journal that is checked from its start after each kill must not become long.
KILLS_A_JOURNAL = 20
LATEST_KILL = 0.25


def load(listen, names, answered, stop):
    agent = Agent(listen)
    while not stop.is_set():
        name = next(names)
        try:
            status, _ = agent.call(name)
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            if stop.is_set():
                return
            agent = Agent(listen)
            time.sleep(0.001)
            continue
        if status == 200:
            answered.append(name)


def numbered(prefix):
    number = 0
    while True:
        number += 1
        yield f"{prefix}-{number}"


def cycle(work, state, upstream, number, durability):
    """Starts a firewall, kills it under load. Gives the names of calls that were answered."""
    firewall = Firewall(work, state, upstream, durability)
    answered, stop = [], threading.Event()
    agents = [
        threading.Thread(target=load, args=(firewall.listen, numbered(f"{number}-{agent}"), answered, stop))
        for agent in range(AGENTS)
    ]
    for agent in agents:
        agent.start()
    time.sleep(random.uniform(0.01, LATEST_KILL))
    firewall.kill()
    stop.set()
    for agent in agents:
        agent.join()
    return answered


def check(state, upstream, answered):
    """Holds the journal against what the server has received. Gives both numbers."""
    received = json.loads(get(upstream, "/received")[1])
    records = [it for it in journal(state) if it["event"] in ("intent", "outcome")]
    intents = {json.loads(it["id"]): it["call"] for it in records if it["event"] == "intent"}
    ended = {it["call"] for it in records if it["event"] == "outcome"}
    if len(set(received)) != len(received):
        raise SystemExit("the server received a call twice")
    if unrecorded := set(received) - set(intents):
        raise SystemExit(f"the server received {len(unrecorded)} calls without an intent: {sorted(unrecorded)[:3]}")
    if len(received) > len(intents):
        raise SystemExit(f"{len(received)} calls at the server, {len(intents)} intents")
    if early := [name for name in answered if intents.get(name) not in ended]:
        raise SystemExit(f"{len(early)} answers came before their outcomes: {early[:3]}")
    return len(received), len(intents)


def lane(first, cycles, seed, results, failed):
    """Does `cycles` kills, the first of which has the number `first`, with a server and journals of its own.

    Ends after a journal once another one has `failed`.
    """
    random.seed(seed)
    try:
        with server() as upstream:
            for start in range(first, first + cycles, KILLS_A_JOURNAL):
                if failed.is_set():
                    break
                kills = min(KILLS_A_JOURNAL, first + cycles - start)
                results.put(one_journal(upstream, start, kills))
        results.put(None)
    except BaseException as error:
        failed.set()
        results.put(f"{type(error).__name__}: {error}")
        raise


def one_journal(upstream, start, kills):
    """Kills a firewall `kills` times over one journal. Gives kills, intents, calls received and answered."""
    total = 0
    with tempfile.TemporaryDirectory() as work:
        state = pathlib.Path(work, "state")
        get(upstream, "/take")
        durability = random.choice(["durable", "written"])
        for number in range(start, start + kills):
            answered = cycle(work, state, upstream, number, durability)
            received, intents = check(state, upstream, answered)
            total += len(answered)
        Firewall(work, state, upstream, durability).stop()
        settled_once(state)
        verify(state)
    return kills, intents, received, total


def main(cycles, lanes):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {lanes} side by side", flush=True)
    fork = multiprocessing.get_context("fork")
    results, failed, begun = fork.Queue(), fork.Event(), time.monotonic()
    bounds = [cycles * number // lanes for number in range(lanes + 1)]
    running = [
        fork.Process(target=lane, args=(first, last - first, seed + first, results, failed))
        for first, last in itertools.pairwise(bounds)
    ]
    for process in running:
        process.start()
    totals, left = [0, 0, 0, 0], lanes
    while left:
        done = results.get()
        if isinstance(done, str):
            raise SystemExit(f"seed {seed}: {done}")
        if done is None:
            left -= 1
            continue
        totals = [total + more for total, more in zip(totals, done, strict=True)]
        kills, intents, received, answered = totals
        took = time.monotonic() - begun
        print(
            f"{kills} kills in {took:.0f} s: {intents} intents, {received} calls received, {answered} answered",
            flush=True,
        )
    for process in running:
        process.join()


main(int(sys.argv[1]), int(sys.argv[2]))
