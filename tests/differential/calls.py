"""Every built-in must have OPA's value for the same arguments: see README.md, "Built-ins".

calls.py [COUNT [SEED]]: COUNT calls of each built-in (default 700) with generated arguments, and the
comparison operators. The environment is that of opa.py. An error here is allowed, because it denies;
another value than OPA's, or a value where OPA has an error, is not.
"""

import collections
import json
import os
import pathlib
import random
import sys

from opa import Opa, Ours

TEXTS = [
    "", "a", "b", "ab", "abc", "A", "aB", "ba", "aa", "aaa", " a ", "a b", "a.b", "a..b", "a.x.b", "a/b", "a/b/c", "/a", "a~1b",
    "a-b", "a,b", "prod", "PROD", "prod-a", "live", "LİVE", "İ", "ı", "ß", "ẞ", "ſ", "K", "ς", "ΑΣ", "ŉ", "ǰ", "ᾳ", "ᾈ", "ΐ", "ﬁ", "ǆ", "ǅ",
    "é", "e\u0301", "٣", "\u00a0", "a\u00a0b", "\u0085x\u200b", "\u2028", "\t x\n", "\r", "a\nb", "a\n", "日本", "👨‍👩", "\U00010400", "Ɤ", "ƛ",
    "0", "1", "-1", "10", "1.5", "-0", "+1", "010", "5.", ".5", "1e3", "1E5", "1e400", "0x10", " 1", "1_000", "Infinity", "null", "true",
    "1.0.0", "v1.0.0", "1.0", "1.0.0-a", "1.0.0-a.1", "1.0.0+b", "01.0.0", "1.0.0-", "2.10.0", "9223372036854775808.0.0", "1.0.0-01",
    "10K", "10k", "10Ki", "10m", "1.5Gi", "10KB", "10kib", "1.5KB", "0.0005kb", "1.9", "10 MB", "5x", "\"5k\"", "-1k", "1.25Mi", "0.1k",
    "YQ==", "YQ", "YR==", "YQ==\n", "/w==", "_w==", "ff", "0A", "0", "61", "w6k=", "zzz",
    "[1]", "{\"a\": 1}", "{\"a\":1,\"a\":2}", "\"\\ud800\"", "[1,]", "1.0", "\"a\"", " {} ", "[", "{\"a\":[1,{\"b\":null}]}", "01",
    "*", "?", "[a]", "{a,b}", "a*", "\\", "&&", "$1", "$", "%d", "%s", "<&>", "s", "S", "k", "_", "-", "|", ";",
]

NUMBERS = [
    "0", "1", "-1", "2", "3", "5", "-5", "7", "10", "16", "8", "63", "64", "0.5", "-0.5", "1.5", "-1.5", "2.5", "-2.5", "0.1", "0.2", "0.7", "-0.1",
    "1.0", "2.0", "-3.0", "1000", "100", "255", "-255", "9007199254740991", "9007199254740993", "9223372036854775807", "-9223372036854775808",
    "18446744073709551615", "1.1", "0.3", "3.14159", "-7", "1234567", "123456789.125",
]

PIECES = [
    "a", "b", "c", "k", "s", "1", "_", "-", "é", "ſ", ".", "^", "$", r"\b", r"\B", r"\A", r"\z", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\.", r"\-", r"\_",
    r"\/", r"\@", r"\<", r"\>", r"\pL", r"\PL", r"\p{Lu}", r"\p{Greek}", r"\p{^Greek}", r"\p{Han}", r"\pN", r"\x41", r"\x{e9}", r"\101", r"\0", r"\n",
    r"\t", r"\Qa.b\E", r"\Q*\E", r"\Q[", r"\E", r"\1", r"\h", r"\u0041", r"\C", r"\Z", r"\pX", r"\p{Latin}", "&&", "--", "~~", "||", "{", "}", "]", "a{,2}", " ", "#",
    "[", "(", ")", "|", "*", "+", "?", "(?i)", "(?s)", "(?m)", "(?U)", "(?x)", "(?R)", "(?u)", "(?-i)", "(?P<n>", "(?<n>", "(?:", "(?i:", "(?im-s:", "(?)", "(?-)", "(?=",
]

MEMBERS = [
    "a", "b", "c", "a-c", "A-Z", "0-9", "&&", "--", "~~", "[", "]", "^", "-", r"\d", r"\w", r"\W", r"\s", r"\S", r"\]", r"\[", r"\-", r"\\", r"\n", r"\x41", r"\pL", r"\PN",
    "[:alpha:]", "[:^digit:]", "[:word:]", "[:space:]", "[:nope:]", "[:", "é", "k", "s", "ſ", ".", "*", "$", "|", " ", "z-a", r"\b", r"\Q", "!", "~", "#",
]

