"""The time that a command gives itself: when it is over the command ends as after SIGTERM, and knows why."""

import os
import signal
import threading
from types import TracebackType
from typing import Self


class Alarm:
    """Within the block this process is sent SIGTERM after so many seconds; `rang` tells it from anybody else's.

    Args:
        after_s: The seconds; None: never.
    """

    def __init__(self, after_s: float | None) -> None:
        self.after_s = after_s
        self.rang = False
        self._timer = None if after_s is None else threading.Timer(after_s, self._ring)
        if self._timer is not None:
            self._timer.daemon = True

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ring no more; when this returns, no signal is on its way."""
        if self._timer is not None and self._timer.ident is not None:
            self._timer.cancel()
            self._timer.join()

    def _ring(self) -> None:
        self.rang = True
        os.kill(os.getpid(), signal.SIGTERM)
