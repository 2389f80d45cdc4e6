"""Generated policies must mean on both engines what they mean in OPA: see README.md.

opa.py [COUNT [SEED]]: COUNT policies (default 3000), each with eight inputs. $OPA is OPA's library,
$POLICIES the program that evaluates on our engines, $ROOT the checkout.
"""

import collections
import ctypes
import itertools
import json
import os
import pathlib
import random
import re
import subprocess
import sys


class Opa:
    """OPA, in this process: the library of the package opa-golib-python-bindings."""

    def __init__(self):
        self.lib = ctypes.CDLL(os.environ["OPA"])
        self.lib.OpaNew.restype = ctypes.c_uint64
        self.lib.OpaDestroy.argtypes = [ctypes.c_uint64]
        self.lib.OpaFreeString.argtypes = [ctypes.c_void_p]
        for name in ("OpaAddPolicy", "OpaAddData"):
            function = getattr(self.lib, name)
            function.restype = ctypes.c_void_p
            function.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_char_p]
        self.lib.OpaEvalDocument.restype = ctypes.c_void_p
        self.lib.OpaEvalDocument.argtypes = [ctypes.c_uint64] + [ctypes.c_char_p] * 2 + [ctypes.c_int] * 2

    def call(self, function, *arguments):
        pointer = function(*arguments)
        answer = json.loads(ctypes.string_at(pointer).decode())
        self.lib.OpaFreeString(pointer)
        return answer

    def judged(self, case):
        """`refused` with OPA's message, or `answers`, one for each input."""
        engine = self.lib.OpaNew()
        try:
            for path, text in case["modules"].items():
                answer = self.call(self.lib.OpaAddPolicy, engine, path.encode(), text.encode())
                if "error" in answer:
                    return {"refused": answer["error"]["message"]}
            self.call(self.lib.OpaAddData, engine, b"", json.dumps(case["data"]).encode())
            answers = []
            entries = [case["entry"]] if isinstance(case["entry"], str) else case["entry"]
            for entry, given in itertools.product(entries, case["inputs"]):
                entry = entry.removeprefix("data.").encode()
                answer = self.call(self.lib.OpaEvalDocument, engine, entry, json.dumps(given).encode(), 0, 0)
                if "error" in answer:
                    if answer["error"]["code"] in ("prepare_error", "parse_error", "compile_error"):
                        return {"refused": answer["error"]["message"]}
                    answers.append({"error": answer["error"]["message"]})
                elif answer["result"]:
                    answers.append({"value": answer["result"][0]["expressions"][0]["value"]})
                else:
                    answers.append({})
            return {"answers": answers}
        finally:
            self.lib.OpaDestroy(engine)


class Ours:
    """Both engines, in a child process."""

    def __init__(self):
        pipe = subprocess.PIPE
        self.child = subprocess.Popen([os.environ["POLICIES"]], stdin=pipe, stdout=pipe, text=True)

    def judged(self, case):
        self.child.stdin.write(json.dumps(case) + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())


WORDS = ["a", "b", "ab", "prod", "dev"]


# What stands for a helper where too many are unfinished.
INSTEAD = {
    "flag": "input.b", "value": "input.t", "set": "data.l", "map": "data.m", "f": "is_string", "g": "lower",
    "truth": "input.b", "bools": "{true}", "yes": "is_boolean", "no": "is_null", "same": "is_boolean",
}


