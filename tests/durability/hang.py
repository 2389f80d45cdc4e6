"""Holds a firewall to its bounds while a flush or a write of the journal hangs.

Meanwhile operators are answered, and calls are refused within a second. A stop ends within the time that
the documents name, or at once after a second signal: with exit code 1, and saying what may be missing.
The next start then finds a journal that it can repair.
"""

import pathlib
import signal
import sys
import tempfile
import threading
import time

from stage import REFUSED, Agent, Firewall, get, server, settled_once, until, verify

WITHIN = 1.0
# `limits.drain` of these firewalls, and `CLOSE_MAX` of the program with what the rest of its end takes.
DRAIN = 1
CLOSE = 4 + 4


def operators_are_answered(firewall):
    for path in ["/livez", "/readyz", "/metrics"]:
        begun = time.monotonic()
        status, text = get(firewall.admin, path)
        assert status in (200, 503) and text, (path, status, text)
        assert time.monotonic() - begun < WITHIN, f"{path} took {time.monotonic() - begun} s"


def refused(firewall, number):
    begun = time.monotonic()
    status, message = Agent(firewall.listen).call(f"hung-{number}")
    took = time.monotonic() - begun
    assert status == 503 and message["error"]["code"] == REFUSED, (status, message)
    assert took < WITHIN, f"refused after {took} s"


def stopped(firewall, signals):
    """Sends SIGTERM so many times. Gives how long the stop took."""
    begun = time.monotonic()
    for _ in range(signals):
        firewall.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    code = firewall.process.wait(60)
    took = time.monotonic() - begun
    said = firewall.said()
    assert code == 1, (code, said)
    assert "error: journal: " in said and "may be missing" in said, said
    return took


def hang(work, upstream, library, what, signals):
    state, file = work / "state", work / "hang"
    environment = {"LD_PRELOAD": library, f"HANG_{what}": str(file)}
    firewall = Firewall(work, state, upstream, "durable", environment, drain=DRAIN)
    assert Agent(firewall.listen).call("before")[0] == 200
    try:
        hung(firewall, file, what, signals)
    finally:
        firewall.process.kill()
    file.unlink()
    Firewall(work, state, upstream, "durable").stop()
    settled_once(state)
    verify(state)


def hung(firewall, file, what, signals):
    file.touch()
    # The call whose record is being written waits until the write returns.
    stuck = threading.Thread(target=lambda: call_that_ends_anyhow(firewall), daemon=True)
    stuck.start()
    until("the journal to be found hanging", lambda: get(firewall.admin, "/readyz")[0] == 503)
    operators_are_answered(firewall)
    for number in range(3):
        if what == "FLUSH":
            refused(firewall, number)
    took = stopped(firewall, signals)
    bound = DRAIN + CLOSE if signals == 1 else CLOSE - 5
    assert took < bound, f"the stop took {took} s"
    print(f"{what.lower()} hangs: after {signals} signals it stopped within {took:.1f} s")


def call_that_ends_anyhow(firewall):
    try:
        Agent(firewall.listen).call("stuck")
    except OSError:
        pass


def main(library):
    with server() as upstream:
        for what in ["FLUSH", "WRITE"]:
            for signals in [1, 3]:
                with tempfile.TemporaryDirectory() as work:
                    hang(pathlib.Path(work), upstream, library, what, signals)


main(sys.argv[1])
