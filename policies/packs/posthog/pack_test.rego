# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_posthog_test

calls := [
	{
		"tool": "exec",
		"arguments": {"command": "search flags"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "name": "exec/search", "tags": ["command-string"]},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "exec",
		"arguments": {"command": "call switch-project {\"projectId\":7}"},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "name": "exec/call switch-project", "tags": ["command-string", "session-state"]},
		"rule": "deny",
		"code": "moves-later-calls",
	},
	{
		"tool": "exec",
		"arguments": {"command": "call delete-feature-flag {\"id\":7}"},
		"operation": {"effect": "destructive", "environment_source": "none", "environments": ["*"], "name": "exec/call delete-feature-flag", "tags": ["command-string", "go-live"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
	{
		"tool": "exec",
		"arguments": {"command": "search x\ncall delete-feature-flag {}"},
		"operation": {"effect": "unknown", "environment_source": "none", "environments": [], "tags": ["command-string"]},
		"rule": "refuse",
		"code": "unknown-tool",
	},
	{
		"tool": "switch-project",
		"arguments": {"projectId": 7},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "tags": ["session-state"]},
		"rule": "deny",
		"code": "moves-later-calls",
	},
	{
		"tool": "update-feature-flag",
		"arguments": {},
		"operation": {"effect": "destructive", "environment_source": "none", "environments": ["*"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
