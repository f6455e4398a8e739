"""The views of golden packets, byte for byte, and what must hold for every view.

tests/golden/packets/NAME.hex holds the frame (comments say where it comes from), NAME.txt what a person sees of it.
After a wanted change: WEAVELAB_GOLDEN=write pytest tests/unit/testbed/probes/test_packet_view.py, then read the difference.
"""

import json
import os
from pathlib import Path

import pytest

from plugin.core.packet.frame import dissect
from plugin.core.packet.packet import Packet
from testbed.probes.packet_view import COLUMNS, describe, headline, render, render_hex
from tests.support.project import GOLDEN

FOLDER = GOLDEN / "packets"
NAMES = sorted(path.stem for path in FOLDER.glob("*.hex"))


def golden(name: str) -> Packet:
    wire_bytes, digits = None, ""
    for line in (FOLDER / f"{name}.hex").read_text().splitlines():
        if line.startswith("wire_bytes:"):
            wire_bytes = int(line.split(":")[1])
        elif not line.startswith("#"):
            digits += line
    return dissect(bytes.fromhex(digits), wire_bytes=wire_bytes)


def compare(path: Path, text: str) -> None:
    if os.environ.get("WEAVELAB_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_packet_is_shown_as_written_down(name: str) -> None:
    packet = golden(name)
    shown = [packet.summary, render(packet, explain=True, fields=True).plain, render_hex(packet).plain]
    compare(FOLDER / f"{name}.txt", "\n\n".join(shown) + "\n")


def test_the_values_for_reports_are_as_written_down() -> None:
    values = describe(golden("vxlan-echo-request"))
    compare(FOLDER / "vxlan-echo-request.json", json.dumps(values, indent=1) + "\n")


@pytest.mark.parametrize("name", NAMES)
def test_every_view_fits_eighty_columns_and_has_no_trailing_blanks(name: str) -> None:
    packet = golden(name)
    for text in (render(packet), render(packet, explain=True, fields=True), render_hex(packet)):
        lines = text.plain.splitlines()
        assert max(map(len, lines)) <= COLUMNS
        assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_of_a_view_hold_every_captured_byte_once_and_in_order(name: str) -> None:
    packet = golden(name)
    assert "".join(layer["hex"] for layer in describe(packet)["layers"]) == packet.data.hex()


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_a_sentence(name: str) -> None:
    for layer in describe(golden(name))["layers"]:
        assert layer["explanation"].endswith(".")
        assert len(layer["explanation"]) < 160


def test_the_envelope_is_fifty_bytes_and_said_so() -> None:
    packet = golden("vxlan-echo-request")
    assert headline(packet) == "148 bytes on the wire: 50 of envelope + 98 that the pod sent"
    view = describe(packet)
    outer = [layer for layer in view["layers"] if layer["role"] == "outer"]
    assert [(layer["title"], layer["bytes"]) for layer in outer] == [
        ("outer Ethernet", 14),
        ("outer IPv4", 20),
        ("outer UDP", 8),
        ("VXLAN", 8),
    ]
    assert view["envelope_bytes"] == 50
    assert "[Ethernet 14|IPv4 20|UDP 8|VXLAN 8[Ethernet 14|IPv4 20|ICMP 8|data 56]]" in render(packet).plain


def test_a_cut_frame_says_how_much_was_kept() -> None:
    packet = golden("vxlan-echo-cut")
    assert headline(packet) == "1092 bytes on the wire: 50 of envelope + 1042 that the pod sent (100 captured)"
    assert "data 1000" in render(packet).plain


def test_long_data_is_shortened_in_the_hex_view_and_the_rest_counted() -> None:
    packet = golden("vxlan-echo-request")
    text = render_hex(packet, payload_rows_max=1).plain
    assert text.endswith("... 40 more bytes")
    assert len(text.splitlines()) == 11


def test_a_wrong_checksum_is_said_in_the_summary_and_an_offloaded_one_is_not() -> None:
    data = bytearray(golden("vxlan-echo-request").data)
    data[-1] ^= 1
    icmp = [layer for layer in describe(dissect(bytes(data)))["layers"] if layer["name"] == "ICMP"]
    assert icmp[0]["summary"].endswith("bad checksum")
    tcp = [layer for layer in describe(golden("tcp-checksum-offloaded"))["layers"] if layer["name"] == "TCP"]
    assert tcp[0]["checksum"] == "left to the network card"
    assert "checksum" not in tcp[0]["summary"]


def test_a_frame_of_no_bytes_can_be_shown() -> None:
    packet = dissect(b"")
    assert "Ethernet: 14 bytes of header are wanted" in render(packet).plain
    assert render_hex(packet).plain == ""
