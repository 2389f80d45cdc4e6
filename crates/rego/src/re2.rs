//! Reads patterns in the syntax of RE2, which OPA's `regex.*` take, into the form that Rust's matcher
//! runs.
//!
//! Source: Go's documentation of `regexp/syntax`. Rust's own syntax gives the same text another
//! meaning: `&&`, `--` and `~~` are operators in a class, `\d`, `\s`, `\w` and `\b` know Unicode,
//! `\<` is a boundary, `(?x)` ignores spaces. So no pattern reaches Rust's parser. The reader is
//! linear in the pattern, keeps its own stack, and builds the tree that the parser would have built.
//!
//! Two kinds of failure: [`Fault::Invalid`] for what RE2 refuses too, and [`Fault::Unsupported`] for
//! what RE2 reads and we cannot read exactly. Both are errors of the built-in, which deny.

use std::sync::OnceLock;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{
    Capture, Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition,
};

/// Most repetitions of one expression, also of nested ones together: RE2's bound.
const REPEAT_MAX: u32 = 1_000;

/// Deepest nesting of groups. Rust's compiler recurses over the tree.
const NESTING_MAX: usize = 64;

/// The version of Unicode that Go's tables have. A later version adds letters, to which a pattern of
/// OPA is blind.
const UNICODE: &str = r"\p{Age=15.0}";

/// The general categories that a pattern may name. The set of code points of each is compared with
/// OPA's (`tests/differential/calls.py`).
const CATEGORIES: [&str; 30] = [
    "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe",
    "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zs", "Cc", "Cf", "Co",
];

/// The scripts that a pattern may name.
const SCRIPTS: [&str; 25] = [
    "Arabic",
    "Armenian",
    "Bengali",
    "Cherokee",
    "Common",
    "Cyrillic",
    "Devanagari",
    "Ethiopic",
    "Georgian",
    "Greek",
    "Gujarati",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Inherited",
    "Kannada",
    "Katakana",
    "Khmer",
    "Lao",
    "Latin",
    "Mongolian",
    "Tamil",
    "Telugu",
    "Thai",
];

/// The names of ASCII classes and their ranges, sorted.
const POSIX: [(&str, &[(char, char)]); 14] = [
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7f')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", &[('0', '9')]),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

const DIGIT: &[(char, char)] = &[('0', '9')];
const SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// Why a pattern cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// RE2 refuses it.
    Invalid(String),
    /// RE2 reads it, or may; this reader has no exact equal for it.
    Unsupported(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(why) => write!(to, "RE2 refuses the pattern: {why}"),
            Self::Unsupported(why) => write!(to, "the pattern cannot be run as RE2 would: {why}"),
        }
    }
}

fn invalid<T>(why: &str) -> Result<T, Fault> {
    Err(Fault::Invalid(why.to_owned()))
}

fn unsupported<T>(why: &str) -> Result<T, Fault> {
    Err(Fault::Unsupported(why.to_owned()))
}

/// Whether a character is assigned in the version of Unicode that Go's tables have.
pub(super) fn is_assigned(character: char) -> bool {
    contains(assigned(), character)
}

/// Whether Go's `strconv.Quote` leaves a character as it is: letters, marks, numbers, punctuation,
/// symbols, and the space.
pub(super) fn is_shown(character: char) -> bool {
    static SHOWN: OnceLock<ClassUnicode> = OnceLock::new();
    let shown = SHOWN.get_or_init(|| {
        let mut shown =
            property(r"[ \p{L}\p{M}\p{N}\p{P}\p{S}]").unwrap_or_else(ClassUnicode::empty);
        shown.intersect(assigned());
        shown
    });
    contains(shown, character)
}

fn contains(class: &ClassUnicode, character: char) -> bool {
    let ranges = class.ranges();
    let at = ranges.partition_point(|range| range.end() < character);
    ranges.get(at).is_some_and(|range| range.start() <= character)
}

fn assigned() -> &'static ClassUnicode {
    static ASSIGNED: OnceLock<ClassUnicode> = OnceLock::new();
    ASSIGNED.get_or_init(|| property(UNICODE).unwrap_or_else(ClassUnicode::empty))
}