class Policy:
    """A random policy. Every rule, function and variable that it declares is used."""

    def __init__(self, random):
        self.random = random
        self.helpers = {}
        self.names = (f"v{n}" for n in itertools.count())
        self.depth = 0
        # One policy in three mentions variables that may have no value.
        self.loose = ["i", "j", "k"] if random.random() < 0.35 else []
        self.modifiers = random.random() < 0.3
        # One in three has only what the compiled engine has.
        self.simple = random.random() < 0.35
        if self.simple:
            self.loose, self.modifiers = [], False
        self.text = self.module()

    def pick(self, *choices):
        return self.random.choice(choices)

    def one_in(self, n):
        return self.random.randrange(n) == 0

    def chance(self):
        """Whether to nest further."""
        return self.depth < 3 and self.random.random() < 0.55

    def nested(self, make, *arguments):
        self.depth += 1
        try:
            return make(*arguments)
        finally:
            self.depth -= 1

    def member(self, known):
        """`in`, with one operand or both, or with a key, as a value."""
        items = f"{self.nested(self.operand, known)} in {self.nested(self.collection, known)}"
        if self.one_in(4) and not self.simple:
            keys = self.pick(*(key for key in ("0", "1", '"a"', "input.n", "input.s")))
            return f"({keys}, {items})"
        return f"({items})"

    def operand(self, known):
        return self.member(known) if self.depth < 3 and self.one_in(8) else self.string(known)

    def boolean(self, known):
        """A value that may be false."""
        if self.depth < 3 and self.one_in(4):
            return self.nested(lambda: self.pick(
                lambda: f"({self.string(known)} == {self.string(known)})",
                lambda: f"startswith({self.string(known)}, {self.string(known)})",
                lambda: f"[{self.boolean(known)}, {self.string(known)}][0]",
                lambda: '{"b": ' + self.boolean(known) + f', "s": {self.string(known)}' + '}["b"]',
                lambda: f"{self.helper('same')}({self.boolean(known)})",
                lambda: self.helper("truth"),
            )())
        return self.member(known)

    def judged(self, known):
        """A condition on the value of a boolean."""
        value = lambda: self.boolean(known)
        return self.pick(
            lambda: f"{value()} == {self.pick('true', 'false')}",
            lambda: f"{self.pick('true', 'false')} != {value()}",
            lambda: f"{value()} == {value()}",
            lambda: f"[{value()}] == [{self.pick('true', 'false')}]",
            lambda: f"{{{value()}, {value()}}} != {{{self.pick('true', 'false')}}}",
            lambda: '{"a": ' + value() + ', "b": 1} == {"a": ' + self.pick("true", "false") + ', "b": 1}',
            lambda: f"{self.helper('yes')}({value()})",
            lambda: f"{self.helper('no')}({value()})",
            lambda: f"is_boolean({value()})",
            lambda: f"object.get(input.o, {self.string(known)}, {value()}) == {value()}",
            lambda: f"count([1 | {value()} == {self.pick('true', 'false')}]) == {self.pick('0', '1')}",
            lambda: f"count([{value()} | true]) == {self.pick('0', '1')}",
            lambda: "{false: 1, true: 2}[" + value() + f"] == {self.pick('1', '2')}",
            lambda: f"{self.helper('bools')}[{value()}]",
            lambda: value(),
        )()

    def string(self, known):
        if self.loose and self.one_in(7):
            return self.random.choice(self.loose)
        if known and self.one_in(3):
            return self.random.choice(known)
        if not self.chance():
            return self.pick(f'"{self.pick(*WORDS)}"', "input.s", "input.t", "input.o.s", "input.l[0]", "input.s")
        return self.nested(lambda: self.pick(
            lambda: f"lower({self.string(known)})",
            lambda: f'concat("", [{self.string(known)}, {self.string(known)}])',
            lambda: f"input.o[{self.string(known)}]",
            lambda: f"data.m[{self.string(known)}]",
            lambda: f'object.get(input, {self.string(known)}, {self.string(known)})',
            lambda: '{"a": "b", "prod": "dev"}' + f"[{self.string(known)}]",
            lambda: f"input.l[{self.pick(*(self.loose or ['0']), '_')}]",
            lambda: f"data.l[{self.pick(*(self.loose or ['1']), '_')}]",
            lambda: self.helper("value"),
            lambda: f"{self.helper('map')}[{self.string(known)}]",
            lambda: f"{self.helper('g')}({self.string(known)})",
        )())

    def number(self, known):
        if not self.chance():
            return self.pick("0", "1", "2", "input.n")
        return self.nested(lambda: self.pick(
            lambda: f"count({self.collection(known)})",
            lambda: f"count({self.string(known)})",
            lambda: f"sum([{self.number(known)}, {self.number(known)}])",
            lambda: f"data.n[{self.string(known)}]",
        )())

    def collection(self, known):
        if not self.chance():
            return self.pick("input.l", "data.l", '["a", "b"]', '{"a", "dev"}', "input.o.l")
        return self.nested(lambda: self.pick(
            lambda: f"[{self.string(known)}, {self.string(known)}]",
            lambda: "{" + f"{self.string(known)}, {self.string(known)}" + "}",
            lambda: self.comprehension(known),
            lambda: "object.keys(input.o)",
            lambda: self.helper("set"),
        )())

    def comprehension(self, known):
        name = next(self.names)
        inner = [*known, name]
        body = [f"some {name} in {self.collection(known)}", *self.statements(inner, 1)]
        opened, closed = self.pick("[]", "{}")
        head = self.pick(name, name, self.string(inner))
        if name not in "".join(body[1:]) + head:
            head = name
        return f"{opened}{head} | {'; '.join(body)}{closed}"

    def condition(self, known):
        if self.depth < 3 and self.one_in(4):
            return self.nested(self.judged, known)
        if not self.chance():
            return self.pick(
                f"{self.string(known)} == {self.string(known)}",
                f"{self.string(known)} != {self.string(known)}",
                f"startswith({self.string(known)}, {self.string(known)})",
                f"{self.string(known)} in {self.collection(known)}",
                "input.b", "input.o", "input.s",
            )
        return self.nested(lambda: self.pick(
            lambda: f"{self.string(known)} == {self.string(known)}",
            lambda: f"{self.string(known)} != {self.string(known)}",
            lambda: f"{self.string(known)} < {self.string(known)}",
            lambda: f"{self.number(known)} {self.pick('==', '>', '<=', '!=')} {self.number(known)}",
            lambda: f"contains({self.string(known)}, {self.string(known)})",
            lambda: f"startswith({self.string(known)}, {self.string(known)})",
            lambda: f"{self.string(known)} in {self.collection(known)}",
            lambda: f"{self.collection(known)} == {self.collection(known)}",
            lambda: f"is_string({self.string(known)})",
            lambda: f'regex.match("^a", {self.string(known)})',
            lambda: f'glob.match("a*", [], {self.string(known)})',
            lambda: self.helper("flag"),
            lambda: f"{self.helper('set')}[{self.string(known)}]",
            lambda: f"{self.helper('f')}({self.string(known)})",
            lambda: f"{self.pick('true', 'false')} == ({self.string(known)} == {self.string(known)})",
            lambda: f"[{self.string(known)}, {self.string(known)}] == [{self.string(known)}, {self.string(known)}]",
            lambda: f"data.m[{self.string(known)}]",
            lambda: f"input.o[{self.string(known)}] == {self.string(known)}",
        )())

    def modifier(self, known):
        if not self.modifiers or not self.one_in(3):
            return ""
        return " with " + self.pick(
            lambda: f"input.s as {self.string(known)}",
            lambda: 'input as {"s": ' + self.string(known) + ', "l": ["a"], "n": 1}',
            lambda: 'data.m as {"a": ' + self.string(known) + "}",
            lambda: f"input.l as {self.collection(known)}",
            lambda: f"input.b as {self.boolean(known)}",
            lambda: 'input as {"b": ' + self.boolean(known) + f', "s": {self.string(known)}, "n": 1' + "}",
        )()

    def beside_itself(self):
        """An expression with an index and, mostly, a comprehension that uses the same variable."""
        name, other = self.random.choice(self.loose), next(self.names)
        body = f"{other} := {self.pick('input.l', 'data.l')}[{self.pick(name, name, *self.loose)}]"
        closed = self.pick(f"[{other} | {body}]", f"{{{other} | {body}}}", f"{{{other}: 1 | {body}}}")
        element = self.pick("input.l", "data.l", "input.o", '["a", "b"]') + f"[{name}]"
        text = self.pick(
            f"{element} {self.pick('!=', '==', '<', '=', 'in')} {closed}",
            f"[{element}, {self.pick('1', 'input.l[' + self.random.choice(self.loose) + ']')}] != [{closed}, 1]",
            f"[{element}, {closed}]",
            f"count([{element}, {closed}]) == 2",
        )
        return self.pick("", "", "", "not ") + text

    def statements(self, known, most):
        """Statements of a body. Adds to `known` the variables that they declare."""
        made = []
        for _ in range(self.random.randint(1, most)):
            shape = self.random.randrange(23)
            if shape >= 20:
                name = next(self.names)
                if shape == 22 and not self.simple:
                    inner = self.pick(
                        lambda: f"{name} == {self.boolean(known)}",
                        lambda: f"not {name} == {self.boolean(known)}",
                        lambda: f"inner := {self.boolean(known)}; {self.pick('', 'not ')}inner == {name}",
                        lambda: f"[{name}] != [{self.boolean(known)}]",
                    )()
                    made.append(f"every {name} in [{self.boolean(known)}] {{ {inner} }}")
                else:
                    value = self.boolean(known)
                    pattern = name if self.simple else self.pick(name, name, f"[{name}, _]")
                    value = value if pattern == name else f"[{value}, {self.string(known)}]"
                    made.append(f"{pattern} := {value}{self.modifier(known)}")
                    made.append(f"{self.pick('', 'not ')}{name}")
            elif shape < 6:
                made.append(self.condition(known) + self.modifier(known))
            elif shape < 13:
                made.append(f"not {self.condition(known)}{self.modifier(known)}")
            elif shape < 15:
                name = next(self.names)
                made.append(f"{name} := {self.string(known)}")
                known.append(name)
                made.append(f"{self.pick('', 'not ')}startswith({name}, {self.string(known)})")
            elif shape < 17 and not (self.simple and self.one_in(2)):
                name = next(self.names)
                made.append(f"some {name} in {self.collection(known)}")
                known.append(name)
                made.append(f"{self.pick('', 'not ')}{name} in {self.collection(known)}")
            elif shape < 19 and self.depth < 3 and not self.simple:
                name = next(self.names)
                inner = self.nested(self.statements, [*known, name], 1)
                if name not in "".join(inner):
                    inner.append(f"{name} != {self.string(known)}")
                made.append(f"every {name} in {self.collection(known)} {{ {'; '.join(inner)} }}")
            elif self.loose:
                name = self.random.choice(self.loose)
                made.append(self.pick(
                    f"{name} = {self.string(known)}",
                    f"[{name}, {self.random.choice(self.loose)}] = input.l",
                    f"input.l[{name}]",
                    f"{self.string(known)} == {name}",
                    self.beside_itself(),
                ))
            else:
                made.append(self.condition(known))
        return made

    def body(self, known=()):
        known = list(known)
        made = self.statements(known, 3)
        # A line that begins with a parenthesis is read as a call of the line before.
        ends = [";" if after.startswith("(") else "" for after in made[1:]] + [""]
        return known, "{\n\t" + "\n\t".join(map("".join, zip(made, ends))) + "\n}"

    def values(self, known):
        """A value of a head: one, or several, which are a conflict."""
        if self.simple or not self.one_in(3):
            return self.string(known)
        return self.pick(
            "input.l[_]",
            "data.m[_]",
            "[input.l[_]]",
            "lower(input.l[_])",
            '{"a": input.o.l[_]}',
            f"data.m[{self.string(known)}]",
        )

    def element(self, known):
        """An element of a set: rarely the value of a function, which keeps lookups from being compared."""
        text = self.string(known)
        return f"lower({text})" if text.startswith("g_") and not self.one_in(6) else text

    def helper(self, kind):
        # One that is not finished yet would be a recursion.
        done = [name for name, text in self.helpers.items() if text and name.startswith(kind + "_")]
        if done and len(self.helpers) > 5:
            return self.random.choice(done)
        if len(self.helpers) - sum(map(bool, self.helpers.values())) > 3:
            return INSTEAD[kind]
        if kind == "map" and self.simple:
            return "data.m"
        name = f"{kind}_{len(self.helpers)}"
        self.helpers[name] = ""
        depth, self.depth = self.depth, 1
        loose, self.loose = self.loose, []
        if kind == "flag":
            text = f"{name} if {self.body()[1]}"
        elif kind == "value":
            known, body = self.body()
            text = self.pick(
                f"{name} := {self.values([])}",
                f"{name} := {self.values(known)} if {body}",
                f"{name} := {self.string([])} if {body} else := {self.values([])}",
                f"{name} := {self.string([])} if {body} else := {self.values([])} if {self.body()[1]}",
                f"{name} := {self.string([])} if {body} else if {self.body()[1]}",
                f"{name} := {self.string([])}",
                f"{name} := {self.string(known)} if {body} else := {self.string([])}",
                f"{name} := {self.string([])} if {body}",
                f'default {name} := "a"\n{name} := {self.string([])} if {body}',
            )
        elif kind == "truth":
            known, body = self.body()
            text = self.pick(
                f"{name} := {self.boolean([])}",
                f"{name} := {self.boolean(known)} if {body}",
                f"{name} := {self.boolean([])} if {body} else := {self.boolean([])}",
                f"{name} if {body} else := {self.boolean([])}",
                f"default {name} := false\n{name} := {self.boolean(known)} if {body}",
            )
        elif kind == "bools":
            known, body = self.body()
            text = self.pick(
                f"{name} contains {self.boolean(known)} if {body}",
                f"{name} contains {self.boolean([])}",
            )
        elif kind in ("yes", "no", "same"):
            value = {"yes": "p", "no": "not p", "same": "p == p"}[kind]
            text = self.pick(
                f"{name}(p) if {value}",
                f"{name}(p) := p if {{ {value} }} else := {self.boolean(['p'])}",
                f"{name}(p) := {self.boolean(['p'])} if {value}",
                f"{name}(p) := true if {{ {value} }} else if {{ {self.judged(['p'])} }}",
                f"default {name}(_) := true\n{name}(p) := false if {value}",
            )
            if kind == "same":
                text = f"{name}(p) := p"
        elif kind == "set":
            known, body = self.body()
            text = f"{name} contains {self.element(known)} if {body}\n{name} contains {self.element([])}"
        elif kind == "map":
            known, body = self.body()
            text = f'{name}["{self.pick(*WORDS)}"] := {self.string(known)} if {body}'
        elif kind == "f":
            body = self.body(["p"])[1]
            text = f"{name}(p) if {{ p == p; {body[1:-1].strip()}\n}}"
        else:
            text = self.pick(
                f"{name}(p) := lower(p)",
                f'{name}(p) := p if p != "a" else := "b"',
                f'{name}(p) := p if p != "a" else := {self.values(["p"])}',
                f'{name}(p) := {self.values(["p"])} if p != "a"',
                f'{name}(p) := p if p == "a" else if p != {self.string(["p"])}',
            )
        self.depth, self.loose = depth, loose
        self.helpers[name] = text
        return name

    def module(self):
        rules = self.pick(
            lambda known, body: f"x if {body}",
            lambda known, body: f"x if {body}",
            lambda known, body: f"x := {self.string(known)} if {body}",
            lambda known, body: f"x := {self.string(known)} if {body} else := {self.string([])} if {self.body()[1]}",
            lambda known, body: f"x contains {self.string(known)} if {body}",
            lambda known, body: f'default x := "none"\n\nx := {self.string(known)} if {body}',
            lambda known, body: f"x[lower({self.string(known)})] := {self.string(known)} if {body}",
            lambda known, body: f"x := {self.boolean(known)} if {body}",
            lambda known, body: f"x := {self.boolean([])}",
            lambda known, body: f"x := {self.values(known)} if {body} else := {self.values([])}",
            lambda known, body: f"x := {self.boolean(known)} if {body} else := {self.boolean([])}",
            lambda known, body: f"x := {self.string(known)} if {body} else if {self.body()[1]} else := {self.boolean([])}",
            lambda known, body: f'x := {{"a": {self.boolean(known)}}} if {body}',
            lambda known, body: f"x contains {self.boolean(known)} if {body}",
            lambda known, body: f"x[{self.boolean(known)}] := {self.boolean(known)} if {body}",
            lambda known, body: f'x := {{"a": {self.boolean(known)}, "b": {self.string(known)}}} if {body}',
        )(*self.body())
        return "\n\n".join(["package p", rules, *self.helpers.values()]) + "\n"


