"""What somebody probably meant who wrote a name that does not exist: one answer for commands, options, labs, members,
scenarios, and the keys and names of a topology file.

Decides nothing else: the callers know what there is, and say what was wanted and found.
"""

from collections.abc import Iterable
from typing import Final

LISTED_MAX: Final = 12
"""Names that a sentence lists; of more, it says how many."""

_SIMILAR: Final = 0.6
"""difflib's measure, 1 for equal words: its own default, at which `sttus` is `status` and `port` is not `pod`."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or None when none is close.

    A name in other letters (`Red`) or cut off (`--al`) is that name; otherwise the most similar one.
    """
    names = list(known)
    folded = word.casefold()
    for name in names:
        if name.casefold() == folded:
            return name
    begun = [name for name in names if len(folded.lstrip("-")) > 1 and name.casefold().startswith(folded)]
    if len(begun) == 1:
        return begun[0]
    import difflib  # noqa: PLC0415 - needed after a mistake only

    by_folded = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=_SIMILAR)
    return by_folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` to put behind a sentence when a name is close, else the empty string."""
    meant = nearest(word, known)
    return f" (did you mean '{meant}'?)" if meant else ""


def hint(word: str, known: Iterable[str], *, there_is: str) -> str:
    """The hint of an error: what was probably meant, and what there is.

    Args:
        word: What was written.
        known: What there is, in an order that makes sense to read.
        there_is: How the list of names begins, such as `its nodes:`.
    """
    names = list(known)
    meant = nearest(word, names)
    question = f"did you mean '{meant}'? " if meant else ""
    return f"{question}{there_is} {listing(names)}"


def listing(names: Iterable[str]) -> str:
    """Names as a sentence lists them; `none` when there is none."""
    every = list(names)
    more = f" and {len(every) - LISTED_MAX} more" if len(every) > LISTED_MAX else ""
    return ", ".join(every[:LISTED_MAX]) + more or "none"
