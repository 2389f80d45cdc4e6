"""Fills the file system of the state directory, given as the argument, and makes room again.

While it is full, calls get 503 and -31003 within a second, the server gets none of them, and `/readyz`
says why. Once there is room, calls pass again without anybody's help, and the journal is whole.
"""

import json
import pathlib
import sys
import tempfile
import time

from stage import REFUSED, Agent, Firewall, get, server, settled_once, until, verify

WITHIN = 1.0


def fill(path):
    """Writes to `path` until the file system is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 65536):
                pass
        except OSError as error:
            print(f"full: {error}")


def main(mounted):
    ballast = mounted / "ballast"
    state = mounted / "state"
    with server() as upstream, tempfile.TemporaryDirectory() as work:
        firewall = Firewall(work, state, upstream, "durable")
        agent = Agent(firewall.listen)
        assert agent.call("before")[0] == 200
        fill(ballast)

        # The free space is looked at once in so many bytes of records, so some may still pass.
        def refused():
            begun = time.monotonic()
            status, message = agent.call(f"full-{begun}")
            took = time.monotonic() - begun
            if status == 200:
                return None
            assert status == 503 and message["error"]["code"] == REFUSED, (status, message)
            assert took < WITHIN, f"refused after {took} s"
            return took

        print(f"refused within {until('a refusal', refused):.3f} s")
        before = len(json.loads(get(upstream, "/received")[1]))
        for _ in range(100):
            assert refused() is not None, "it passed again"
        assert len(json.loads(get(upstream, "/received")[1])) == before, "a refused call reached the server"
        status, why = get(firewall.admin, "/readyz")
        assert status == 503 and "journal" in why, (status, why)
        print(f"/readyz: {why.strip()}")

        ballast.unlink()
        until("recovery", lambda: get(firewall.admin, "/readyz")[0] == 200)
        assert agent.call("after")[0] == 200
        firewall.stop()
        calls = settled_once(state)
        verify(state)
        print(f"it passes calls again; {calls} calls, each with one outcome")


main(pathlib.Path(sys.argv[1]))
