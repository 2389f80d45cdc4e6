# Example: open
#
# Permits and records every well-formed message: for a first trial with a server that no pack
# describes, and for tests. Not for production. Only the strict reading of messages, the filter
# of headers and the journal still work; nothing else protects the server.
#
# If the baseline is loaded too, this rule permits nothing.
package mcp

permit contains {"code": "open", "message": "everything well-formed passes, and is recorded"} if {
	not data.mcp.baseline
}