DATA = {"m": {"a": "b", "prod": "a"}, "l": ["a", "prod"], "n": {"a": 1}}


def an_input(random):
    words = [random.choice(WORDS) for _ in range(4)]
    whole = {
        "s": words[0],
        "t": words[1],
        "n": random.randrange(3),
        "b": random.choice([True, False]),
        "l": random.sample(WORDS, random.randrange(3)),
        "o": {"s": words[2], "a": words[3], "l": random.sample(WORDS, random.randrange(3))},
    }
    kept = {name: value for name, value in whole.items() if random.random() < 0.7}
    if "o" in kept:
        kept["o"] = {name: value for name, value in kept["o"].items() if random.random() < 0.7}
    return kept


# What regorus, or a rule of our own, refuses at load although it is legal: such a policy never runs.
NARROWER = (
    "a lookup in a set of the values of",  # OPA may find what the set does not have
    "` is unsafe: `not`",  # OPA forgets a variable of a negated expression that also has a closure
    "used before definition",
    "incompatible destructuring patterns",
    "use of undefined variable",
    "nothing before this expression gives it a value",  # in a literal with an index, see order.rs
    "`i` is not defined",  # OPA forgets a variable of a head beside a closure
    "`j` is not defined",
    "`k` is not defined",
    "nothing here gives it a value",  # in the body of `every`, before what gives it a value
)


