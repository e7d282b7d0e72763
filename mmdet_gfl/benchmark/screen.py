"""Progress on a terminal or in a log."""

from __future__ import annotations

import os
import time
from typing import TextIO

#: Seconds between lines of progress where the output is no terminal.
LINE_SECONDS = 30


class Screen:
    """Progress as one line that changes on a terminal, else as a line now and then."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.shown, self.since = out, '', time.monotonic()

    def show(self, line: str) -> None:
        """Show the line."""
        if self.out.isatty():
            if line != self.shown:
                width = os.get_terminal_size(self.out.fileno()).columns
                self.out.write(f'\r\x1b[K{line[: width - 1]}')
                self.out.flush()
                self.shown = line
        elif line and time.monotonic() - self.since > LINE_SECONDS:
            self.log(line)

    def log(self, text: str) -> None:
        """A line that stays."""
        self.out.write(f'\r\x1b[K{text}\n' if self.out.isatty() else f'{text}\n')
        self.out.flush()
        self.shown, self.since = '', time.monotonic()
