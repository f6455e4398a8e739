"""iperf3's JSON, as 3.12 printed it in hand-made namespaces, and what we read in it."""

import json

import pytest

from testbed.machine.space import Completed
from testbed.probes.iperf import Transfer, client_argv, describe_iperf, format_rate, parse_iperf, server_argv
from tests.support.project import GOLDEN

OUTPUTS = GOLDEN / "report"


def completed(stdout: str, *, stderr: str = "", returncode: int = 0, timed_out: bool = False) -> Completed:
    return Completed(("iperf3",), returncode, stdout, stderr, 1.5, timed_out)


def error(text: str) -> str:
    return parse_iperf(completed(json.dumps({"start": {}, "end": {}, "error": text}))).error


def test_tcp_gives_goodput_at_the_receiver_and_retransmits() -> None:
    result = parse_iperf(completed((OUTPUTS / "iperf3-3.12-tcp.json").read_text()))
    assert result.error == ""
    assert result.mbit == pytest.approx(11574.46, abs=0.01)
    assert result.retransmits == 473
    assert result.loss_percent is None
    assert describe_iperf(result) == "11.6 Gbit/s, 473 retransmits"


def test_udp_gives_loss_and_jitter_and_no_retransmits() -> None:
    result = parse_iperf(completed((OUTPUTS / "iperf3-3.12-udp.json").read_text()))
    assert result.mbit == pytest.approx(49.96, abs=0.01)
    assert (result.retransmits, result.loss_percent) == (None, 0.0)
    assert describe_iperf(result) == "50 Mbit/s, 0 % lost, jitter 0.0072 ms"


def test_udp_goodput_is_what_arrived() -> None:
    document = json.loads((OUTPUTS / "iperf3-3.12-udp.json").read_text())
    document["end"]["sum"]["lost_percent"] = 25
    assert parse_iperf(completed(json.dumps(document))).mbit == pytest.approx(37.47, abs=0.01)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "unable to connect to server: Connection refused",
            "the target refused the connection: no iperf3 server listens there",
        ),
        ("unable to connect to server: Connection timed out", "no connection: the target did not answer in time"),
        ("unable to connect to server: No route to host", "no route to the target: no host answered for its address"),
        ("unable to connect to server: Network is unreachable", "the sender has no route to the target"),
        ("control socket has closed unexpectedly", "the connection broke during the test"),
        ("something new", "iperf3 says: something new"),
    ],
)
def test_errors_of_iperf3_become_sentences(text: str, sentence: str) -> None:
    assert error(text) == sentence


def test_a_killed_client_says_that_it_was_killed() -> None:
    assert parse_iperf(completed("", timed_out=True)).error == "iperf3 did not end in 1.5 s and was killed"


@pytest.mark.parametrize("stdout", ["", "{", "[]", '{"end": {}}', '{"end": {"sum_received": {}}}', '{"end": 3}'])
def test_output_without_a_result_is_an_error_and_never_raises(stdout: str) -> None:
    result = parse_iperf(completed(stdout, stderr="iperf3: bad option\n", returncode=1))
    assert result.error == "iperf3 ended with exit code 1: iperf3: bad option"


def test_command_lines_bind_the_server_and_split_the_rate_over_streams() -> None:
    assert " ".join(server_argv("10.32.0.2", 5201)) == "iperf3 -s -1 -J -B 10.32.0.2 -p 5201"
    transfer = Transfer(protocol="udp", seconds=2, streams=4, rate_mbit=100)
    assert " ".join(client_argv("10.32.0.2", 5201, transfer)) == (
        "iperf3 -c 10.32.0.2 -p 5201 -J -t 2 --connect-timeout 2000 -P 4 -u -b 25000000"
    )


@pytest.mark.parametrize(
    ("mbit", "text"),
    [
        *((1e6, "1000 Gbit/s"), (11574.4, "11.6 Gbit/s"), (999.6, "1 Gbit/s"), (999.0, "999 Mbit/s")),
        *((49.96, "50 Mbit/s"), (0.9996, "1 Mbit/s"), (0.12, "120 kbit/s")),
    ],
)
def test_rates_are_written_with_three_digits(mbit: float, text: str) -> None:
    assert format_rate(mbit) == text
