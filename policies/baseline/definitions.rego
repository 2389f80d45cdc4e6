# METADATA
# title: "Baseline: definitions"
# description: |
#   Hides and denies tools whose definition differs from the reviewed one, or contains hidden text.
#
#   If the configuration names a lock file, a tool whose definition is not locked, or differs from
#   the locked one, is neither listed nor called. A tool that has not been listed yet, or not since
#   the server changed its tools, is not called either. Without a lock file there is no such check.
#   A definition with invisible characters, changes of the writing direction or control characters,
#   or with a name that looks like another one, is neither listed nor called.
package mcp

# The values of `drift` for a tool whose present definition is not the locked one.
drifted := {"added", "changed", "unlocked"}

deny contains {"code": "definition-drift", "message": "the tool is not locked as it is now"} if {
	forward_call
	input.tool.drift in drifted
}

deny contains {"code": "definition-unseen", "message": "no definition seen yet; list tools first"} if {
	forward_call
	input.tool.drift == "unseen"
}

deny contains {"code": "hidden-text", "message": "the tool's definition holds what people cannot see"} if {
	forward_call
	count(input.tool.flags) > 0
}

hide contains tool.name if {
	some tool in input.tools
	tool.drift in drifted
}

hide contains tool.name if {
	some tool in input.tools
	count(tool.flags) > 0
}

hide contains entry.name if {
	some entry in input.entries
	count(entry.flags) > 0
}
