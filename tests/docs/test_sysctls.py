"""The one table of sysctls says what the code sets, each with its value."""

import re

from plugin.link import sysctls
from tests.support.project import ROOT


def test_the_table_of_sysctls_is_what_is_set() -> None:
    page = (ROOT / "docs/reference/agent.md").read_text()
    table = page.split("### Sysctls\n")[1].split("\n## ")[0]
    told = re.findall(r"^\| `(\S+)` \| (\S+) \| .{20,} \|$", table, re.MULTILINE)
    wanted = (*sysctls.NODE, *sysctls.interface("<interface>"), *sysctls.switch("<switch>"))
    assert told == [(key.replace("/", "."), value) for key, value in wanted]