/// The code points of `\p{...}` in Rust's tables.
fn property(written: &str) -> Option<ClassUnicode> {
    let parsed = ParserBuilder::new().build().parse(written).ok()?;
    match parsed.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        _ => None,
    }
}

fn ranges(of: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(of.iter().map(|(low, high)| ClassUnicodeRange::new(*low, *high)))
}

/// Adds the other cases of each character, as of Go's version of Unicode.
fn folded(mut class: ClassUnicode) -> Result<ClassUnicode, Fault> {
    /// Pairs of letters that later versions of Unicode fold.
    const LATER: [(char, char); 6] = [
        ('\u{390}', '\u{390}'),
        ('\u{3b0}', '\u{3b0}'),
        ('\u{1fd3}', '\u{1fd3}'),
        ('\u{1fe3}', '\u{1fe3}'),
        ('\u{fb05}', '\u{fb05}'),
        ('\u{fb06}', '\u{fb06}'),
    ];
    static WITH_CASE: OnceLock<ClassUnicode> = OnceLock::new();
    let with_case = WITH_CASE.get_or_init(|| {
        let mut with_case = assigned().clone();
        with_case.difference(&ranges(&LATER));
        with_case
    });
    let before = class.clone();
    class.intersect(with_case);
    if class.try_case_fold_simple().is_err() {
        return unsupported("case folding is not available");
    }
    class.intersect(with_case);
    class.union(&before);
    Ok(class)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "RE2 has these four flags")]
struct Flags {
    /// `i`
    fold: bool,
    /// `m`
    multi_line: bool,
    /// `s`
    dot_all: bool,
    /// `U`
    swap_greed: bool,
}

/// A part of the tree, and how often the repetitions in it multiply.
#[derive(Debug, Clone)]
struct Part {
    tree: Hir,
    repeats: u32,
}

/// A group that is not closed yet, or the whole pattern.
struct Open {
    /// The branches before the last `|`.
    branches: Vec<Hir>,
    /// The parts of the branch that is being read.
    parts: Vec<Part>,
    repeats: u32,
    /// The flags before the group.
    flags: Flags,
    /// The number and name of the capture, where it is one.
    capture: Option<(u32, Option<Box<str>>)>,
}

impl Open {
    fn new(flags: Flags, capture: Option<(u32, Option<Box<str>>)>) -> Self {
        Self { branches: Vec::new(), parts: Vec::new(), repeats: 1, flags, capture }
    }

    fn end_branch(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        self.repeats = parts.iter().map(|part| part.repeats).fold(self.repeats, u32::max);
        self.branches.push(Hir::concat(parts.into_iter().map(|part| part.tree).collect()));
    }

    fn close(mut self) -> Part {
        self.end_branch();
        let tree = Hir::alternation(self.branches);
        let tree = match self.capture {
            Some((index, name)) => Hir::capture(Capture { index, name, sub: Box::new(tree) }),
            None => tree,
        };
        Part { tree, repeats: self.repeats }
    }
}

/// What stands before an operator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Something that can be repeated, or nothing.
    Operand,
    /// A repetition. RE2 refuses another one right after it.
    Repetition,
    /// Flags, or an empty quotation: RE2 repeats what stands before them.
    Nothing,
}

/// The tree of a pattern, for the matcher.
///
/// # Errors
///
/// RE2 refuses the pattern, or reads it in a way that has no equal here.
pub(super) fn read(pattern: &str) -> Result<Hir, Fault> {
    let whole = Open::new(Flags::default(), None);
    let mut reader = Reader {
        rest: pattern,
        flags: Flags::default(),
        open: Vec::new(),
        last: whole,
        captures: 0,
        names: Vec::new(),
    };
    reader.all()?;
    if !reader.open.is_empty() {
        return invalid("`(` is not closed");
    }
    Ok(reader.last.close().tree)
}

