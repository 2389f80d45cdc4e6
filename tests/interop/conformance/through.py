"""A client behind Bartizan: `through.py URL` starts Bartizan in front of URL and runs client.mjs against it.

This is the command that the conformance tool's client mode is given; the environment is that of
run.py, and what the tool says to a client goes on to it.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from run import CONFORMANCE, bartizan

with tempfile.TemporaryDirectory(prefix="bartizan-client-") as directory:
    server: dict[str, object] = {"url": sys.argv[1]}
    if os.environ["MCP_CONFORMANCE_SCENARIO"].startswith("auth/"):
        # Clients of 2025-03-26 ask the origin that they dialled.
        server["oauth"] = {"mode": "forward", "origin_endpoints": True}
    with bartizan(pathlib.Path(directory), server) as url:
        done = subprocess.run(["node", str(CONFORMANCE / "client.mjs"), url], check=False)
sys.exit(done.returncode)
