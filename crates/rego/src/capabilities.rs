//! The capabilities file of this engine, in OPA's format (OPA docs, "Capabilities").
//!
//! With it, `opa check --capabilities` and Regal report a built-in that this engine does not have
//! before the policy is deployed. The file lists built-ins with their types, features, keywords,
//! and the hosts that a policy may reach, which are none. `bartizan policy capabilities` prints it.

use serde_json::{Value, json};

use super::builtins;

/// Operators and other syntax that OPA lists as built-ins: name, infix operator, types.
const LANGUAGE: [(&str, &str, &str); 18] = [
    ("and", "&", "S,S>S"),
    ("assign", ":=", "a,a>b"),
    ("div", "/", "n,n>n"),
    ("eq", "=", "a,a>b"),
    ("equal", "==", "a,a>b"),
    ("gt", ">", "a,a>b"),
    ("gte", ">=", "a,a>b"),
    ("internal.member_2", "in", "a,a>b"),
    ("internal.member_3", "in", "a,a,a>b"),
    ("internal.print", "", "I>"),
    ("lt", "<", "a,a>b"),
    ("lte", "<=", "a,a>b"),
    ("minus", "-", "E,E>E"),
    ("mul", "*", "n,n>n"),
    ("neq", "!=", "a,a>b"),
    ("or", "|", "S,S>S"),
    ("plus", "+", "n,n>n"),
    ("rem", "%", "n,n>n"),
];

/// The capabilities file as JSON text, with a final line feed.
pub fn capabilities() -> String {
    let table = builtins::TABLE.iter().map(|builtin| (builtin.name, "", builtin.types));
    let mut listed: Vec<(&str, Value)> = LANGUAGE
        .into_iter()
        .chain(table)
        .map(|(name, sign, types)| (name, builtin(name, sign, types)))
        .collect();
    let print = json!({"type": "function", "variadic": letter('a')});
    listed.push(("print", json!({"name": "print", "decl": print})));
    listed.sort_by_key(|(name, _)| *name);
    let listed: Vec<Value> = listed.into_iter().map(|(_, builtin)| builtin).collect();
    let file = json!({
        "builtins": listed,
        "future_keywords": ["contains", "every", "if", "in"],
        "features": ["rego_v1"],
        "allow_net": [],
    });
    format!("{file:#}\n")
}

fn builtin(name: &str, sign: &str, types: &str) -> Value {
    let (args, result) = types.split_once('>').unwrap_or((types, ""));
    let args: Vec<Value> = args.chars().filter(|it| *it != ',').map(letter).collect();
    let mut decl = json!({"type": "function", "args": args});
    if let Some(result) = result.chars().next() {
        merge(&mut decl, "result", letter(result));
    }
    let mut entry = json!({"name": name, "decl": decl});
    if !sign.is_empty() {
        merge(&mut entry, "infix", Value::from(sign));
    }
    entry
}

fn merge(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// OPA's JSON description of the type that a letter of [`builtins::TABLE`] stands for.
fn letter(letter: char) -> Value {
    let one_of = |letters: &str| json!({"type": "any", "of": letters.chars().map(self::letter).collect::<Vec<_>>()});
    let array = |of: Value| json!({"type": "array", "dynamic": of});
    let set = |of: Value| json!({"type": "set", "of": of});
    match letter {
        's' => json!({"type": "string"}),
        'n' => json!({"type": "number"}),
        'b' => json!({"type": "boolean"}),
        '0' => json!({"type": "null"}),
        'A' => array(self::letter('a')),
        'S' => set(self::letter('a')),
        'O' => {
            json!({"type": "object", "dynamic": {"key": self::letter('a'), "value": self::letter('a')}})
        }
        'R' => {
            json!({"type": "object", "dynamic": {"key": self::letter('s'), "value": self::letter('s')}})
        }
        'L' => array(self::letter('s')),
        'N' => array(self::letter('n')),
        'Y' => array(self::letter('O')),
        'Z' => array(self::letter('L')),
        'I' => array(self::letter('S')),
        'G' => set(self::letter('S')),
        'W' => set(self::letter('s')),
        'X' => set(self::letter('n')),
        'C' => one_of("LW"),
        'D' => one_of("0L"),
        'E' => one_of("nS"),
        'F' => one_of("NX"),
        'K' => one_of("sAOS"),
        'M' => one_of("AS"),
        'P' => one_of("sLW"),
        'Q' | 'U' => one_of("AOS"),
        'T' => one_of("0bns"),
        'J' => {
            let path = one_of("sA");
            json!({"type": "any", "of": [array(path.clone()), set(path)]})
        }
        _ => json!({"type": "any"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_of_opas_form_and_names_nothing_forbidden() {
        let file: Value = capabilities().parse().unwrap();
        let builtins = file["builtins"].as_array().unwrap();
        for builtin in builtins {
            let name = builtin["name"].as_str().unwrap();
            assert!(builtins::forbidden(name).is_none(), "{name}");
            assert_eq!(builtin["decl"]["type"], "function", "{name}");
        }
        let named = |name: &str| builtins.iter().find(|it| it["name"] == name);
        assert_eq!(named("glob.match").unwrap()["decl"]["args"].as_array().unwrap().len(), 3);
        assert_eq!(named("plus").unwrap()["infix"], "+");
        assert!(named("http.send").is_none());
        assert_eq!(file["allow_net"], json!([]));
    }
}
