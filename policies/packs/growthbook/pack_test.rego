# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_growthbook_test

calls := [
	{
		"tool": "growthbook_api_read",
		"arguments": {"path": "/api/v1/features"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "name": "growthbook_api_read/GET", "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "growthbook_api_write",
		"arguments": {"method": "POST", "path": "/api/v1/features/f/toggle", "body": "{\"environments\":{\"staging\":true}}"},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["staging"], "name": "growthbook_api_write/POST /api/v1/features/{id}/toggle", "tags": ["go-live"]},
		"rule": "refuse",
		"code": "destructive",
	},
	{
		"tool": "growthbook_api_write",
		"arguments": {"method": "POST", "path": "/api/v1/features/f/toggle", "body": "{\"environments\":{\"staging\":true,\"production\":true}}"},
		"operation": {"effect": "destructive", "environment_source": "arguments", "environments": ["production", "staging"], "name": "growthbook_api_write/POST /api/v1/features/{id}/toggle", "tags": ["go-live"]},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "growthbook_api_write",
		"arguments": {"method": "POST", "path": "/api/v1/features/../keys", "body": "{}"},
		"operation": {"effect": "destructive", "environment_source": "none", "environments": ["*"], "name": "growthbook_api_write/POST", "tags": ["go-live"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
	{
		"tool": "create_sdk_connection",
		"arguments": {"environment": "staging"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": []},
		"rule": "permit",
		"code": "pinned-writes",
	},
	{
		"tool": "create_sdk_connection",
		"arguments": {"environment": "production"},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["production"], "tags": []},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "clear_user_defaults",
		"arguments": {},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "tags": ["session-state"]},
		"rule": "deny",
		"code": "moves-later-calls",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
