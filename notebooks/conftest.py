"""Notebooks as tests: a cell that times out fails, and the cells after it are reported as not run.

nbval alone expects every later cell to fail, which hides what was not tried; and it lets a cell pass that went on when
it was interrupted.
"""

import pytest


def timed_out(item):
    return getattr(item.parent, "timed_out", False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if timed_out(item):
        pytest.skip("not run: a cell before it timed out")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if timed_out(item):
        pytest.fail(f"the cell went on after its {item.config.option.nbval_cell_timeout:g} seconds")
    return result
