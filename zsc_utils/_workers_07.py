"""Processes of lesson 07 that stay: each holds an object of its own, and runs functions of a notebook on it."""

import multiprocessing
import traceback
from collections.abc import Callable, Sequence

import cloudpickle

from zsc_utils._process import no_main_module, receive_or_explain


class Process:
    """A fresh process that holds what `make` returns, until `end`. It begins with nothing imported but this module.

    `begin(fn, ...)` sends a call fn(object, ...), and `result` waits for what it returns; an error of fn is raised
    there. cloudpickle sends functions and classes, so those of a notebook's cells work.
    """

    def __init__(self, make: Callable):
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, cloudpickle.dumps(make)), daemon=True)
        with no_main_module():
            self.process.start()
        theirs.close()

    def begin(self, fn: Callable, *args: object, **named: object) -> None:
        self.ours.send_bytes(cloudpickle.dumps((fn, args, named)))

    def result(self) -> object:
        value, error = cloudpickle.loads(receive_or_explain(self.process, self.ours.recv_bytes))
        if error is not None:
            raise error
        return value

    def end(self) -> None:
        """End the process; what it held is free."""
        self.ours.close()
        self.process.join(10)
        self.process.kill()
        self.process.join()


def serve(connection, make):
    """In the process: make the object, then run calls until nobody sends any more."""
    held = cloudpickle.loads(make)()
    while True:
        try:
            fn, args, named = cloudpickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            answer = fn(held, *args, **named), None
        except Exception as error:
            error.add_note("in a process of lesson 07:\n" + traceback.format_exc())
            answer = None, error
        connection.send_bytes(cloudpickle.dumps(answer))


def all_do(workers: Sequence[Process], fn: Callable, *args: object, **named: object) -> list:
    """Let all of them run fn(object, ...) at the same time; return their results."""
    for worker in workers:
        worker.begin(fn, *args, **named)
    return [worker.result() for worker in workers]


def apart(fn: Callable, *args: object) -> object:
    """Run fn(...) in a process that ends with it, so that its memory is free again."""
    worker = Process(lambda: None)
    try:
        return all_do([worker], lambda _, *given: fn(*given), *args)[0]
    finally:
        worker.end()
