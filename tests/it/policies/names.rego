# Rules on names of members. Each line with `#!` has a name that the policy does not write.
package mcp

import data.lib.is_listed
import input.tool.arguments as given

permit contains {"code": "p", "message": "m"} if input.tool.name == "deploy"

# Put together.
a1 if input.tool.arguments[concat("", ["env", "ironment"])] == "production" #!
a2 if input.tool.arguments[sprintf("%s_%s", ["env", "name"])] == "production" #!
a3 if input.tool.arguments[split("environment,env", ",")[0]] == "production" #!

a4 if {
	name := concat("", ["env", "ironment"])
	input.tool.arguments[name] == "production" #!
}

a5 if {
	some name in ["key", replace("e.n.v", ".", "")]
	input.tool.arguments[name] == "production" #!
}

a6 if object.get(input.tool.arguments, lower("ENV"), "") == "production" #!
a7 if object.get(input.tool.arguments, ["filter", trim("env ", " ")], "") == "production" #!
a8 if input.tool.arguments.filter[joined] == "production" #!

joined := concat("", ["env", "ironment"])

a9 if member(input.tool.arguments, "env") == "production"

member(all, prefix) := all[concat("", [prefix, "ironment"])] #!

a10 if input.params.arguments[sprintf("%s", ["env"])] == "production" #!
a11 if input.prompt.arguments[concat("", ["env", ""])] == "production" #!
a12 if given[concat("", ["env", ""])] == "production" #!
a13 if json.filter(input.tool.arguments, ["filter/environment"]) == {} #!
a14 if json.remove(input.tool.arguments, [[concat("", ["env", ""])]]) == {} #!
a15 if object.filter(input.tool.arguments, [concat("", ["env", ""])]) == {} #!
a16 if input.answer.content[concat("", ["env", ""])] == "production" #!

a17 if {
	all := input.tool.arguments
	inner := all.filter
	inner[concat("", ["env", ""])] == "production" #!
}

a18 if {
	some names in [{concat("", ["env", ""]) | true}]
	some name in names
	input.tool.arguments[name] #!
}

a19 if concat("", ["env", "ironment"]) in object.keys(input.tool.arguments) #!

a20 if count(object.keys(input.tool.arguments) & {concat("", ["env", ""])}) > 0 #!
a21 if input.tool[concat("", ["argu", "ments"])].env == "production" #!
a22 if {k: v | some k, v in input.tool.arguments}[concat("", ["env", ""])] == "production" #!
a23 if object.subset(input.tool.arguments, {concat("", ["env", ""]): "production"}) #!
a24 if input.tool.arguments == {concat("", ["env", ""]): "production"} #!
a25 if input["tool"]["arguments"][made_names[_]] == "production" #!

made_names contains concat("", ["env", ""])

a26 if {
	name = concat("", ["env", ""])
	input.tool.arguments[name] == "production" #!
}

a27 if object.union(input.tool.arguments, {})[concat("", ["env", ""])] == "production" #!
a28 if input.tool.arguments[renamed] with input.server.name as concat("", ["env", ""]) #!

renamed := input.server.name

# Taken from the input.
b1 if input.tool.arguments[input.server.labels.argument] == "production" #!
b2 if input.tool.arguments[input.tool.arguments.field] == "production" #!

b3 if {
	some name, value in input.tool.arguments
	name == input.server.labels.argument #!
	value == "production"
}

# Described.
c1 if {
	some name, value in input.tool.arguments
	startswith(name, "env") #!
	value == "production"
}

c2 if {
	some name, _ in input.tool.arguments
	regex.match("^env", name) #!
}

c3 if {
	input.tool.arguments[name] == "production"
	endswith(name, "ment") #!
}

c4 if {
	some name in object.keys(input.tool.arguments)
	contains(name, "env") #!
}

c5 if {
	some name, _ in input.tool.arguments
	replace(name, "_", "") == "environment" #!
}

c6 if {
	some name, value in input.tool.arguments
	is_environment(name)
	value == "production"
}

is_environment(name) if glob.match("env*", [], name) #!

c7 if count({name | some name, _ in input.tool.arguments; startswith(name, "env")}) > 0 #!

c8 if {
	every name, value in input.tool.arguments {
		indexof(name, "env") == 0 #!
		value == "production"
	}
}

c9 if {
	some name, _ in input.tool.arguments.filter
	trim_prefix(name, "x-") in {"environment"} #!
}

c10 if {
	some name, _ in input.tool.arguments
	first(name) == "env" #!
}

