r"""The ``when`` of an edge: which records take it.

The language, small enough to be compiled to closures and safe to take from anybody::

    expression = conjunction { "||" conjunction }
    conjunction = unary { "&&" unary }
    unary       = "!" unary-in-parentheses | "(" expression ")" | comparison
    comparison  = operand ("==" | "!=" | "<" | "<=" | ">" | ">=") operand
    operand     = "key" | "type" | "event_time" | "headers" "[" string "]" | string | number

A predicate sees what a sidecar may see: key, type, event time and headers, never the payload. It is
total: evaluation cannot fail. A header that is absent is the empty text. Text compares with text by
code point; with a number on one side the other side is read as a decimal number, and a text that
is none is unequal to every number and neither below nor above it. ``event_time`` compares with
milliseconds since 1970 or with a text such as ``"2013-06-01"`` or ``"2013-06-01T12:00:00Z"``.

Parsing is bounded by the length of the text and a nesting of 32. A mistake is reported with its
position, a caret under it and, where possible, what was meant.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from conveyor_registry.model.names import nearest
from conveyor_registry.model.timestamp import timestamp_ms

DEPTH_MAX = 32
LENGTH_MAX = 4_096
FIELDS = ("key", "type", "event_time", "headers")

Test = Callable[[bytes, str, int, Mapping[str, str]], bool]
_Text = Callable[[bytes, str, int, Mapping[str, str]], str]


class PredicateError(ValueError):
    """A predicate that cannot be parsed; ``str()`` shows the text with a caret."""

    retry_safe = False

    def __init__(self, reason: str, text: str, position: int) -> None:
        self.reason = reason
        self.text = text
        self.position = position
        super().__init__(f"{reason} (at character {position + 1})\n{self.caret}")

    @property
    def caret(self) -> str:
        """The part of the text around the mistake, and a caret under it."""
        start = max(0, self.position - 60)
        line = self.text[start : self.position + 60].replace("\n", " ").replace("\t", " ")
        return f"  {line}\n  {' ' * (self.position - start)}^"


@dataclass(frozen=True, slots=True)
class Predicate:
    """A compiled predicate: call ``matches``; ``fields`` and ``headers`` say what it looks at."""

    text: str
    fields: frozenset[str]
    headers: frozenset[str]
    matches: Test

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predicate) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def parse_predicate(text: str) -> Predicate:
    """Compile a predicate.

    Raises:
        PredicateError: where and why the text is not one.
    """
    if len(text) > LENGTH_MAX:
        raise PredicateError(f"longer than {LENGTH_MAX} characters", text, LENGTH_MAX)
    parser = _Parser(text)
    test = parser.expression(0)
    parser.end()
    return Predicate(text, frozenset(parser.fields), frozenset(parser.headers), test)


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


class _Operand(NamedTuple):
    """Exactly one of a text to read, the event time, a constant text, a constant number."""

    position: int
    read: _Text | None = None
    event_time: bool = False
    text: str | None = None
    number: float | None = None

    @property
    def is_constant(self) -> bool:
        return self.text is not None or self.number is not None


_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<operator>\|\||&&|==|!=|<=|>=|[!<>()\[\]])
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
_COMPARE: dict[str, Callable[..., bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_HINTS = {
    "=": "write == to compare",
    "&": "write && for and",
    "|": "write || for or",
    '"': "the text has no closing quote",
    "'": "the text has no closing quote",
    ".": 'write headers["name"]',
}
_WORD_HINTS = {"and": "write && for and", "or": "write || for or", "not": "write !( … ) for not"}


class _Parser:
    """Recursive descent; every method returns a compiled test or an operand."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: set[str] = set()
        self.headers: set[str] = set()
        self._tokens = self._scan()
        self._next = 0

    def _scan(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                character = self.text[position]
                hint = _HINTS.get(character)
                self._fail(hint or f"{character!r} means nothing here", position)
            if match.lastgroup != "space":
                tokens.append(_Token(str(match.lastgroup), match.group(), position))
            position = match.end()
        tokens.append(_Token("end", "", len(self.text)))
        return tokens

    def _fail(self, reason: str, position: int) -> NoReturn:
        raise PredicateError(reason, self.text, position)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _accept(self, text: str) -> bool:
        if self._peek().kind == "operator" and self._peek().text == text:
            self._next += 1
            return True
        return False

    def _expect(self, text: str, reason: str) -> None:
        if not self._accept(text):
            self._fail(reason, self._peek().position)

    def end(self) -> None:
        token = self._peek()
        if token.kind == "end":
            return
        if token.text in _COMPARE:
            self._fail("a comparison has two sides; join comparisons with && or ||", token.position)
        hint = _WORD_HINTS.get(token.text)
        self._fail(hint or f"expected && or ||, not {token.text!r}", token.position)

    def expression(self, depth: int) -> Test:
        tests = [self._conjunction(depth)]
        while self._accept("||"):
            tests.append(self._conjunction(depth))
        return tests[0] if len(tests) == 1 else _any(tests)

    def _conjunction(self, depth: int) -> Test:
        tests = [self._unary(depth)]
        while self._accept("&&"):
            tests.append(self._unary(depth))
        return tests[0] if len(tests) == 1 else _all(tests)

    def _unary(self, depth: int) -> Test:
        if depth > DEPTH_MAX:
            self._fail(f"nested deeper than {DEPTH_MAX}", self._peek().position)
        if self._accept("!"):
            token = self._peek()
            if token.text not in ("(", "!"):
                self._fail("put what ! negates in parentheses: !( … )", token.position)
            return _not(self._unary(depth + 1))
        if self._accept("("):
            test = self.expression(depth + 1)
            self._expect(")", "expected )")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        left = self._operand()
        token = self._peek()
        if token.text not in _COMPARE or token.kind != "operator":
            hint = _HINTS.get(token.text[:1]) or "expected a comparison: ==, !=, <, <=, > or >="
            self._fail(hint, token.position)
        self._take()
        right = self._operand()
        if left.is_constant:
            if right.is_constant:
                self._fail("this compares two constants", left.position)
            return self._compiled(right, _MIRRORED[token.text], left)
        return self._compiled(left, token.text, right)

    def _operand(self) -> _Operand:
        token = self._take()
        if token.kind == "string":
            return _Operand(token.position, text=self._unescaped(token))
        if token.kind == "number":
            return _Operand(token.position, number=_number_of(token.text))
        if token.kind != "word":
            expected = "expected key, type, event_time, headers[…], a text or a number"
            self._fail(expected, token.position)
        if token.text not in FIELDS:
            hint = _WORD_HINTS.get(token.text)
            close = nearest(token.text, FIELDS)
            meant = f"; did you mean {close!r}?" if close else f"; there are {', '.join(FIELDS)}"
            self._fail(hint or f"unknown word {token.text[:60]!r}{meant}", token.position)
        self.fields.add(token.text)
        if token.text == "event_time":
            return _Operand(token.position, event_time=True)
        if token.text == "key":
            return _Operand(token.position, read=_key)
        if token.text == "type":
            return _Operand(token.position, read=_type)
        return _Operand(token.position, read=_header(self._header_name()))

    def _header_name(self) -> str:
        self._expect("[", 'write headers["name"]')
        token = self._take()
        if token.kind != "string":
            self._fail('write the header\'s name in quotes: headers["name"]', token.position)
        self._expect("]", "expected ]")
        name = self._unescaped(token)
        self.headers.add(name)
        return name

    def _unescaped(self, token: _Token) -> str:
        def replaced(match: re.Match[str]) -> str:
            code = match.group(1)
            if len(code) > 1:
                return chr(int(code[1:], 16))
            if code not in _ESCAPES:
                self._fail(f"unknown escape \\{code}", token.position + 1 + match.start())
            return _ESCAPES[code]

        return _ESCAPE.sub(replaced, token.text[1:-1])

    def _compiled(self, left: _Operand, symbol: str, right: _Operand) -> Test:
        compare = _COMPARE[symbol]
        if left.event_time or right.event_time:
            return self._compiled_time(left, symbol, right)
        if left.read is None:
            raise AssertionError("a comparison without a field was not refused")
        if right.number is not None:
            return _against_number(left.read, compare, right.number, unequal=symbol == "!=")
        if right.text is not None:
            return _against_text(left.read, compare, right.text)
        if right.read is None:
            raise AssertionError("an operand that is nothing")
        return _against_field(left.read, compare, right.read)

    def _compiled_time(self, left: _Operand, symbol: str, right: _Operand) -> Test:
        if not left.event_time or not right.is_constant:
            reason = (
                "event_time compares with milliseconds or a text such as '2013-06-01T12:00:00Z'"
            )
            self._fail(reason, right.position)
        if right.text is not None:
            moment: float | None = timestamp_ms(right.text)
            if moment is None:
                reason = f"{right.text[:40]!r} is not a time such as '2013-06-01T12:00:00Z'"
                self._fail(reason, right.position)
        else:
            moment = right.number
        compare = _COMPARE[symbol]
        return lambda key, type_, event_time_ms, headers: compare(event_time_ms, moment)


def _key(key: bytes, type_: str, event_time_ms: int, headers: Mapping[str, str]) -> str:
    return key.decode("utf-8", "surrogateescape")


def _type(key: bytes, type_: str, event_time_ms: int, headers: Mapping[str, str]) -> str:
    return type_


def _header(name: str) -> _Text:
    return lambda key, type_, event_time_ms, headers: headers.get(name, "")


def _against_text(read: _Text, compare: Callable[..., bool], text: str) -> Test:
    return lambda key, type_, time, headers: compare(read(key, type_, time, headers), text)


def _against_field(read: _Text, compare: Callable[..., bool], other: _Text) -> Test:
    def test(key: bytes, type_: str, time: int, headers: Mapping[str, str]) -> bool:
        return compare(read(key, type_, time, headers), other(key, type_, time, headers))

    return test


def _against_number(
    read: _Text, compare: Callable[..., bool], number: float, *, unequal: bool
) -> Test:
    def test(key: bytes, type_: str, time: int, headers: Mapping[str, str]) -> bool:
        text = read(key, type_, time, headers)
        if _NUMBER.fullmatch(text) is None:
            return unequal
        return compare(_number_of(text), number)

    return test


def _any(tests: list[Test]) -> Test:
    def test(key: bytes, type_: str, time: int, headers: Mapping[str, str]) -> bool:
        return any(part(key, type_, time, headers) for part in tests)

    return test


def _all(tests: list[Test]) -> Test:
    def test(key: bytes, type_: str, time: int, headers: Mapping[str, str]) -> bool:
        return all(part(key, type_, time, headers) for part in tests)

    return test


def _not(negated: Test) -> Test:
    return lambda key, type_, time, headers: not negated(key, type_, time, headers)


_NUMBER = re.compile(r"-?[0-9]{1,100}(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,3})?")


def _number_of(text: str) -> float:
    """An exact integer where the text is one of at most 18 digits, else the nearest float."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdigit() and len(digits) <= 18 else float(text)