struct Reader<'a> {
    rest: &'a str,
    flags: Flags,
    /// The groups around `last`.
    open: Vec<Open>,
    last: Open,
    captures: u32,
    names: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn next_if(&mut self, expected: &str) -> bool {
        let found = self.rest.strip_prefix(expected);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn push(&mut self, tree: Hir) {
        self.last.parts.push(Part { tree, repeats: 1 });
    }

    fn push_class(&mut self, class: ClassUnicode) {
        self.push(Hir::class(Class::Unicode(class)));
    }

    fn literal(&mut self, character: char) -> Result<(), Fault> {
        let class = ranges(&[(character, character)]);
        let class = if self.flags.fold { folded(class)? } else { class };
        self.push_class(class);
        Ok(())
    }

    fn all(&mut self) -> Result<(), Fault> {
        let mut before = Before::Operand;
        loop {
            let at = self.rest;
            let Some(next) = self.next() else { return Ok(()) };
            let mut after = Before::Operand;
            match next {
                '(' => {
                    if self.group()? {
                        after = Before::Nothing;
                    }
                }
                ')' => self.close()?,
                '|' => self.last.end_branch(),
                '^' => {
                    let look = if self.flags.multi_line { Look::StartLF } else { Look::Start };
                    self.push(Hir::look(look));
                }
                '$' => {
                    let look = if self.flags.multi_line { Look::EndLF } else { Look::End };
                    self.push(Hir::look(look));
                }
                '.' => {
                    let mut any = ClassUnicode::empty();
                    if !self.flags.dot_all {
                        any.push(ClassUnicodeRange::new('\n', '\n'));
                    }
                    any.negate();
                    self.push_class(any);
                }
                '[' => {
                    let class = self.class()?;
                    self.push_class(class);
                }
                '*' => after = self.repeat(before, 0, None)?,
                '+' => after = self.repeat(before, 1, None)?,
                '?' => after = self.repeat(before, 0, Some(1))?,
                '{' => match counts(self.rest)? {
                    Some((min, max, rest)) => {
                        self.rest = rest;
                        after = self.repeat(before, min, max)?;
                    }
                    None => self.literal('{')?,
                },
                '\\' => {
                    self.rest = at;
                    if self.escaped()? {
                        after = Before::Nothing;
                    }
                }
                other => self.literal(other)?,
            }
            before = after;
        }
    }

    fn repeat(&mut self, before: Before, min: u32, max: Option<u32>) -> Result<Before, Fault> {
        let greedy = self.next_if("?") == self.flags.swap_greed;
        match before {
            Before::Operand => {}
            Before::Repetition => return invalid("a repetition of a repetition"),
            Before::Nothing => return unsupported("a repetition after flags or an empty `\\Q\\E`"),
        }
        let Some(operand) = self.last.parts.pop() else {
            return invalid("a repetition of nothing");
        };
        if max == Some(0) && operand.tree.properties().explicit_captures_len() > 0 {
            // The matcher would not count the group.
            return unsupported("a group that is repeated 0 times");
        }
        let times = max.unwrap_or(min);
        let repeats = operand.repeats.saturating_mul(times.max(1));
        let counted = min >= 2 || max.is_some_and(|max| max >= 2);
        if counted && repeats > REPEAT_MAX {
            return invalid("more than 1000 repetitions");
        }
        let repeats = if max == Some(0) { 1 } else { repeats };
        let sub = Box::new(operand.tree);
        let tree = Hir::repetition(Repetition { min, max, greedy, sub });
        self.last.parts.push(Part { tree, repeats });
        Ok(Before::Repetition)
    }

    /// Reads what follows `(`. Says whether it was only flags.
    fn group(&mut self) -> Result<bool, Fault> {
        let mut capture = None;
        let outer = self.flags;
        if self.next_if("?P<") || self.next_if("?<") {
            let Some((name, rest)) = self.rest.split_once('>') else {
                return invalid("the name of a group is not closed");
            };
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(word) {
                return invalid("the name of a group is malformed");
            }
            if self.names.contains(&name) {
                // RE2 allows it where one group is inside the other.
                return unsupported("two groups have one name");
            }
            self.names.push(name);
            self.rest = rest;
            capture = Some(Some(Box::from(name)));
        } else if self.next_if("?") {
            if self.flags()? {
                return Ok(true);
            }
        } else {
            capture = Some(None);
        }
        let capture = capture.map(|name| {
            self.captures = self.captures.saturating_add(1);
            (self.captures, name)
        });
        if self.open.len() >= NESTING_MAX {
            return unsupported("groups nest deeper than 64 levels");
        }
        let group = Open::new(outer, capture);
        self.open.push(std::mem::replace(&mut self.last, group));
        Ok(false)
    }

    /// Reads flags after `(?`. Says whether they end with `)` and so hold for the rest of the group.
    fn flags(&mut self) -> Result<bool, Fault> {
        let mut flags = self.flags;
        let (mut on, mut some) = (true, false);
        loop {
            let flag = match self.next() {
                Some('i') => &mut flags.fold,
                Some('m') => &mut flags.multi_line,
                Some('s') => &mut flags.dot_all,
                Some('U') => &mut flags.swap_greed,
                Some('-') if on => {
                    (on, some) = (false, false);
                    continue;
                }
                Some(end @ (':' | ')')) if on || some => {
                    self.flags = flags;
                    return Ok(end == ')');
                }
                _ => return invalid("a group begins with `(?` and no known flag"),
            };
            *flag = on;
            some = true;
        }
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(outer) = self.open.pop() else { return invalid("`)` closes nothing") };
        let group = std::mem::replace(&mut self.last, outer);
        self.flags = group.flags;
        self.last.parts.push(group.close());
        Ok(())
    }

    /// Reads an escape outside a class. Says whether it stands for nothing.
    fn escaped(&mut self) -> Result<bool, Fault> {
        if self.next_if(r"\Q") {
            let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
            self.rest = rest;
            for character in quoted.chars() {
                self.literal(character)?;
            }
            return Ok(quoted.is_empty());
        }
        let look = [
            (r"\A", Look::Start),
            (r"\z", Look::End),
            (r"\b", Look::WordAscii),
            (r"\B", Look::WordAsciiNegate),
        ];
        for (written, look) in look {
            if self.next_if(written) {
                self.push(Hir::look(look));
                return Ok(false);
            }
        }
        if let Some(class) = self.named()? {
            self.push_class(class);
            return Ok(false);
        }
        let character = self.escape()?;
        self.literal(character)?;
        Ok(false)
    }

    /// `\d`, `\pN` and the like; `None` where something else follows.
    fn named(&mut self) -> Result<Option<ClassUnicode>, Fault> {
        let perl = [
            (r"\d", DIGIT, false),
            (r"\D", DIGIT, true),
            (r"\s", SPACE, false),
            (r"\S", SPACE, true),
            (r"\w", WORD, false),
            (r"\W", WORD, true),
        ];
        for (written, of, negated) in perl {
            if self.next_if(written) {
                return self.ascii(of, negated).map(Some);
            }
        }
        let mut negated = if self.next_if(r"\p") {
            false
        } else if self.next_if(r"\P") {
            true
        } else {
            return Ok(None);
        };
        let mut name = self.rest;
        match self.next() {
            Some('{') => {
                let Some((named, rest)) = self.rest.split_once('}') else {
                    return invalid("`\\p{` is not closed");
                };
                (name, self.rest) = (named, rest);
                if let Some(rest) = name.strip_prefix('^') {
                    (name, negated) = (rest, !negated);
                }
            }
            Some(letter) => name = name.get(..letter.len_utf8()).unwrap_or_default(),
            None => return invalid("`\\p` without a name"),
        }
        let written = if CATEGORIES.contains(&name) {
            format!("\\p{{{name}}}")
        } else if SCRIPTS.contains(&name) {
            format!("\\p{{Script={name}}}")
        } else {
            return unsupported("the name after `\\p` is none of those that are known to agree");
        };
        let Some(mut class) = property(&written) else {
            return unsupported("a property is not available");
        };
        class.intersect(assigned());
        if self.flags.fold {
            class = folded(class)?;
        }
        if negated {
            class.negate();
        }
        Ok(Some(class))
    }

    fn ascii(&self, of: &[(char, char)], negated: bool) -> Result<ClassUnicode, Fault> {
        let mut class = ranges(of);
        if self.flags.fold {
            class = folded(class)?;
        }
        if negated {
            class.negate();
        }
        Ok(class)
    }

    /// Reads what follows `[`, up to its `]`.
    fn class(&mut self) -> Result<ClassUnicode, Fault> {
        let negated = self.next_if("^");
        let mut class = ClassUnicode::empty();
        let mut first = true;
        while first || !self.next_if("]") {
            first = false;
            if let Some(inner) = self.rest.strip_prefix("[:")
                && let Some((name, rest)) = inner.split_once(":]")
            {
                let (name, negated) = name.strip_prefix('^').map_or((name, false), |it| (it, true));
                let Some((_, of)) = POSIX.iter().find(|(known, _)| *known == name) else {
                    return invalid("an unknown class between `[:` and `:]`");
                };
                self.rest = rest;
                class.union(&self.ascii(of, negated)?);
                continue;
            }
            if let Some(named) = self.named()? {
                class.union(&named);
                continue;
            }
            let low = self.member()?;
            let mut high = low;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") && self.rest.len() > 1 {
                self.next();
                high = self.member()?;
            }
            if high < low {
                return invalid("a range runs backwards");
            }
            let range = ranges(&[(low, high)]);
            class.union(&if self.flags.fold { folded(range)? } else { range });
        }
        if negated {
            class.negate();
        }
        Ok(class)
    }

    fn member(&mut self) -> Result<char, Fault> {
        if self.rest.starts_with('\\') {
            return self.escape();
        }
        self.next().map_or_else(|| invalid("`[` is not closed"), Ok)
    }

    /// Reads an escape that stands for one character.
    fn escape(&mut self) -> Result<char, Fault> {
        self.next();
        let Some(escaped) = self.next() else { return invalid("ends after `\\`") };
        match escaped {
            'a' => return Ok('\x07'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            'x' => return self.hexadecimal(),
            '0'..='7' => {
                let octal = |character: char| character.to_digit(8);
                let more = self.rest.chars().take(2).take_while(|next| octal(*next).is_some());
                let more = more.count();
                if escaped == '0' || more > 0 {
                    let (digits, rest) =
                        self.rest.split_at_checked(more).unwrap_or(("", self.rest));
                    self.rest = rest;
                    let value = u32::from_str_radix(&format!("{escaped}{digits}"), 8).ok();
                    return value
                        .and_then(char::from_u32)
                        .map_or_else(|| invalid("an octal escape is no character"), Ok);
                }
            }
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => return Ok(other),
            _ => {}
        }
        invalid("an escape that RE2 does not have")
    }

    fn hexadecimal(&mut self) -> Result<char, Fault> {
        const BAD: &str = "`\\x` without a hexadecimal number of a character";
        let digits: &'a str;
        if self.next_if("{") {
            let Some((inner, rest)) = self.rest.split_once('}') else { return invalid(BAD) };
            (digits, self.rest) = (inner, rest);
        } else {
            let Some((two, rest)) = self.rest.split_at_checked(2) else { return invalid(BAD) };
            (digits, self.rest) = (two, rest);
        }
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return invalid(BAD);
        }
        match u32::from_str_radix(digits.trim_start_matches('0'), 16) {
            Ok(value) => match char::from_u32(value) {
                Some(character) => Ok(character),
                None if (0xd800..0xe000).contains(&value) => {
                    unsupported("half of a surrogate pair")
                }
                None => invalid(BAD),
            },
            Err(_) if digits.bytes().all(|byte| byte == b'0') => Ok('\0'),
            Err(_) => invalid(BAD),
        }
    }
}

/// The minimum and maximum of a counted repetition, after its `{`.
type Counts<'a> = (u32, Option<u32>, &'a str);

/// Reads `n}`, `n,}` or `n,m}`; `None` where the `{` is a literal.
fn counts(rest: &str) -> Result<Option<Counts<'_>>, Fault> {
    let Some((min, rest)) = count(rest) else { return Ok(None) };
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => match count(rest) {
            Some((max, rest)) => (Some(max), rest),
            None => return Ok(None),
        },
    };
    let Some(rest) = rest.strip_prefix('}') else { return Ok(None) };
    if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min) {
        return invalid("more than 1000 repetitions, or a maximum below the minimum");
    }
    Ok(Some((min, max, rest)))
}

/// Reads digits without a leading zero.
fn count(text: &str) -> Option<(u32, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at_checked(end)?;
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}
