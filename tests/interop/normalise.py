"""What may differ between two runs that are otherwise the same. Nothing else is touched.

1. The time of day that server-everything writes into its dynamic resources, also inside the
   base64 text of a blob.
2. The last progress notice of a call (the one that says all is done). Clients that read it
   together with the answer drop it, with and without a proxy, as it falls.
3. Session ids, where a server writes them into text.
"""

import base64
import re
from typing import Any

CLOCK = re.compile(r"created at \d{1,2}:\d{2}:\d{2}(?:\s?[AP]M)?")
SESSION = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def text(value: str) -> str:
    return SESSION.sub("SESSION", CLOCK.sub("created at TIME", value))


def blob(value: str) -> str:
    try:
        plain = base64.b64decode(value, validate=True).decode()
    except ValueError:
        return value
    return "decoded: " + text(plain) if CLOCK.search(plain) else value


def progress(notices: list[Any]) -> list[Any]:
    return [one for one in notices if one.get("progress") != one.get("total")]


def normalised(value: Any) -> Any:
    """`value` with exactly the differences above taken out; order is kept."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [normalised(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, inner in value.items():
        if key == "blob" and isinstance(inner, str):
            out[key] = blob(inner)
        elif key == "progress" and isinstance(inner, list):
            out[key] = progress(inner)
        else:
            out[key] = normalised(inner)
    return out