def unreached(case, ours, given, error):
    """Whether OPA reports two values of a rule or function that we report, too, when asked for it: OPA
    may evaluate an operand before another one that iterates over nothing or is undefined, where we do not.
    """
    found = re.match(r"p\.rego:(\d+): .*conflict", error)
    above = case["modules"]["p.rego"].splitlines()[: int(found[1])] if found else []
    heads = [line for line in above if re.match(r"\w", line)]
    name = re.match(r"(?:default )?(\w+)(\(?)", heads[-1] if heads else "")
    if not name or name[1] == "x":
        return False
    asked, modules = f"data.p.{name[1]}", case["modules"]
    if name[2]:
        # Of a function: is there an argument for which it has two values?
        words = ", ".join(map(json.dumps, [*WORDS, True, False]))
        probe = f"asked contains v if {{ some w in [{words}]; v := {name[1]}(w) }}"
        asked, modules = "data.p.asked", {"p.rego": f"{modules['p.rego']}\n{probe}\n"}
    answer = ours.judged({**case, "modules": modules, "inputs": [given], "entry": asked})
    return "error" in answer.get("strict", [{}])[0]


def differences(case, opa, ours, engines):
    """What differs, in one line each; and what the case was good for."""
    unsafe = "rego_unsafe_var_error" in opa.get("refused", "")
    if "refused" in opa and not unsafe:
        return [], "refused by OPA for another reason"
    if unsafe:
        return ([] if "refused" in ours else ["OPA refuses it as unsafe, we do not"]), "unsafe"
    if "refused" in ours and any(text in ours["refused"][0] for text in NARROWER):
        return [], "narrower here"
    if "refused" in ours:
        return [f"we refuse it: {ours['refused'][0]}"], "refused"
    found = []
    for engine in ("strict", "compiled"):
        for given, theirs, answer in zip(case["inputs"], opa["answers"], ours[engine] or []):
            # An error is a denial here: it may stand where OPA has any answer, never the reverse.
            if "error" in answer or theirs == answer:
                continue
            # OPA may report the error of an operand that is never reached here.
            if "error" in theirs and "conflict" not in theirs["error"]:
                continue
            if "error" in theirs and unreached(case, engines, given, theirs["error"]):
                continue
            found.append(f"{engine}: OPA {theirs}, here {answer}, for {json.dumps(given)}")
    return found, "compared on both" if ours["compiled"] else "compared on the strict engine"


