# Calls of its tools: the operation of each, and the baseline's rule for it under a pin to `staging`.
package pack_statsig_v3_test

calls := [
	{
		"tool": "gate_read",
		"arguments": {"action": "list"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "name": "gate_read/list", "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "gate_read",
		"arguments": {"action": ["list"]},
		"operation": {"effect": "unknown", "environment_source": "none", "environments": [], "tags": []},
		"rule": "refuse",
		"code": "unknown-tool",
	},
	{
		"tool": "gate_create",
		"arguments": {"params": {"application/json": {"rules": [{"environments": ["staging"]}]}}},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": ["go-live"]},
		"rule": "permit",
		"code": "pinned-writes",
	},
	{
		"tool": "gate_create",
		"arguments": {"params": {"application/json": {"rules": [{"environments": ["production"]}]}}},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["production"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "wrong-environment",
	},
	{
		"tool": "gate_create",
		"arguments": {"params": {"application/json": {"rules": []}}},
		"operation": {"effect": "write", "environment_source": "absent", "environments": ["*"], "tags": ["go-live"]},
		"rule": "deny",
		"code": "absent-environment",
	},
	{
		"tool": "gate_create",
		"arguments": {"params": {"application/json": {"rules": [{"environments": ["staging"]}], "reviewSettings": {}}}},
		"operation": {"effect": "write", "environment_source": "arguments", "environments": ["staging"], "tags": ["go-live", "approval-control"]},
		"rule": "refuse",
		"code": "approval-control",
	},
	{
		"tool": "gate_update",
		"arguments": {"arguments": {"params": {"path_id": "g", "application/json": {"rules": [{"environments": ["staging"]}]}}}, "confirmation": {"acknowledged": true, "reason": "x"}},
		"operation": {"effect": "destructive", "environment_source": "none", "environments": ["*"], "tags": ["go-live", "full-replace", "self-confirm"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
	{
		"tool": "discover_tools",
		"arguments": {"action": "list"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "tags": []},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "api_read",
		"arguments": {"operationHandle": "h"},
		"operation": {"effect": "read", "environment_source": "none", "environments": [], "name": "api_read/h", "tags": ["opaque-operation"]},
		"rule": "permit",
		"code": "reads",
	},
	{
		"tool": "api_read",
		"arguments": {},
		"operation": {"effect": "unknown", "environment_source": "none", "environments": [], "tags": ["opaque-operation"]},
		"rule": "refuse",
		"code": "unknown-tool",
	},
	{
		"tool": "api_write",
		"arguments": {"operationHandle": "h"},
		"operation": {"effect": "write", "environment_source": "none", "environments": ["*"], "name": "api_write/h", "tags": ["opaque-operation"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
	{
		"tool": "api_destructive",
		"arguments": {"operationHandle": "h", "confirmation": {"acknowledged": true}},
		"operation": {"effect": "destructive", "environment_source": "none", "environments": ["*"], "name": "api_destructive/h", "tags": ["opaque-operation", "self-confirm", "go-live", "approval-control"]},
		"rule": "deny",
		"code": "tool-without-environment",
	},
	{
		"tool": "api_destructive",
		"arguments": {"operationHandle": "h", "confirmation": {"acknowledged": true}},
		"operation": {"effect": "destructive", "environment_source": "none", "environments": ["*"], "name": "api_destructive/h", "tags": ["opaque-operation", "self-confirm", "go-live", "approval-control"]},
		"rule": "refuse",
		"code": "approval-control",
	},
]

test_the_baseline_says_so if data.packs_test.wrong(calls) == []