GLOBS = [
    "*", "**", "?", "a", "b", "ab", ".", "/", "-", "[a]", "[!a]", "[ab]", "[a-c]", "[!a-c]", "[^a]", "{a,b}", "{a*,b}", "{a,}", "{,a}", "{*,?}", "{[ab],c}", "\\*", "\\", "[", "]",
    "{", "}", ",", "é", "prod", "***", "{a,{b,c}}", "[]a]", "[a-]", "!",
]


class Values:
    def __init__(self, source):
        self.random = source
        self.sets = False

    def pick(self, choices):
        return self.random.choice(choices)

    def text(self):
        if self.random.random() < 0.7:
            return self.pick(TEXTS)
        return "".join(self.pick(TEXTS)[:3] for _ in range(self.random.randrange(5)))

    def short(self):
        return "".join(self.pick("abcks1_ .-éſKßA\n&~[]^٣") for _ in range(self.random.randrange(6)))

    def count(self):
        return self.pick(["*", "+", "?", "*?", "+?", "??", "{2}", "{0,2}", "{1,}", "{0}", "{2,1}", "{1001}", "{02}", "{,2}", "{2}?", "{30}", "**", "{1,2}{2}"])

    def pattern(self, depth=0):
        made = []
        for _ in range(self.random.randrange(1, 5)):
            shape = self.random.randrange(12)
            if shape < 4:
                made.append(self.pick(PIECES[:16]))
            elif shape < 6:
                made.append(self.pick(PIECES))
            elif shape < 9:
                made.append("[" + self.pick(["", "", "^"]) + "".join(self.pick(MEMBERS) for _ in range(self.random.randrange(1, 4))) + "]")
            elif depth < 3:
                opening = self.pick(["(", "(?:", "(?i:", "(?P<n>", "(?s:", "(?U:", "(?i)(", "(?m)("])
                made.append(opening + self.pattern(depth + 1) + self.pick(["", "|", "|" + self.pattern(depth + 1)]) + ")")
            if made and self.random.randrange(3) == 0:
                made.append(self.count())
        return "".join(made)

    def glob(self):
        return "".join(self.pick(GLOBS) for _ in range(self.random.randrange(5)))

    def globbed(self):
        return self.pick(["", "a", "b", "ab", "aab", "aba", "a.b", "a.x.b", "a.x.y.b", "a/b", "x/a", "a-b", "prod", "prod-a", "é", "aé", "*", "?", "[a]", "]", "a,b", "abc", "b.a", "..", ".a", "c", "!", "^",
                          "".join(self.pick("ab.é-/") for _ in range(self.random.randrange(7)))])

    def format(self):
        verbs = ["%d", "%s", "%v", "%q", "%x", "%X", "%o", "%b", "%c", "%U", "%t", "%e", "%f", "%g", "%.2f", "%5d", "%-5s|", "%05d", "%+d", "% d", "%%", "%", "%z", "%[1]v", "%*d", "%#x", "%08.3f", "%T", "%6.2f", "%.3s", "a", "é", " "]
        return "".join(self.pick(verbs) for _ in range(self.random.randrange(1, 4)))

    def number(self):
        if self.random.randrange(4) == 0:
            return str(self.random.randrange(-20, 20))
        return self.pick(NUMBERS)

    def quoted(self):
        return json.dumps(self.text(), ensure_ascii=False)

    def value(self, depth=0):
        shape = self.random.randrange(7 if depth > 2 else 11)
        if shape < 3:
            return self.quoted()
        if shape < 5:
            return self.number()
        if shape < 7:
            return self.pick(["null", "true", "false"])
        return [self.array, self.nested, self.nested, self.array][shape - 7](depth + 1)

    def nested(self, depth):
        # Objects come before sets in OPA, after them here: a call has one kind of them.
        return self.set(depth) if self.sets else self.object(depth)

    def many(self, make):
        return [make() for _ in range(self.random.randrange(4))]

    def array(self, depth=0):
        return "[" + ", ".join(self.many(lambda: self.value(depth))) + "]"

    def object(self, depth=0):
        # A key that is a collection is written as JSON, with other escapes.
        odd = ["1", "-5", "true", "null", '["a"]', "7"]
        key = lambda: self.pick(odd) if self.random.randrange(6) == 0 else self.pick(['"a"', '"b"', '"c"', '"0"', self.quoted()])
        members = dict((key(), self.value(depth)) for _ in range(self.random.randrange(4)))
        return "{" + ", ".join(f"{k}: {v}" for k, v in members.items()) + "}"

    def set(self, depth=0):
        items = self.many(lambda: self.value(depth))
        return "{" + ", ".join(items) + "}" if items else "set()"

    def of(self, type):
        """A value of a type of the capabilities file."""
        kind = type["type"]
        if kind == "any":
            return self.of(self.pick(type["of"])) if type.get("of") else self.value()
        if kind == "array" and type["dynamic"]["type"] != "any":
            return "[" + ", ".join(self.many(lambda: self.of(type["dynamic"]))) + "]"
        if kind == "set" and type["of"]["type"] != "any":
            items = self.many(lambda: self.of(type["of"]))
            return "{" + ", ".join(items) + "}" if items else "set()"
        if kind == "object" and type["dynamic"]["value"]["type"] == "string":
            members = {self.short() or "a": self.short() for _ in range(self.random.randrange(4))}
            return json.dumps(members, ensure_ascii=False)
        return {
            "string": self.quoted, "number": self.number, "boolean": lambda: self.pick(["true", "false"]),
            "null": lambda: "null", "array": self.array, "set": self.set, "object": self.object,
        }[kind]()

    def path(self):
        return self.pick(['"a"', '"a/b"', '"/a"', '"a~1b"', '"a/0"', '"a/1/b"', '"b"', '"b/a"', '["a"]', '["a", "b"]', '["a", "0"]', '["a", 0]', '""', "[]", '"a/"', '"c/a/b"', '"0"', '["b", null]', '"a/10"', '"a/2"'])

    def arguments(self, name, types):
        self.sets = self.random.random() < 0.5
        if name in ("bits.lsh", "bits.rsh"):
            return [self.number(), str(self.random.randrange(-2, 70))]
        if name == "glob.match":
            delimiters = self.pick(["[]", "null", '["."]', '["/"]', '["-"]', '[".", "/"]', '["é"]'])
            return [json.dumps(self.glob()), delimiters, json.dumps(self.globbed(), ensure_ascii=False)]
        quoted = lambda text: json.dumps(text, ensure_ascii=False)
        if name.startswith("regex."):
            # A constant pattern that is wrong is refused at load.
            pattern = f'concat("", [{quoted(self.pattern())}])'
            text = quoted(self.pick([self.short, self.short, self.text])())
            if name == "regex.replace":
                return [text, pattern, quoted(self.pick(["x", "[$1]", "${1}x", "$1x", "$n", "${n}", "$$", "$", "$0", "${", "${1", "$01", "$2$1", ""]))]
            return [pattern, text, self.pick(["-1", "0", "1", "2", "1.5"])][: len(types)]
        if name == "sprintf":
            return [quoted(self.format()), "[" + ", ".join(self.value(2) for _ in range(self.random.randrange(4))) + "]"]
        if name == "format_int":
            return [self.number(), self.pick(["2", "8", "10", "16", "3"])]
        if name in ("+", "-", "*", "%"):
            # Beyond 53 bits and with fractions, arithmetic differs: docs/opa-differences.md.
            return [f"({self.random.randrange(-(10**7), 10**7)})" for _ in types]
        if name == "/":
            divisor = self.random.randrange(-999, 999)
            return [f"({divisor * self.random.randrange(-9999, 9999)})", f"({divisor})"]
        if name == "numbers.range_step":
            return [str(self.random.randrange(-9, 9)), str(self.random.randrange(-9, 9)), self.pick(["1", "2", "3", "0", "-1", "1.5"])]
        if name == "numbers.range":
            return [self.pick(["1", "-3", "2.0", "0.5", "4"]), self.pick(["3", "-3", "2.0", "1.5", "9"])]
        if name in ("json.filter", "json.remove"):
            paths = ", ".join(self.many(self.path)) or '"a"'
            return [self.object(), self.pick(["[%s]", "{%s}"]) % paths]
        return [self.of(type) for type in types]