def shipped(root):
    """Our own policies, in the groups in which they are used together."""
    def read(*patterns):
        paths = [path for pattern in patterns for path in sorted(root.glob(pattern))]
        return {str(path.relative_to(root)): path.read_text() for path in paths}

    yield "baseline", read("policies/mcp/*.rego", "policies/baseline/*.rego")
    for example in sorted((root / "policies/examples").iterdir()):
        yield example.name, read("policies/mcp/*.rego", f"policies/examples/{example.name}/*.rego")


def tests_of_shipped(opa, root):
    """How many tests of our own policies do not pass in OPA, all loaded together as `opa test` does."""
    modules = {str(path.relative_to(root)): path.read_text() for path in sorted(root.glob("policies/**/*.rego"))}
    names = []
    for text in modules.values():
        package = re.search(r"^package (\S+)$", text, re.MULTILINE)[1]
        found = dict.fromkeys(re.findall(r"^(test_\w+)", text, re.MULTILINE))
        names += [f"data.{package}.{name}" for name in found]
    answer = opa.judged({"modules": modules, "data": {}, "inputs": [{}], "entry": names})
    if "refused" in answer:
        print(f"OPA refuses our policies: {answer['refused']}")
        return 1
    failed = [it for it in zip(names, answer["answers"], strict=True) if it[1] != {"value": True}]
    for name, value in failed:
        print(f"a test of our policies does not pass in OPA: {name}: {value}")
    print(f"{len(names):8} tests of our policies in OPA")
    return len(failed) + (len(names) < 50)


