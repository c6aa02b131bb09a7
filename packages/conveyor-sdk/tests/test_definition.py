"""What decorators accept, what they say of it, and what they refuse, at once and by name."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest

from conveyor_sdk import DefinitionError, Record, SdkError, sink, source, transform
from conveyor_sdk.definition import Shape
from conveyor_sdk.wire import info_pb2


@dataclass
class Order:
    quantity: int
    price: float = 1.0


async def pairs(resume):
    yield 1, 1


async def described(service):
    return await service.describe()


def test_the_name_comes_from_the_function():
    """drop_cancelled becomes drop-cancelled; name= wins."""

    @transform
    def drop_cancelled(value):
        return value

    assert drop_cancelled.name == "drop-cancelled"
    assert transform(name="other")(lambda value: value).name == "other"
    assert drop_cancelled.word == "transform"
    assert repr(drop_cancelled) == "<transform drop-cancelled>"


def test_a_declared_service_is_still_the_function():
    """It can be called in a unit test as what it is."""

    @transform(labels={"team": "data"}, version="2")
    def doubled(value: int) -> int:
        """Twice."""
        return value * 2

    assert doubled(4) == 8
    assert doubled.__doc__ == "Twice."
    assert doubled.__wrapped__(4) == 8


@pytest.mark.parametrize("name", ["", "Upper", "-a", "a-", "a" * 64, "a_b", "ä"])
def test_names_have_a_grammar(name):
    """Names that manifests could not refer to are refused."""
    if name:
        with pytest.raises(DefinitionError, match="is not a name"):
            transform(name=name)(lambda value: value)
    else:
        with pytest.raises(DefinitionError, match="'<lambda>' is not a name"):
            transform(lambda value: value)


def test_shapes_and_batches_are_read_from_the_signature():
    """One decorator serves plain and async functions, generators and batches."""

    @transform(name="a")
    def plain(value: dict):
        return value

    @transform(name="b")
    async def awaited(value: Order, ctx):
        return value

    @transform(name="c")
    def generated(value: bytes):
        yield value

    @transform(name="d")
    async def streamed(value: str):
        yield value

    @transform(name="e")
    def batched(values: list[Order]):
        return values

    @transform(name="f")
    def records(values: list[Record[bytes]]):
        return values

    shapes = [s.shape for s in (plain, awaited, generated, streamed, batched)]
    assert shapes == [
        Shape.PLAIN,
        Shape.COROUTINE,
        Shape.GENERATOR,
        Shape.ASYNC_GENERATOR,
        Shape.PLAIN,
    ]
    assert [s.input.batched for s in (plain, awaited, batched, records)] == [
        False,
        False,
        True,
        True,
    ]
    assert awaited.input.wants_context
    assert not plain.input.wants_context


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (lambda: None, "takes nothing; it gets one value"),
        (lambda a, b: None, "takes a, b; it gets one value"),
        (lambda ctx: None, "takes nothing"),
        (lambda *values: None, r"\*values cannot be filled"),
        (lambda value, **more: None, r"\*\*more cannot be filled"),
    ],
)
def test_parameters_that_cannot_be_filled_are_refused(handler, why):
    """A handler gets one value and perhaps ctx, no more and no less."""
    for declare in (transform(name="x"), sink(name="x")):
        with pytest.raises(DefinitionError, match=why):
            declare(handler)


def test_defaults_are_left_alone():
    """A parameter with a default is the user's own."""

    @transform(name="defaults")
    def handler(value, factor=2):
        return value

    assert not handler.input.wants_context


def test_refusals_say_where_the_function_is():
    """The error has the file and the line."""
    with pytest.raises(DefinitionError, match=r"@sink bad \(.*test_definition.py:\d+\): a sink"):

        @sink
        def bad(value):
            yield value


def test_hints_without_a_codec_are_refused():
    """A type that no codec makes is refused at once, not at the first record."""
    with pytest.raises(DefinitionError, match="no codec makes a <class 'complex'> for value"):

        @transform(name="x")
        def handler(value: complex):
            return value

    with pytest.raises(DefinitionError, match="a type hint cannot be resolved"):

        @transform(name="y")
        def other(value: Missing):  # noqa: F821
            return value


