"""Ping's output, as iputils of Debian 12 (20221126) printed it in hand-made namespaces, and what we read in it."""

import pytest

from testbed.probes.ping import describe_ping, interval_within, parse_ping, ping_argv

ANSWERED = """\
PATTERN: 0x77656176656c6162
PING 10.77.0.2 (10.77.0.2) 56(84) bytes of data.
64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.384 ms
64 bytes from 10.77.0.2: icmp_seq=2 ttl=64 time=0.062 ms
64 bytes from 10.77.0.2: icmp_seq=3 ttl=64 time=0.057 ms

--- 10.77.0.2 ping statistics ---
3 packets transmitted, 3 received, 0% packet loss, time 407ms
rtt min/avg/max/mdev = 0.057/0.167/0.384/0.152 ms
"""

UNREACHABLE = """\
PING 10.44.0.1 (10.44.0.1) 56(84) bytes of data.
From 10.32.0.2 icmp_seq=1 Destination Host Unreachable
From 10.32.0.2 icmp_seq=2 Destination Host Unreachable

--- 10.44.0.1 ping statistics ---
2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 1002ms
pipe 2
"""

TOO_LONG = """\
PING 10.77.0.2 (10.77.0.2) 1473(1501) bytes of data.

--- 10.77.0.2 ping statistics ---
2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 201ms

"""
TOO_LONG_ERRORS = """\
ping: local error: message too long, mtu=1500
ping: local error: message too long, mtu=1500
"""

FRAGMENTATION_NEEDED = """\
PING 10.44.0.1 (10.44.0.1) 1472(1500) bytes of data.
From 192.168.56.1 icmp_seq=1 Frag needed and DF set (mtu = 1376)

--- 10.44.0.1 ping statistics ---
1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms
"""

DUPLICATES = """\
PING 10.77.0.2 (10.77.0.2) 56(84) bytes of data.
64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.384 ms
64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.401 ms (DUP!)
64 bytes from 10.77.0.2: icmp_seq=2 ttl=64 time=0.062 ms

--- 10.77.0.2 ping statistics ---
2 packets transmitted, 2 received, +1 duplicates, 0% packet loss, time 201ms
rtt min/avg/max/mdev = 0.062/0.282/0.401/0.156 ms
"""


def test_a_ping_that_is_answered_gives_counts_and_round_trips() -> None:
    result = parse_ping(ANSWERED, requested=3)
    assert (result.sent, result.received, result.loss_percent) == (3, 3, 0.0)
    assert result.rtt is not None
    assert (result.rtt.min_ms, result.rtt.avg_ms, result.rtt.max_ms, result.rtt.mdev_ms) == (0.057, 0.167, 0.384, 0.152)
    assert result.replies_ms == (0.384, 0.062, 0.057)
    assert result.errors == ()
    assert describe_ping(result) == "3 of 3 answered, 0.167 ms on average"


def test_an_unreachable_host_is_data_with_the_reason_once() -> None:
    result = parse_ping(UNREACHABLE, requested=2)
    assert (result.sent, result.received, result.loss_percent) == (2, 0, 100.0)
    assert result.errors == ("Destination Host Unreachable",)
    assert describe_ping(result) == "0 of 2 answered: Destination Host Unreachable"


def test_a_packet_that_is_too_long_for_the_interface_says_so() -> None:
    result = parse_ping(TOO_LONG, TOO_LONG_ERRORS, requested=2)
    assert result.loss_percent == 100.0
    assert result.errors == ("message too long, mtu=1500",)
    newer = parse_ping(TOO_LONG, "ping: sendmsg: Message too long\n", requested=2)  # iputils 20240905
    assert newer.errors == ("Message too long",)


def test_a_router_that_cannot_forward_a_packet_with_df_is_quoted_without_its_address() -> None:
    assert parse_ping(FRAGMENTATION_NEEDED, requested=1).errors == ("Frag needed and DF set (mtu = 1376)",)


def test_duplicates_are_counted_beside_the_replies() -> None:
    result = parse_ping(DUPLICATES, requested=2)
    assert (result.received, result.duplicates) == (2, 1)
    assert describe_ping(result) == "2 of 2 answered, 0.282 ms on average, 1 answered twice"


def test_no_route_means_that_nothing_was_sent() -> None:
    result = parse_ping("", "ping: connect: Network is unreachable\n", requested=3)
    assert (result.sent, result.loss_percent) == (0, 100.0)
    assert describe_ping(result) == "nothing was sent: Network is unreachable"


def test_a_ping_that_was_killed_counts_the_replies_it_had_printed() -> None:
    killed = ANSWERED[: ANSWERED.index("64 bytes from 10.77.0.2: icmp_seq=3")]
    result = parse_ping(killed, requested=3)
    assert (result.sent, result.received, result.loss_percent) == (3, 2, 33.3)
    assert result.rtt is None


def test_partial_loss_is_a_percentage() -> None:
    text = ANSWERED.replace("3 packets transmitted, 3 received, 0%", "4 packets transmitted, 3 received, 25%")
    assert parse_ping(text, requested=4).loss_percent == 25.0


def test_wrong_bytes_in_an_answer_are_an_error_once() -> None:
    text = ANSWERED.replace("0.384 ms\n", "0.384 ms\nwrong data byte #16 should be 0x77 but was 0x0\n#16\t0 0\n")
    assert parse_ping(text, requested=3).errors == ("wrong data byte #16 should be 0x77 but was 0x0",)


@pytest.mark.parametrize("text", ["", "garbage\n", "ping: unrecognized option\n", "\x00\xff"])
def test_output_that_is_none_of_pings_never_raises(text: str) -> None:
    assert parse_ping(text, text, requested=3).sent == 0


def test_the_command_line_has_size_df_and_pattern() -> None:
    argv = ping_argv("10.32.0.2", count=3, size=1422, df=True, pattern=b"\x01\x02")
    assert " ".join(argv) == "ping -n -c 3 -i 0.2 -W 1 -s 1422 -M do -p 0102 10.32.0.2"


@pytest.mark.parametrize(("count", "within_s", "interval_s"), [(3, 10, 0.2), (100, 10, 0.05), (100, 0.5, 0.01)])
def test_many_pings_leave_faster_so_that_they_fit_the_deadline(count: int, within_s: float, interval_s: float) -> None:
    assert interval_within(count, within_s=within_s) == pytest.approx(interval_s)
