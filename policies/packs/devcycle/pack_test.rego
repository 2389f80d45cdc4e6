# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_devcycle_test

calls := [
	{
		"tool": "get_feature_audit_log_history",
		"arguments": {"environment": "production"},
		"operation": {"effect": "read", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "create_feature",
		"arguments": {"configurations": {"staging": {}}},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": ["go-live"]},
		"rule": "permit",
		"code": "pinned-writes",
	},
	{
		"tool": "create_feature",
		"arguments": {"configurations": {"staging": {}, "production": {}}},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["production", "staging"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "create_feature",
		"arguments": {},
		"operation": {"effect": "write", "environment_source": "absent", "environments": ["*"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "absent-environment",
	},
	{
		"tool": "select_project",
		"arguments": {"project_key": "p"},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "tags": ["session-state"]},
		"rule": "deny",
		"code": "moves-later-calls",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
