"""Signals as bytes on a pipe: Python's poll and select do not return for a signal (PEP 475)."""

from __future__ import annotations

import os
import signal


class Signals:
    """While the block runs, signals are noted and nothing else; ``waiting`` tells of them."""

    CAUGHT = ("SIGINT", "SIGTERM", "SIGHUP", "SIGWINCH", "SIGTSTP", "SIGCONT", "SIGQUIT")
    ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})

    def __enter__(self) -> Signals:
        self.read_fd, self._write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._before = {number: signal.getsignal(number) for number in map(self._number, self.CAUGHT)}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN or number == signal.SIGWINCH:  # nohup ignores SIGHUP: so do we
                signal.signal(number, _noted)
        unblock()
        return self

    @staticmethod
    def _number(name: str) -> signal.Signals:
        return signal.Signals[name]

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.read_fd)
        os.close(self._write_fd)

    def waiting(self) -> list[int]:
        """The signals that came since the last call, in their order."""
        try:
            return list(os.read(self.read_fd, 4096))
        except BlockingIOError:
            return []

    def stop_here(self) -> None:
        """Be stopped, as Ctrl+Z asks; returns when continued."""
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _noted)


def unblock() -> None:
    """Let in what asks us to end: a container's entry point holds it back till somebody listens.

    The kernel drops a SIGTERM that process 1 neither handles nor blocks, and `docker stop` then takes 10 s.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, Signals.ENDING)


def _noted(_number: int, _frame: object) -> None:
    """The wakeup fd tells the loop; Python wants a handler beside it."""
