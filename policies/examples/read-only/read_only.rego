# Example: read only
#
# For use with the baseline: permits every tool that a pack describes as reading, and denies all
# others, even if another rule permits them. Tools that read credentials stay closed, unless they
# are allowed by name.
package mcp

permit contains {"code": "read-only", "message": "reading tools are open"} if {
	calls_a_tool
	input.operation.effect == "read"
	not "credential-read" in input.operation.tags
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
