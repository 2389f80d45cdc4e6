package mcp_baseline_protocol_test

# Only the baseline's own codes are compared, so that these tests also pass with your rules loaded.
granted(method, direction) := {rule.code |
	some rule in data.mcp.permit with input as {"method": method, "direction": direction}
	rule.code in {"protocol", "published", "notices", "server-requests", "allowed-methods"}
}

denied(method, direction) := {rule.code |
	some rule in data.mcp.deny with input as {"method": method, "direction": direction}
	rule.code == "closed-method"
}

refused(method, direction) := {rule.code |
	some rule in data.mcp.refuse with input as {"method": method, "direction": direction}
	rule.code in {"unknown-method", "backward-call"}
}

test_the_protocol_is_open if {
	every method in [
		"initialize",
		"logging/setLevel",
		"ping",
		"prompts/list",
		"resources/list",
		"resources/templates/list",
		"server/discover",
		"subscriptions/listen",
		"tasks/cancel",
		"tasks/get",
		"tasks/list",
		"tasks/result",
		"tasks/update",
		"tools/list",
	] {
		granted(method, "to_server") == {"protocol"}
	}
}

test_what_is_published_may_be_read if {
	every method in [
		"completion/complete",
		"prompts/get",
		"resources/read",
		"resources/subscribe",
		"resources/unsubscribe",
	] {
		granted(method, "to_server") == {"published"}
		granted(method, "to_client") == set()
	}
}

test_notices_pass_in_both_directions if {
	every direction in ["to_server", "to_client"] {
		granted("notifications/progress", direction) == {"notices"}
		granted("notifications/vendor/anything", direction) == {"notices"}
	}
}

test_only_the_exact_prefix_is_a_notice if {
	every method in ["notifications", "Notifications/progress", "x/notifications/progress", ""] {
		granted(method, "to_server") == set()
	}
}

test_the_server_may_ask_what_the_client_offers if {
	every method in ["elicitation/create", "ping", "roots/list", "sampling/createMessage"] {
		granted(method, "to_client") == {"server-requests"}
	}
}

test_the_server_may_not_act_as_a_client if {
	every method in ["initialize", "resources/read", "prompts/get", "tools/list"] {
		granted(method, "to_client") == set()
	}
}

test_the_client_may_not_act_as_a_server if {
	every method in ["elicitation/create", "roots/list", "sampling/createMessage"] {
		granted(method, "to_server") == set()
	}
}

test_a_server_calls_no_tool if {
	granted("tools/call", "to_client") == set()
	refused("tools/call", "to_client") == {"backward-call"}
}

test_an_unknown_method_is_refused if {
	every method in ["vendor/reindex", "tools/Call", "tools/call ", "Initialize", ""] {
		granted(method, "to_server") == set()
		refused(method, "to_server") == {"unknown-method"}
	}
}

test_a_method_can_be_allowed_by_name if {
	codes := granted("vendor/reindex", "to_server") with data.baseline as {"allow_methods": ["vendor/reindex"]}
	codes == {"allowed-methods"}
}

test_allowing_one_method_allows_no_other if {
	codes := granted("vendor/drop", "to_server") with data.baseline as {"allow_methods": ["vendor/reindex"]}
	codes == set()
}

test_a_resource_must_be_what_its_uri_says if {
	every method in ["resources/read", "resources/subscribe", "subscriptions/listen"] {
		codes := {rule.code |
			some rule in data.mcp.deny with input as {
				"method": method,
				"direction": "to_server",
				"resource": {"uri": "file:///a/%2e%2e/b", "ambiguous": true},
			}
		}
		codes == {"ambiguous-uri"}
	}
}

test_a_plain_resource_is_open if {
	every rule in data.mcp.deny {
		rule.code != "ambiguous-uri"
	} with input as {
		"method": "resources/read",
		"direction": "to_server",
		"resource": {"uri": "file:///a/b", "ambiguous": false},
	}
}

test_a_method_can_be_closed_by_name if {
	every method in ["sampling/createMessage", "elicitation/create", "roots/list"] {
		codes := denied(method, "to_client") with data.baseline as {"closed_methods": [method]}
		codes == {"closed-method"}
	}
}

sent_to(elicitation) := {rule.code |
	some rule in data.mcp.deny with input as {
		"method": "elicitation/create",
		"direction": "to_client",
		"elicitation": elicitation,
	}
	rule.code == "elicitation-url"
}

test_users_are_sent_to_https_alone if {
	site := {"scheme": "https", "host": "example.com"}
	sent_to({"mode": "url", "url": "https://example.com/a", "parsed": site}) == set()
	every scheme in ["http", "javascript", "file"] {
		sent_to({"mode": "url", "url": "u", "parsed": {"scheme": scheme, "host": "h"}}) == {"elicitation-url"}
		sent_to({"mode": "form", "url": "u", "parsed": {"scheme": scheme, "host": "h"}}) == {"elicitation-url"}
	}
	sent_to({"mode": "url", "url": "u", "parsed": {"scheme": "https", "host": ""}}) == {"elicitation-url"}
	sent_to({"mode": "url", "url": "https://a\\b"}) == {"elicitation-url"}
	sent_to({"mode": "url", "url": ""}) == {"elicitation-url"}
	sent_to({"mode": "", "url": ""}) == {"elicitation-url"}
}

test_a_form_needs_no_url if {
	sent_to({"mode": "form", "url": ""}) == set()
}

test_closing_one_method_closes_no_other if {
	codes := denied("ping", "to_client") with data.baseline as {"closed_methods": ["roots/list"]}
	codes == set()
}

answer := {"phase": "answer", "direction": "to_server", "method": "elicitation/create"}

test_an_answer_passes_without_its_secrets if {
	decision := data.mcp.decision with input as object.union(answer, {"answer": {"outcome": "result"}})
	decision.effect == "permit"
	decision.redact == {{"code": "secret-answer", "what": "secrets"}}
}

test_a_folder_must_be_plain if {
	of := {"phase": "answer", "direction": "to_server", "method": "roots/list"}
	plain := {"answer": {"roots": [{"uri": "file:///a", "ambiguous": false}]}}
	odd := {"answer": {"roots": [{"uri": "file:///a", "ambiguous": false}, {"uri": "file:///a/..", "ambiguous": true}]}}
	passing := data.mcp.decision with input as object.union(of, plain)
	passing.effect == "permit"
	passing.redact == set()
	refused := data.mcp.decision with input as object.union(of, odd)
	refused.effect == "deny"
}
