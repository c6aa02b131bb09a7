"""Options of the whole suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rewrite` makes what the code does now the transcripts of the scripts."""
    parser.addoption("--rewrite", action="store_true", help="renew the transcripts of the scripts")