def kept(value):
    """A value in which a number of another notation is equal, and a boolean is no number."""
    if isinstance(value, dict):
        return {key: kept(item) for key, item in value.items()}
    if isinstance(value, list):
        return [kept(item) for item in value]
    return ("boolean", value) if isinstance(value, bool) else value


# How a value is written depends on how a number was: `1.0` and `1e3` are the texts 1 and 1000 here.
def notation(name, call):
    return name in ("json.marshal", "sprintf") and any(mark in call for mark in (".", "e"))


# The names after `\\p` that crates/rego/src/re2.rs knows.
PROPERTIES = """L Ll Lm Lo Lt Lu M Me N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zs Cc Cf Co
Arabic Armenian Bengali Cherokee Common Cyrillic Devanagari Ethiopic Georgian Greek Gujarati Han Hangul Hebrew Hiragana
Inherited Kannada Katakana Khmer Lao Latin Mongolian Tamil Telugu Thai""".split()

FOLDED = ["[k]", "[a-zà-þ]", r"\\p{Lu}", r"\\p{Ll}", r"\\p{Lt}", r"[^\\p{Greek}]", "[Ა-Ჿ]", "[ͰͲ-ᾼ]", r"[\\x{2c60}-\\x{a7ff}]", r"[\\x{10400}-\\x{1e943}]"]


