"""Steps of one call side by side, each in a thread of its own that ends with the call.

The threads are daemons and work for the current call, so its deadline and its stop button reach them. How many
jobs run at fal at once is not decided here but by the client's slots in `jobs.py`.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from services.fal.call import Call, current_call, new_call

T = TypeVar("T")


class Task(Generic[T]):
    """One step that runs beside others."""

    def __init__(self, action: Callable[[], T]) -> None:
        self._action = action
        self._value: T
        self._error: BaseException | None = None
        self._context = contextvars.copy_context()
        self._begun = threading.Lock()
        self._over = threading.Event()
        thread = threading.Thread(target=self._begin, name="fal-task", daemon=True)
        self._thread: threading.Thread | None = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None  # no thread to be had: it runs in the thread that asks for its result

    def _begin(self) -> None:
        if self._begun.acquire(blocking=False):
            self._context.run(self._run)

    def _run(self) -> None:
        try:
            self._value = self._action()
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()

    def result(self) -> T:
        """Wait for the step; its value, or its error raised here."""
        if self._thread is None:
            self._begin()
        self._over.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over, when it was begun; whether it is."""
        begun = self._thread is not None or self._begun.locked()
        return self._over.wait(timeout_s) if begun else True


class Parallel:
    """Tasks of one group, which can be stopped together."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._tasks: list[Task[Any]] = []

    def start(self, action: Callable[[], T]) -> Task[T]:
        task = Task(action)
        self._tasks.append(task)
        return task

    def stop(self) -> None:
        """Cancel what the tasks still do."""
        self._call.cancel()

    def join(self) -> None:
        for task in self._tasks:
            task.wait()


@contextlib.contextmanager
def parallel() -> Iterator[Parallel]:
    """A group of tasks that are all over when the block ends; an error in the block stops them."""
    with new_call(current_call().timeout_s) as call:
        group = Parallel(call)
        try:
            yield group
        except BaseException:
            group.stop()
            raise
        finally:
            group.join()
