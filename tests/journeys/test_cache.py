"""The cache on every kind of disk: it works, or one error says which variable to set."""

import errno
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import pytest
from oracle import ORACLE

import zsc_utils as zsc
from zsc_utils import checkpoint

ROOT = Path(__file__).parents[2]
NOBODY = 65534
TEXTS, LABELS = ["央行宣布下调利率", "国足客场取胜"], ["财经", "体育"]


def make(target):
    target.mkdir()
    (target / "whole").touch()


def entries(cache):
    """The names of all that lies in the folders of a cache."""
    return sorted(file.name for file in (cache / "zsc_utils").glob("*/*"))


# ------------------------------------------------------------------------------------------------------ no home folder


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """Neither HOME nor XDG_CACHE_HOME, and a user without a home, as in a container that runs as any number."""

    def unknown(_):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_home_the_error_names_the_variable_and_no_folder_is_made(homeless):
    with pytest.raises(zsc.CheckpointError, match="no home folder.*set XDG_CACHE_HOME"):
        zsc.load(ORACLE)
    assert list(homeless.iterdir()) == []
    assert zsc.load("mini").name == "mini"  # which needs no cache


def test_without_a_home_the_variable_is_enough(homeless, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(homeless / "cache"))
    assert zsc.load(ORACLE).folder.is_relative_to(homeless / "cache")


def test_without_the_variable_home_the_user_s_home_is_found(homeless, monkeypatch):
    monkeypatch.setattr(pwd, "getpwuid", lambda _: types.SimpleNamespace(pw_dir=str(homeless)))
    assert checkpoint.cached("entry", make).is_relative_to(homeless / ".cache")


# ------------------------------------------------------------------------------------------------------- no permission


@pytest.fixture
def open_folder():
    """A cache whose path everybody may follow; pytest's own folders are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="cache-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(work):
    """Return what `work` returns, a string, in a child that is not root: root may write everywhere."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(send, work().encode())
        except BaseException as error:
            os.write(send, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(send)
    with open(receive, "rb") as told:
        found = told.read().decode()
    os.waitpid(pid, 0)
    return found


@pytest.mark.parametrize("mode", [0o555, 0o444, 0o000])
def test_a_cache_that_may_not_be_written_names_the_variable(open_folder, monkeypatch, mode):
    monkeypatch.setenv("XDG_CACHE_HOME", str(open_folder))
    folder = checkpoint.cache_folder()
    folder.chmod(mode)
    told = as_nobody(lambda: str(checkpoint.cached("entry", make)))
    assert told.startswith(f"CheckpointError: the cache {folder} cannot be written") and "XDG_CACHE_HOME" in told
    folder.chmod(0o755)
    assert entries(open_folder) == []


def test_what_is_in_a_cache_that_may_not_be_written_is_used(open_folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(open_folder))
    entry = checkpoint.cached("entry", make)
    entry.parent.chmod(0o555)
    assert as_nobody(lambda: str(checkpoint.cached("entry", make))) == str(entry)


@pytest.mark.parametrize("where, code, told", [
    ("mkdtemp", errno.EROFS, "a folder of yours"), ("mkdtemp", errno.ENOSPC, "a folder on a larger disk"),
    ("rename", errno.EXDEV, "a folder of yours"), ("rename", errno.EACCES, "a folder of yours"),
])  # fmt: skip
def test_whatever_the_system_says_of_the_cache_is_one_error(empty_cache, monkeypatch, where, code, told):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile if where == "mkdtemp" else checkpoint.os, where, refuse)
    with pytest.raises(zsc.CheckpointError, match=f"the cache .* cannot be written .*XDG_CACHE_HOME to {told}"):
        checkpoint.cached("entry", make)
    monkeypatch.undo()
    assert list(empty_cache.glob("*/*")) == []


def test_an_error_of_the_source_is_not_laid_on_the_cache(empty_cache):
    def unreadable(target):
        raise PermissionError(errno.EACCES, "the weights")

    with pytest.raises(PermissionError, match="the weights"):
        checkpoint.cached("entry", unreadable)


# ---------------------------------------------------------------------------------------------------- kinds of folders


def test_a_cache_that_is_a_link_to_another_disk(tmp_path, monkeypatch):
    disk = Path("/dev/shm")
    if not os.access(disk, os.W_OK) or disk.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with tempfile.TemporaryDirectory(dir=disk) as other:
        (tmp_path / "zsc_utils").symlink_to(other)
        ckpt = zsc.load(ORACLE)
        assert ckpt.folder.resolve().is_relative_to(other) and len(entries(tmp_path)) == 1
        assert zsc.ZeroShotClassifier(ORACLE, offload=True)(TEXTS, LABELS)


def test_a_link_that_leads_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "zsc_utils").symlink_to(tmp_path / "gone")
    with pytest.raises(zsc.CheckpointError, match="cannot be written.*XDG_CACHE_HOME"):
        zsc.load(ORACLE)


def test_a_path_in_chinese_with_spaces(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "缓存 é ’"))
    folder = Path(shutil.copytree(ORACLE, tmp_path / "模 型"))
    wanted = zsc.ZeroShotClassifier(ORACLE)(TEXTS, LABELS)
    for options in ({}, {"precision": "int8", "offload": True}):
        found = zsc.ZeroShotClassifier(folder, **options)(TEXTS, LABELS)
        assert [r["labels"] for r in found] == [r["labels"] for r in wanted]
    assert sum("模 型" in name for name in entries(tmp_path / "缓存 é ’")) >= 1


LOAD = """
import sys, time
from pathlib import Path
import zsc_utils as zsc, zsc_utils.checkpoint
print("ready", flush=True)
sys.stdin.readline()
print(zsc.load(sys.argv[1]).folder)
"""


def test_two_processes_that_load_for_the_first_time_at_once(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", LOAD, ORACLE]
    children = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        child.stdin.write(b"\n")
        child.stdin.flush()
    told = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    assert told[0][0] == told[1][0] and len(entries(tmp_path)) == 1