def characters(opa, ours):
    """Differences in how a function treats single characters: all up to U+1FFFF, and some beyond."""
    points = [*range(0xD800), *range(0xE000, 0x20000), *range(0x2FA00, 0x2FA30), *range(0x32300, 0x33500, 7), *range(0xE0000, 0xE01F0)]
    chunks = ["".join(map(chr, points[at : at + 4000])) for at in range(0, len(points), 4000)]
    calls = ["lower(input.s)", "upper(input.s)", "trim_space(input.s)"]
    calls += [f'regex.replace(input.s, "\\\\p{{{name}}}", "")' for name in PROPERTIES]
    calls += [f'regex.replace(input.s, "(?i){pattern}", "")' for pattern in FOLDED]
    found = 0
    for call in calls:
        modules = {"p.rego": f"package p\n\nx := {call}\n"}
        case = {"modules": modules, "data": {}, "inputs": [{"s": chunk} for chunk in chunks], "entry": "data.p.x"}
        theirs, answer = opa.judged(case)["answers"], ours.judged(case).get("strict")
        if theirs != answer:
            found += 1
            print(f"{call} differs for some character")
    return found


OPERATORS = ["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%"]


def answers(engine, calls):
    """The answer to each call: from one module, or from one for each where it is refused."""
    rules = [f"x{number} := {call}" for number, call in enumerate(calls)]
    modules = {"p.rego": "package p\n\n" + "\n".join(rules) + "\n"}
    answer = engine({"modules": modules, "data": {}, "inputs": [{}], "entry": [f"data.p.x{at}" for at in range(len(calls))]})
    if "refused" not in answer:
        return answer["answers"]
    if len(calls) == 1:
        return [{"refused": answer["refused"]}]
    half = len(calls) // 2
    return answers(engine, calls[:half]) + answers(engine, calls[half:])


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 700
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    only = sys.argv[3:]
    opa, ours = Opa(), Ours()
    tally, failures = collections.Counter(), collections.Counter()
    root = pathlib.Path(os.environ["ROOT"])
    fixture = json.loads((root / "tests/it/policies/opa_builtins.json").read_text())
    confirmed = answers(opa.judged, [case["call"] for case in fixture])
    for case, theirs in zip(fixture, confirmed):
        if case.get("opa") != theirs.get("value"):
            failures["fixture"] += 1
            print(f"OPA does not mean this by {case}: {theirs}")
    if not only and count >= 30:
        failures["characters"] = characters(opa, ours)
    listed = ours.judged({"list": True})["builtins"]
    table = [(it["name"], it["decl"].get("args", [])) for it in listed if "infix" not in it]
    anything = {"type": "any"}
    operators = [(sign, [anything if sign[0] in "=!<>" else {"type": "number"}] * 2) for sign in OPERATORS]
    for name, types in table + operators:
        if name in ("print", "internal.print") or only and not any(name.startswith(it) for it in only):
            continue
        source = Values(random.Random(f"{seed}.{name}"))
        calls = []
        for _ in range(count):
            arguments = source.arguments(name, types)
            is_operator = (name, types) in operators
            calls.append(f" {name} ".join(arguments) if is_operator else f"{name}({', '.join(arguments)})")
        for at in range(0, count, 20):
            chunk = calls[at : at + 20]
            for call, theirs, answer in zip(chunk, answers(opa.judged, chunk), answers(ours.judged, chunk)):
                tally["calls"] += 1
                if "error" in answer or "refused" in answer:
                    tally["errors here"] += 1
                    if "value" in theirs:
                        tally["errors here where OPA has a value"] += 1
                        tally[f"    of {name}"] += 1
                        if only and tally[f"    of {name}"] < 6:
                            print(f"{call}\n    OPA {str(theirs)[:200]}, here {str(answer)[:200]}")
                elif "refused" in theirs:
                    tally["refused by OPA"] += 1
                elif kept(theirs) != kept(answer) and not notation(name, call):
                    failures[name] += 1
                    if failures[name] <= 6:
                        print(f"{call}\n    OPA {str(theirs)[:200]}, here {str(answer)[:200]}")
    for kind, times in tally.items():
        print(f"{times:8} {kind}")
    print(f"{sum(failures.values()):8} differences {dict(failures)}")
    sys.exit(1 if +failures or not tally["calls"] else 0)


if __name__ == "__main__":
    main()
