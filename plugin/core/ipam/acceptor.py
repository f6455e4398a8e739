"""One agent as acceptor of decrees: what it promises and accepts, and why it refuses (Paxos, phases 1b and 2b).

Its votes are on the disk before anybody hears of them (`RingBook.vote`). The arithmetic of votes is in synod.py.
"""

from plugin.core.ipam import synod
from plugin.core.ipam.ringbook import RingBook
from plugin.core.messages import kinds


class Acceptor:
    """Votes.

    Args:
        book: What is agreed so far, and this agent's votes.
        founders: How many agents are set up to make the first agreement; 0 when this one is not among them.
    """

    def __init__(self, book: RingBook, founders: int) -> None:
        self._book = book
        self._founders = founders

    @property
    def may_vote(self) -> bool:
        """Whether it has a vote: a seat, or before the first agreement the part of a founder."""
        return self._book.seated if self._book.ring_id else self._founders > 0

    def on_prepare(self, prepare: kinds.Prepare, proposer: str) -> kinds.Promise:
        """Phase 1b; the answer may be sent when everything in the outbox before it is on the disk."""
        self._book.merge(prepare.state, whose=proposer)
        reason = self._why_no_promise(prepare)
        if not reason:
            voted = synod.promise(self._book.voted, prepare.ballot, prepare.removing)
            if voted is not None:
                self._book.vote(voted)
                return self._promise(prepare.epoch, granted=True)
            reason = "it is bound to another proposal"
        return self._promise(prepare.epoch, granted=False, reason=reason)

    def _promise(self, epoch: int, *, granted: bool, reason: str = "") -> kinds.Promise:
        voted = self._book.voted
        return kinds.Promise(
            epoch,
            granted,
            voted.promised,
            voted.accepted if granted else None,
            voted.value if granted else None,
            reason,
            self._book.state,
        )

    def _why_no_promise(self, prepare: kinds.Prepare) -> str:
        if self._book.conflict:
            return self._book.conflict
        if prepare.epoch != self._book.epoch + 1:
            return f"it is at epoch {self._book.epoch}"
        if not self.may_vote:
            return "it has no vote"
        if prepare.state.ring != self._book.ring_id:
            return "it is a member of another ring"
        if self._book.uid in prepare.removing:
            return "it is the one to be removed"
        alive = [self._book.name_of(uid) for uid in prepare.removing if self._book.answers(uid)]
        return f"{', '.join(alive)} answers it" if alive else ""

    def on_accept(self, accept: kinds.Accept) -> kinds.Accepted:
        """Phase 2b."""
        voted = None
        mine = accept.epoch == self._book.epoch + 1 and self._book.uid not in accept.value.left
        if mine and self.may_vote and not self._book.conflict:
            voted = synod.accept(self._book.voted, accept.ballot, accept.value)
            if voted is not None:
                self._book.vote(voted)
        return kinds.Accepted(accept.epoch, voted is not None, self._book.voted.promised, self._book.state)
