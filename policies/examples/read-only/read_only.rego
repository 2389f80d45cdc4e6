# METADATA
# title: "Example: read only"
# description: |
#   Beside the baseline: every tool that a pack knows to read is open, and nothing else is,
#   whatever another rule permits. Tools that read credentials are among them; close those that
#   your agents have no use for.
package mcp

permit contains {"code": "read-only", "message": "reading tools are open"} if {
	calls_a_tool
	input.operation.effect == "read"
}

deny contains {"code": "read-only", "message": "nothing but reading is open"} if {
	calls_a_tool
	not reads
}

calls_a_tool if {
	input.method == "tools/call"
	input.direction == "to_server"
}

reads if input.operation.effect == "read"
