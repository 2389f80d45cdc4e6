//! What the values of a policy may be, as far as names of members are concerned, and what the
//! built-ins make of them. The parent module follows values with it.

use std::ops::{BitAnd, BitOr};

use crate::alias::PARTS;
use crate::builtins;

/// Built-ins whose result is the same for a name and for its look-alikes in another case.
const FOLDING: [&str; 3] = ["lower", "trim_space", "upper"];

/// Built-ins that take members of an object by their names.
pub(super) const SELECTING: [&str; 4] =
    ["json.filter", "json.remove", "object.filter", "object.remove"];

/// What a value may be: a set of the constants below. What the policy or its data write is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Marks(u16);

impl Marks {
    pub(super) const NONE: Self = Self(0);
    /// A part of what a sender names and fills.
    pub(super) const SENT: Self = Self(1);
    /// Another part of the input.
    pub(super) const INPUT: Self = Self(1 << 1);
    /// A text that a built-in made, of no name.
    pub(super) const MADE: Self = Self(1 << 2);
    /// The name of a member of what is sent.
    pub(super) const NAME: Self = Self(1 << 3);
    /// A name in lower or upper case.
    pub(super) const FOLDED: Self = Self(1 << 4);
    /// Any other text made of a name.
    pub(super) const DERIVED: Self = Self(1 << 5);
    /// A part of a text that was sent and parsed as JSON.
    pub(super) const PARSED: Self = Self(1 << 6);
    /// The name of a member of such a part.
    pub(super) const PARSED_NAME: Self = Self(1 << 7);
    /// What is sent as one text, in which its names are.
    pub(super) const SPELT: Self = Self(1 << 8);

    /// A name, or a text made of one.
    pub(super) const NAMES: Self =
        Self(Self::NAME.0 | Self::PARSED_NAME.0 | Self::FOLDED.0 | Self::DERIVED.0);

    /// Whether it is, or may be, one of these.
    pub(super) fn any(self, of: Self) -> bool {
        (self & of) != Self::NONE
    }
}

impl BitOr for Marks {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Marks {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What is known of a value and, as one, of all its elements and members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Value {
    /// What they may be.
    pub(super) own: Marks,
    /// What the names of their members may be.
    pub(super) names: Marks,
}

impl Value {
    pub(super) fn of(own: Marks) -> Self {
        Self { own, names: Marks::NONE }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { own: self.own | other.own, names: self.names | other.names }
    }
}

/// What a path below `input` names.
pub(super) fn of_input(path: &[&str]) -> Value {
    if PARTS.iter().any(|part| path.starts_with(part) || part.starts_with(path)) {
        Value { own: Marks::SENT, names: Marks::NAME }
    } else {
        Value::of(Marks::INPUT)
    }
}

/// The result of a built-in.
pub(super) fn of_call(name: &str, params: &[Value]) -> Value {
    let all = params.iter().fold(Value::default(), |all, it| all.and(*it));
    let sent = all.own.any(Marks::SENT | Marks::PARSED);
    match name {
        "object.keys" => return Value::of(all.names),
        "object.get" => {
            let [object, _, default] = params else { return all };
            return object.and(*default);
        }
        "json.unmarshal" if sent => {
            return Value { own: Marks::PARSED, names: Marks::PARSED_NAME };
        }
        "json.unmarshal" => return Value::of(all.own),
        "json.marshal" if all.names.any(Marks::NAME) => {
            return Value::of(Marks::SENT | Marks::SPELT);
        }
        "type_name" => return Value::default(),
        _ if SELECTING.contains(&name) => return params.first().copied().unwrap_or_default(),
        _ => {}
    }
    let result = builtins::find(name).and_then(|it| it.types.rsplit('>').next());
    match result {
        // A truth value or a number.
        None | Some("b" | "n" | "N") => Value::default(),
        Some("s" | "L" | "Z") => {
            let names = Marks::NAME | Marks::PARSED_NAME | Marks::FOLDED;
            let made = if all.own.any(Marks::DERIVED) {
                Marks::DERIVED
            } else if all.own.any(names) {
                if FOLDING.contains(&name) { Marks::FOLDED } else { Marks::DERIVED }
            } else {
                Marks::MADE
            };
            Value::of(if sent { made | Marks::SENT } else { made })
        }
        Some(_) => all,
    }
}
