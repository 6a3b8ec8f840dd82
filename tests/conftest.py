"""Registers the fixtures; each topic lives in its own module of tests/fixtures."""

pytest_plugins = ["tests.fixtures.upstream", "tests.fixtures.stack"]
