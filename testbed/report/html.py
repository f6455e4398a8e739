"""The HTML report: one self-contained page without scripts, from templates/report.html.j2.

This module prepares what a template should not compute (shares of time, widths of bars, the matrix of pairs, links);
the template decides how it looks. Everything that comes from the lab is escaped by jinja2.
"""

import re
from typing import Any, Final

from testbed.machine.checkout import TEMPLATES
from testbed.probes.iperf import describe_iperf, format_rate
from testbed.probes.ping import describe_ping, format_ms
from testbed.report.picture import WIDTH_MAX, lab_picture
from testbed.report.words import MARKS, WORDS, duration, headline, reason, tally
from testbed.scenario.results import (
    FrameEvidence,
    IperfEvidence,
    LabView,
    PingEvidence,
    RunResult,
    StepResult,
)

_MATRIX_PAIRS_MIN: Final = 4
"""From this many pings in one step on, a matrix says more than a list."""

_MATRIX_NAMES_MAX: Final = 24

_PICTURES: Final = {"wide": (WIDTH_MAX, 97), "middle": (660, 97), "narrow": (330, 69)}
"""By the class that the style sheet shows on screens of that kind: the width of the lab's picture there, and what lies
beside a picture on such a page (margins, paddings, a scroll bar)."""

_PICTURE_ROOM_MAX: Final = 998
"""The page grows no further: a picture that cannot be made so narrow has to be moved on every screen."""


def html_report(result: RunResult) -> str:
    """The page as text."""
    import jinja2  # noqa: PLC0415 - 100 ms that only this report needs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=duration,
        rate=format_rate,
        ms=format_ms,
        ping_words=describe_ping,
        iperf_words=describe_iperf,
        tally=tally,
        reason=reason,
    )
    environment.globals.update(
        marks=MARKS, words=WORDS, matrix=matrix, bars=bars, envelope_bytes=envelope_bytes, raw_pings=raw_pings
    )
    page: str = environment.get_template("report.html.j2").render(
        run=result,
        pictures=[] if result.view is None else pictures(result.view),
        headline=headline(result),
        sections=sections(result),
        times=times(result),
    )
    return page


def sections(result: RunResult) -> list[dict[str, Any]]:
    """Every scenario with anchors for the links on the page, which are unique whatever scenarios are called."""
    return [
        {
            "id": f"scenario-{number}",
            "scenario": scenario,
            "steps": [(f"step-{number}-{index}", step) for index, step in enumerate(scenario.steps, 1)],
        }
        for number, scenario in enumerate(result.scenarios, 1)
    ]


def pictures(view: LabView) -> list[dict[str, Any]]:
    """The lab drawn for screens of several widths; each is shown on its own, equal ones are one.

    ``pan_below``: on windows up to this width, in pixels, it does not fit and has to be moved; None: on all.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind, (width, beside) in _PICTURES.items():
        svg = lab_picture(view, width_max=width)
        narrowest = re.search(r"min-width:(\d+)px", svg)
        assert narrowest is not None
        needed = int(narrowest[1])
        one = found.setdefault(
            svg, {"svg": svg, "kinds": [], "pan_below": None if needed > _PICTURE_ROOM_MAX else needed + beside}
        )
        one["kinds"].append(kind)
    return list(found.values())


def times(result: RunResult) -> list[dict[str, Any]]:
    """Where the time went: name, seconds, share in percent; in the order things happened."""
    before, after = result.phases[:1], result.phases[1:]
    parts = [(phase.name, phase.seconds, "phase") for phase in before]
    parts += [(scenario.name, scenario.seconds, str(scenario.status)) for scenario in result.scenarios]
    parts += [(phase.name, phase.seconds, "phase") for phase in after]
    total = sum(seconds for _, seconds, _ in parts) or 1.0
    return [
        {"name": name, "seconds": seconds, "share": round(100 * seconds / total, 2), "status": status}
        for name, seconds, status in parts
    ]


def matrix(step: StepResult) -> dict[str, Any] | None:
    """The pings of a step as a table, senders down and targets across; None when a list is clearer."""
    pings = [item for item in step.evidence if isinstance(item, PingEvidence)]
    sources = list(dict.fromkeys(item.source for item in pings))
    reached = dict.fromkeys(item.target for item in pings)
    # In the order of the senders where they are the same, so that everybody's own cell lies on the diagonal.
    targets = [name for name in sources if name in reached] + [name for name in reached if name not in sources]
    if len(pings) < _MATRIX_PAIRS_MIN or max(len(sources), len(targets)) > _MATRIX_NAMES_MAX or len(targets) == 1:
        return None
    cells = {(item.source, item.target): item for item in pings}
    if len(cells) < len(pings):  # one pair at two addresses (a node and its switch)
        return None
    return {
        "targets": targets,
        "rows": [(source, [cells.get((source, target)) for target in targets]) for source in sources],
    }


def raw_pings(step: StepResult) -> list[PingEvidence]:
    """The pings of a step: those that do not hold first."""
    pings = [item for item in step.evidence if isinstance(item, PingEvidence)]
    return sorted(pings, key=lambda item: item.ok)


def bars(item: IperfEvidence) -> list[dict[str, Any]]:
    """The transfer and the underlay as bars: label, rate, width in percent of the larger."""
    found = [{"label": f"{item.source} → {item.target}", "mbit": item.result.mbit, "kind": "overlay"}]
    if item.base is not None and not item.base.error:
        found.append(
            {
                "label": f"underlay {item.base_source} → {item.base_target}",
                "mbit": item.base.mbit,
                "kind": "underlay",
            }
        )
    largest = max(float(bar["mbit"]) for bar in found) or 1.0  # type: ignore[arg-type]
    return [{**bar, "width": round(100 * float(bar["mbit"]) / largest, 1)} for bar in found]  # type: ignore[arg-type]


def envelope_bytes(item: FrameEvidence) -> int:
    """How many bytes of a frame are the overlay's envelope; 0 when there is none."""
    return sum(layer.bytes for layer in item.layers if layer.role == "outer")
