"""What Python makes of each document of a file: json, pydantic's parser, and the official SDK."""

import base64
import hashlib
import json
import struct
import sys

import mcp.types as types
from pydantic import TypeAdapter
from pydantic_core import from_json

CALLS = {
    "tools/call": types.CallToolRequest,
    "prompts/get": types.GetPromptRequest,
}
MESSAGE = TypeAdapter(types.JSONRPCMessage)


class Literal(str):
    """A number as it was written."""


def tree(value, out):
    if value is None:
        out.append(b"n")
    elif value is True:
        out.append(b"t")
    elif value is False:
        out.append(b"f")
    elif isinstance(value, Literal):
        out.append(b"l%s;" % value.encode())
    elif isinstance(value, (int, float)):
        out.append(b"d" + struct.pack(">d", float(value) + 0.0).hex().encode())
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        out.append(b"s%d:%s" % (len(text), text))
    elif isinstance(value, list):
        out.append(b"[")
        for element in value:
            tree(element, out)
        out.append(b"]")
    else:
        members = sorted((name.encode("utf-8", "surrogatepass"), name) for name in value)
        out.append(b"{")
        for _, name in members:
            tree(name, out)
            tree(value[name], out)
        out.append(b"}")


def call(raw):
    """Method and id, and for a call its name and arguments, as the SDK's models hold them."""
    message = MESSAGE.validate_json(raw, by_name=False)
    method, id_ = getattr(message, "method", None), getattr(message, "id", None)
    parts = [method, id_]
    if method in CALLS:
        params = CALLS[method].model_validate(
            {"method": method, "params": message.params}, by_name=False
        ).params
        parts += [params.name, params.arguments]
    out = []
    for part in parts:
        tree(part, out)
    return out


def digest(read):
    try:
        out = read()
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return "-"
    return hashlib.sha256(b"".join(out)).hexdigest()[:16]


def whole(value):
    out = []
    tree(value, out)
    return out


READERS = {
    "python-json:value": lambda raw: whole(json.loads(raw)),
    "python-json:literal": lambda raw: whole(
        json.loads(raw, parse_int=Literal, parse_float=Literal)
    ),
    "pydantic:value": lambda raw: whole(from_json(raw)),
    "python-mcp:call": call,
}


def main():
    with open(sys.argv[1], encoding="ascii") as documents:
        print("\t".join(READERS))
        for line in documents:
            raw = base64.b64decode(line)
            print("\t".join(digest(lambda: read(raw)) for read in READERS.values()))


main()
