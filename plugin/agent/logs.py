"""Log lines: a fixed event plus fields, one JSON object a line on standard error."""

import json
import logging
import sys
import time
from typing import Final

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": ..., "event": ..., <fields>}`; fields are what the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; values that JSON does not know are shown as text."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _OWN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logs(level: str) -> logging.Logger:
    """The agent's logger; an unknown level means info."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("weave")
    logger.handlers = [handler]
    logger.setLevel(_LEVELS.get(level, logging.INFO))
    logger.propagate = False
    return logger
