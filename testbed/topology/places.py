"""Where the steps of a topology are written: for those who point at a line, such as annotations in CI."""

from testbed.topology.text import UnreadableError, read_tree


def step_lines(text: str) -> dict[tuple[str, int], int]:
    """The line of every step, by the scenario's name and the step's place there, from 0.

    A text that is no topology has none; whether it is one is not checked here.
    """
    try:
        tree, _ = read_tree(text)
    except UnreadableError:
        return {}
    scenarios = tree.data.get("scenarios") if isinstance(tree.data, dict) else None
    found = {}
    for number, scenario in enumerate(scenarios if isinstance(scenarios, list) else ()):
        steps = scenario.get("steps") if isinstance(scenario, dict) else None
        for index in range(len(steps) if isinstance(steps, list) else 0):
            mark = tree.mark(("scenarios", number, "steps", index), at_key=False)
            found[str(scenario.get("name")), index] = mark.line
    return found
