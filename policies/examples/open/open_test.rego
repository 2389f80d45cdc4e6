package mcp_open_test

opened if {
	some rule in data.mcp.permit with input as {"method": "vendor/anything", "direction": "to_server"}
	rule.code == "open"
}

test_everything_is_open if {
	opened with data.mcp.baseline as false
}

test_it_stands_back_behind_the_baseline if {
	not opened with data.mcp.baseline as true
}
