"""results.jsonl: one line per product, as it ends. The journal has every line too, so the file can be made anew."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import BinaryIO

from services.batch.journal import JournalError, Store
from services.fal.downloads import replacing

FILE_NAME = "results.jsonl"


class ResultsFile:
    """The file of one batch."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Raises JournalError when it cannot be written."""
        self.path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._store = store
        self._file: BinaryIO | None = None
        self.make_whole()

    def make_whole(self) -> None:
        """Write it anew when lines are missing or too many. Raises JournalError when it cannot be written."""
        with self._lock:
            try:
                if not self.path.exists() or self.path.stat().st_size != self._store.result_bytes():
                    # A process was killed between the journal and the file, failed products wait again, or another
                    # machine has made some.
                    with replacing(self.path) as temporary, open(temporary, "wb") as file:
                        file.writelines(line + b"\n" for line in self._store.results())
                    self.close()
                if self._file is None:
                    self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - until `close`
            except OSError as error:
                raise self._unwritable(error) from error

    def append(self, line: bytes) -> None:
        with self._lock:
            assert self._file is not None
            try:
                self._file.write(line + b"\n")
            except OSError as error:
                raise self._unwritable(error) from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _unwritable(self, error: OSError) -> JournalError:
        return JournalError(
            f"{str(self.path)!r} cannot be written: {error.strerror or error}.",
            hint="Correct that, and resume: the file is made whole from the journal.",
        )