def differences_page(opa, root):
    """How many examples of docs/opa-differences.md do not have the value in OPA that the page says."""
    wrong = run = 0
    for line in (root / "docs/opa-differences.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not cells[1].startswith("`"):
            continue
        rules = "\n".join(cells[1].split("`")[1::2])
        case = {"modules": {"p.rego": f"package p\n\n{rules}\n"}, "data": {}, "inputs": [{"n": 1, "s": "a"}]}
        answer = opa.judged({**case, "entry": "data.p.x"})
        given = answer.get("answers", [{"refused": True}])[0]
        if cells[2].startswith("`"):
            right = given == {"value": json.loads(cells[2].split("`")[1])}
        elif cells[2].startswith("undefined"):
            # The library turns strict errors on.
            right = given == {} or ("strict errors" in cells[2] and "error" in given)
        else:
            right = "refused" not in given
        run += 1
        if not right:
            wrong += 1
            print(f"OPA does not say what the page says: {cells}: {answer}")
    print(f"{run:8} examples of the page of differences in OPA")
    return wrong + (run < 15)


def fixture(opa, root):
    """How many expectations of tests/it/opa_meaning.rs are not OPA's."""
    wrong = 0
    for case in json.loads((root / "tests/it/policies/opa_meaning.json").read_text()):
        modules = {"p.rego": f"package p\n\n{case['rules']}\n"}
        asked = {"modules": modules, "data": DATA, "inputs": [case["input"]], "entry": "data.p.x"}
        answer = opa.judged(asked)
        if "unsafe" in case:
            right = f"var {case['unsafe']} is unsafe" in answer.get("refused", "")
        elif "conflict" in case:
            right = "conflict" in answer.get("answers", [{}])[0].get("error", "")
        else:
            right = answer == {"answers": [{"value": case["value"]} if "value" in case else {}]}
        if not right:
            wrong += 1
            print(f"OPA does not mean this by {case}: {answer}")
    return wrong


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    opa, ours = Opa(), Ours()
    failures = 0
    root = pathlib.Path(os.environ["ROOT"])
    for name, modules in shipped(root):
        case = {"modules": modules, "data": {}, "inputs": [{}], "entry": "data.mcp.decision"}
        answer = opa.judged(case)
        if "refused" in answer:
            failures += 1
            print(f"OPA refuses our policy {name}: {answer['refused']}")
    failures += fixture(opa, root) + tests_of_shipped(opa, root) + differences_page(opa, root)
    tally = collections.Counter()
    for number in range(count):
        source = random.Random(f"{seed}.{number}")
        case = {
            "modules": {"p.rego": Policy(source).text},
            "data": DATA,
            "inputs": [an_input(source) for _ in range(8)],
            "entry": "data.p.x",
        }
        theirs, answers = opa.judged(case), ours.judged(case)
        found, kind = differences(case, theirs, answers, ours)
        tally[kind] += 1
        if kind.startswith("compared"):
            tally["answers of OPA: undefined"] += sum(it == {} for it in theirs["answers"])
            tally["answers of OPA: a value"] += sum("value" in it for it in theirs["answers"])
            tally["errors here"] += sum("error" in it for it in answers["strict"])
        if found:
            failures += 1
            if failures <= 10:
                print(f"\n-- policy {number} of seed {seed}\n{case['modules']['p.rego']}")
                print("\n".join(found[:3]))
    for kind, times in sorted(tally.items()):
        print(f"{times:8} {kind}")
    print(f"{failures:8} differences")
    if tally["narrower here"] > count / 100:
        failures += 1
        print("too many legal policies are refused")
    # A run that compares next to nothing could find nothing.
    enough = all(
        tally[kind] >= count / 50
        for kind in ("unsafe", "compared on both", "compared on the strict engine")
    )
    if not enough:
        print("too few policies were compared")
    sys.exit(1 if failures or not enough else 0)


if __name__ == "__main__":
    main()