first(name) := split(name, "_")[0]

c11 if {
	some name, _ in input.tool.arguments
	strings.any_prefix_match(lower(name), {"env"}) #!
}

c12 if {
	some name, _ in input.tool.arguments
	{"environment": true}[replace(name, "-", "")] #!
}

c13 if {
	names := [name | some name, _ in input.tool.arguments]
	startswith(names[_], "env") #!
}

c14 if {
	by_name[name] == "production"
	startswith(name, "env") #!
}

by_name[name] := value if some name, value in input.tool.arguments

c15 if {
	some i
	name := object.keys(input.tool.arguments)[i]
	substring(name, 0, 3) == "env" #!
}

c16 if {
	some name, _ in input.tool.arguments
	name >= "env" #!
}

c17 if count({replace(name, "_", "") | some name, _ in input.tool.arguments} - {"key"}) > 0 #!
c18 if contains(json.marshal(input.tool.arguments), `"env":"production"`) #!

c19 if {
	some name, value in input.tool.arguments
	not startswith(name, "x-") #!
	value == "production"
}

# In a text.
d1 if json.unmarshal(input.tool.arguments.body).env == "production" #!

d2 if {
	body := json.unmarshal(base64.decode(input.tool.arguments.body))
	body.filter["env"] == "production" #!
}

d3 if object.get(json.unmarshal(input.tool.arguments.body), "env", "") == "production" #!

d4 if {
	some name, value in json.unmarshal(input.tool.arguments.body)
	name == "env" #!
	value == "production"
}

d5 if parsed(input.tool.arguments.body).env == "production" #!

parsed(text) := json.unmarshal(text)

# Permits by a name in any spelling.
permit contains {"code": "e1", "message": "m"} if {
	some name, value in input.tool.arguments
	lower(name) == "environment" #!
	value == "staging"
}

# What is written, or is no condition on a name.
deny contains {"code": "g1", "message": sprintf("`%s` is production", [name])} if {
	some name, value in input.tool.arguments
	lower(name) == "environment"
	value == "production"
}

deny contains {"code": "g2", "message": "m"} if {
	some name, value in json.unmarshal(input.tool.arguments.body)
	lower(name) in {"environment", "env"}
	value == "production"
}

deny contains {"code": "g3", "message": "m"} if {
	some name in {"environment", "env"}
	input.tool.arguments[name] == "production"
}

deny contains {"code": "g4", "message": "m"} if {
	some name, value in input.tool.arguments
	name in {"environment", "env"}
	value == "production"
}

deny contains {"code": "g5", "message": concat(" ", ["no", name])} if {
	some name, value in input.tool.arguments
	is_string(value)
	startswith(value, "prod")
}

g6 if input.tool.arguments[_] == "production"

g7 if input.tool.arguments.list[count(input.tool.arguments.list) - 1] == "production"

g8 if {
	some i, part in split(input.tool.arguments.path, "/")
	i > 0
	part == lower(input.tool.arguments.name)
	startswith(part, "prod")
}

g9 if {
	some name, _ in input.tool.arguments
	data.environments[name]
	not name in data.allowed
	is_listed(name)
}

g10 if count(object.keys(input.tool.arguments) - {"key", "environment"}) > 0

g11 if object.get(input.tool.arguments, ["filter", "environment"], "") == "production"

g12 if {
	some name, _ in input.tool.arguments
	trim_space(name) != name
}

g13 if {
	some item in input.tool.arguments.items
	item.key == lower(item.key)
	item[data.names[_]] == "production"
}

g14 if json.unmarshal(input.server.labels.policy).env == "production"

g15 if {
	some i
	input.tool.arguments.list[i] == "a"
	input.tool.arguments.other[i] == sprintf("%s", [input.principal.id])
}

g16 if {
	some label, value in input.server.labels
	startswith(label, "env")
	input.principal.claims[concat("", ["a", "b"])] == value
}

g17 if json.filter(input.tool.arguments, ["environment"]) == {}

g18 if {
	input.tool.arguments[_] == "production"
	json.unmarshal(input.tool.arguments.body)[_] == "production"
	contains(json.marshal(input.tool.arguments), "production")
}

g19 if object.subset(input.tool.arguments, {"environment": lower("Production")})
g20 if input.tool.arguments.from <= input.tool.arguments.to

# An accepted one.
h1 if startswith(object.keys(input.tool.arguments)[_], "x-") # bartizan:allow computed-name
