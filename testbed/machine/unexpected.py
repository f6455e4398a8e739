"""An error that we did not foresee: one paragraph for the person, the traceback for the one who repairs it."""

import os
import tempfile
import traceback


def explain(error: BaseException, *, debug: bool = False) -> tuple[str, str]:
    """What to tell of it.

    Args:
        error: What was raised.
        debug: The traceback is wanted; the environment variable WEAVELAB_DEBUG wants it as well.

    Returns:
        The traceback, if it is to be shown; and a sentence, and another behind a newline.
    """
    trace = "".join(traceback.format_exception(error))
    if debug or os.environ.get("WEAVELAB_DEBUG"):
        shown, where = trace, "the traceback is above"
    else:
        shown, where = "", _keep(trace)
    return shown, (
        f"weavelab met something it did not expect: {type(error).__name__}: {error}\n"
        f"This is a bug in weavelab, not in what you did; {where}."
    )


def _keep(trace: str) -> str:
    try:
        with tempfile.NamedTemporaryFile("w", prefix="weavelab-bug-", suffix=".txt", delete=False) as file:
            file.write(trace)
    except OSError:
        return "run it again with --debug for the traceback"
    return f"the traceback is in {file.name} (or use --debug)"
