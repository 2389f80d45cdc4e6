# METADATA
# title: "Example: open"
# description: |
#   Permits everything well-formed, and so records it: for first contact with a server that no
#   pack knows, and for tests of transparency. Not for production. Strict reading of frames, the
#   filter of headers and the journal work as ever; nothing else protects the server.
#
#   Where the baseline is loaded as well, this rule stands back.
package mcp

permit contains {"code": "open", "message": "everything well-formed passes, and is recorded"} if {
	not data.mcp.baseline
}
