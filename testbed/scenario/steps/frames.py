"""Captured frames as evidence: the values of `results` made from those of the capture and the packet view."""

from testbed.probes.capture import CapturedFrame
from testbed.probes.packet_view import describe, render_hex
from testbed.scenario.results import FrameEvidence, Layer


def frame_evidence(frame: CapturedFrame, *, began_s: float) -> FrameEvidence:
    """One frame taken apart; `began_s` is when the first frame of the capture passed."""
    view = describe(frame.packet)
    return FrameEvidence(
        title=_title(frame),
        node=frame.tap,
        ifname=frame.ifname,
        direction=str(frame.direction),
        at_ms=round((frame.time_s - began_s) * 1000, 3),
        length=frame.wire_bytes,
        headline=view["headline"],
        layers=tuple(
            Layer(
                name=layer["name"],
                role=layer["role"],
                offset=layer["offset"],
                bytes=layer["bytes"],
                summary=layer["summary"],
                explanation=layer["explanation"],
                fields={field["name"]: field["text"] for field in layer["fields"]},
            )
            for layer in view["layers"]
        ),
        hexdump=render_hex(frame.packet).plain,
    )


def _title(frame: CapturedFrame) -> str:
    icmp = frame.packet.innermost.icmp
    what = "frame" if icmp is None else "request" if icmp.is_request else "reply" if icmp.is_reply else "ICMP message"
    verb = {"out": "leaves", "in": "arrives at"}.get(str(frame.direction), "is overheard by")
    return f"{what} {verb} {frame.tap}"