def test_a_batched_generator_is_refused():
    """A batch is answered with a list."""
    with pytest.raises(DefinitionError, match="a generator takes single records"):

        @transform(name="x")
        def handler(values: list[dict]):
            yield values


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"concurrency": 0}, "concurrency=0: use 1 to 64"),
        ({"concurrency": 65}, "concurrency=65"),
        ({"batch": -1}, "batch=-1"),
        ({"batch_bytes": -1}, "batch_bytes=-1"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": 601}, "timeout=601"),
        ({"labels": {f"l{i}": "" for i in range(65)}}, "65 labels"),
        ({"labels": {"l": "x" * 257}}, "label 'l' is longer"),
    ],
)
def test_options_have_bounds(options, why):
    """Numbers that make no sense are refused at the decorator."""
    with pytest.raises(DefinitionError, match=why):
        transform(name="x", **options)(lambda value: value)


def test_decorating_something_else_is_refused():
    """A class or a value is not a handler."""
    with pytest.raises(DefinitionError, match="decorates a function"):
        transform(Order)
    with pytest.raises(DefinitionError, match="decorates a function"):
        sink(3)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"partitions": []}, "has no partitions"),
        ({"partitions": ["a", "a"]}, "names a partition twice"),
        ({"partitions": "abc"}, "give a list of names"),
        ({"partitions": ["x" * 64]}, "1 to 63 characters"),
        ({"partitions": [1]}, "1 to 63 characters"),
        ({"partitions": map(str, range(10_001))}, "at most 10000"),
    ],
)
def test_partitions_are_checked(options, why):
    """Lists of partitions that could not be assigned are refused."""

    async def reads(partition, resume):
        yield 1, 1

    with pytest.raises(DefinitionError, match=why):
        source(name="x", **options)(reads)


def test_sources_are_async_generators_that_can_resume():
    """Every other signature is refused with the reason."""

    def plain(resume):
        yield 1, 1

    async def strange(resume, colour):
        yield 1, 1

    async def forgetful():
        yield 1, 1

    with pytest.raises(DefinitionError, match="is a generator; a source is an async generator"):
        source(plain)
    with pytest.raises(DefinitionError, match="takes colour"):
        source(strange)
    with pytest.raises(DefinitionError, match="does not take resume"):
        source(forgetful)
    with pytest.raises(DefinitionError, match="does not take partition"):
        source(name="x", partitions=["a", "b"])(pairs)
    with pytest.raises(DefinitionError, match=r"\(position\) or \(partition, position\)"):
        source(name="x")(pairs).ended(lambda: None)


@pytest.mark.asyncio
async def test_descriptions_say_what_was_declared():
    """Describe carries kind, labels, limits, partitions and promises."""

    async def listed():
        return ["b", "a"]

    async def reads(partition, resume, ctx):
        yield 1, 1

    one = source(name="one", bounded=True, stable_offsets=True, partitions=listed)(reads)
    description = await one.describe()
    assert description.kind == info_pb2.KIND_SOURCE
    assert list(description.partitions) == ["b", "a"]
    assert description.bounded
    assert description.stable_offsets
    alone = source(name="alone")(pairs)
    assert list((await alone.describe()).partitions) == ["0"]

    two = sink(name="two", idempotent=True, batch=100, concurrency=3, timeout=2.5, version="7")(
        lambda value: None
    )
    description = await two.describe()
    assert description.kind == info_pb2.KIND_SINK
    assert (description.idempotent, description.version) == (True, "7")
    assert (description.batch_records_max, description.concurrency_max) == (100, 4)
    assert description.call_timeout.ToTimedelta().total_seconds() == 2.5


@pytest.mark.asyncio
async def test_partitions_that_turn_out_wrong_are_named():
    """A function for partitions that gives nonsense is an error with the reason."""

    async def reads(partition, resume):
        yield 1, 1

    wrong = source(name="wrong", partitions=lambda: [])(reads)
    with pytest.raises(SdkError, match="has no partitions"):
        await wrong.partition_names()


def test_partials_are_functions_too():
    """functools.partial of an async function is still async."""

    async def scaled(factor: int, value: bytes) -> bytes:
        return value * factor

    service = transform(functools.partial(scaled, 2))
    assert service.shape is Shape.COROUTINE
    assert service.name == "scaled"
    assert not service.input.wants_context


def test_objects_with_call_are_refused():
    """Whether their call is async could not be told for sure."""

    class Handler:
        async def __call__(self, value):
            return value

    with pytest.raises(DefinitionError, match="decorates a function"):
        transform(Handler())
