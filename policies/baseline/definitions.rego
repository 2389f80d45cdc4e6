# METADATA
# title: "Baseline: definitions"
# description: |
#   A tool is what it was when somebody reviewed it, and nothing in it is hidden from people.
#
#   Where the configuration names a lock, a tool whose definition is another than the locked one,
#   or that is not locked, is neither listed nor called. Without a lock nothing is held against
#   one. A definition that holds characters without a shape, turns of the writing direction or
#   control characters, or whose name passes for another's, is neither listed nor called.
package mcp

# How a tool may stand to the lock without being locked as it is.
drifted := {"added", "changed", "unlocked"}

deny contains {"code": "definition-drift", "message": "the tool is not locked as it is now"} if {
	forward_call
	input.tool.drift in drifted
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
