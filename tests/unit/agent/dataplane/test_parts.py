"""The node's table of rules: what was expected at the start may already have been somebody else's."""

from types import SimpleNamespace
from typing import Any

from plugin.agent.dataplane.parts import RulesPart


def test_a_table_that_was_gone_when_it_was_first_looked_at_is_mended_once_and_then_whole() -> None:
    kernel = {"digest": b""}  # somebody flushed all rules between their making and the first look
    seen: Any = SimpleNamespace(table_digest=lambda _name: kernel["digest"], elements=lambda *_names: {})
    part = RulesPart(ensure=lambda: kernel.update(digest=b"ours"), host_ports=list, plain=list)
    part.expect(seen)
    assert [damage.what for damage in part.damage(seen)] == ["gone"]
    part.mend(seen, part.names())
    assert part.damage(seen) == []
    kernel["digest"] = b"theirs"
    assert [damage.what for damage in part.damage(seen)] == ["rules changed"]
