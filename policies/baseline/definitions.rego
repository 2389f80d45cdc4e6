# Baseline: definitions
#
# Hides and denies tools whose definition differs from the reviewed one, contains hidden text, or
# has a schema that makes its readers fetch something or write a header that is none.
#
# If the configuration names a lock file, a tool whose definition is not locked, or differs from
# the locked one, is neither listed nor called. A tool that has not been listed yet, or not since
# the server changed its tools, is not called either. Without a lock file there is no such check.
# A definition with invisible characters, changes of the writing direction or control characters,
# or with a name that looks like another one, is neither listed nor called. The same is true of a
# definition whose schemas refer to other documents, or name an invalid x-mcp-header.
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

# The flags of schemas; all others are about text.
schema_flags := {"header-name", "remote-reference"}

deny contains {"code": "hidden-text", "message": "the tool's definition holds what people cannot see"} if {
	forward_call
	some flag in input.tool.flags
	not flag in schema_flags
}

deny contains {"code": "unsafe-schema", "message": "the tool's schema refers elsewhere, or names an invalid header"} if {
	forward_call
	some flag in input.tool.flags
	flag in schema_flags
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
