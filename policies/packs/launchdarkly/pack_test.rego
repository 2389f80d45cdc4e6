# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_launchdarkly_test

calls := [
	{
		"tool": "get-flag",
		"arguments": {"env": "production"},
		"operation": {"effect": "read", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "get-environment",
		"arguments": {"env": "staging"},
		"operation": {"effect": "read", "environment_source": "arguments", "environments": ["staging"], "tags": ["credential-read"]},
		"rule": "refuse",
		"code": "credential-read",
	},
	{
		"tool": "create-segment",
		"arguments": {"env": "staging"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": []},
		"rule": "permit",
		"code": "pinned-writes",
	},
	{
		"tool": "create-segment",
		"arguments": {"env": "production"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "create-segment",
		"arguments": {},
		"operation": {"effect": "write", "environment_source": "absent", "environments": ["production"], "tags": []},
		"rule": "deny",
		"code": "absent-environment",
	},
	{
		"tool": "create-segment",
		"arguments": {"env": "staging", "Env": "production"},
		"operation": {"effect": "write", "environment_source": "unreadable", "environments": ["*"], "tags": []},
		"rule": "deny",
		"code": "unreadable-environment",
	},
	{
		"tool": "update-feature-flag",
		"arguments": {"request": {"PatchWithComment": {"patch": [{"op": "replace", "path": "/environments/staging/on", "value": true}]}}},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["staging"], "tags": ["go-live"]},
		"rule": "refuse",
		"code": "destructive",
	},
	{
		"tool": "update-feature-flag",
		"arguments": {"request": {"PatchWithComment": {"patch": [{"op": "move", "from": "/environments/production/rules/0", "path": "/environments/staging/rules/0"}]}}},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["production", "staging"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "wrong-environment",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
