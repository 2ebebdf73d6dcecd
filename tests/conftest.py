"""What several tests share: a cache of their own, ModelScope's answers, the bundled checkpoint."""

import json
import os
import shutil
from pathlib import Path

import zsc_utils as zsc  # before torch: a plan has fewer bytes then

# isort: split
import pytest
import torch
from oracle import DATA, ORACLE

from zsc_utils import language

torch.set_num_threads(1)  # for fixtures that are made before `one_thread`


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A user's cache with nothing in it; returns the folder of its entries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "zsc_utils"


@pytest.fixture
def oracle_copy(tmp_path, empty_cache):
    """A copy of the small ModelScope checkpoint that a test may damage."""
    return Path(shutil.copytree(ORACLE, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def golden():
    """ModelScope's own answers for the small checkpoint."""
    return json.loads((DATA / "oracle" / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def oracle(tmp_path_factory):
    """The small ModelScope checkpoint, loaded."""
    kept = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    try:
        return zsc.load(ORACLE)
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if kept is not None:
            os.environ["XDG_CACHE_HOME"] = kept


@pytest.fixture(scope="session")
def mini():
    return zsc.load("mini")


@pytest.fixture
def chinese():
    """The language is Chinese for one test."""
    language.use("zh")
    yield
    language.use("en")


@pytest.fixture(autouse=True)
def one_thread():
    """Two processes run tests at a time; if each had two threads, those of one would wait for those of the other."""
    torch.set_num_threads(1)
