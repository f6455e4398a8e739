import pytest

from plugin.core.errors import InputError
from plugin.core.packet import vxlan


def test_the_header_is_eight_bytes_with_the_i_flag_and_the_vni_in_the_upper_three_of_the_second_word() -> None:
    assert vxlan.build_vxlan(0x123456) == bytes.fromhex("08000000 12345600")


@pytest.mark.parametrize("vni", [1, 2, 6784, 2**24 - 1])
def test_a_header_that_was_built_is_parsed_back(vni: int) -> None:
    header = vxlan.parse_vxlan(vxlan.build_vxlan(vni))
    assert (header.vni, header.vni_valid, header.reserved, header.reserved_last) == (vni, True, 0, 0)


def test_a_header_is_found_at_its_offset_and_its_reserved_bits_are_kept() -> None:
    header = vxlan.parse_vxlan(b"\xff" * 3 + bytes.fromhex("00abcdef 00000142"), 3)
    assert (header.vni_valid, header.reserved, header.vni, header.reserved_last) == (False, 0xABCDEF, 1, 0x42)


def test_seven_bytes_are_no_header() -> None:
    with pytest.raises(vxlan.VxlanError, match="has 8 bytes, found 7"):
        vxlan.parse_vxlan(bytes(7))


@pytest.mark.parametrize("vni", [-1, 0, 2**24])
def test_a_vni_out_of_bounds_is_refused_with_what_was_found(vni: int) -> None:
    with pytest.raises(InputError, match=rf"between 1 and 16777215 is wanted, found {vni}$"):
        vxlan.build_vxlan(vni)


def test_the_overhead_is_fifty_over_ipv4_and_seventy_over_ipv6() -> None:
    assert (vxlan.OVERHEAD_BYTES, vxlan.OVERHEAD_IPV6_BYTES) == (50, 70)


@pytest.mark.parametrize(
    ("uplink", "overlay"), [(1500, 1450), (9000, 8950), (65000, 64950), (65535, 65485), (626, 576)]
)
def test_pods_get_what_the_envelope_leaves(uplink: int, overlay: int) -> None:
    assert vxlan.overlay_mtu(uplink) == overlay


def test_an_ipv6_underlay_costs_twenty_bytes_more() -> None:
    assert vxlan.overlay_mtu(1500, ipv6_underlay=True) == 1430


def test_an_uplink_one_byte_too_small_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(InputError, match="at least 626 bytes is wanted, found 625: VXLAN takes 50") as caught:
        vxlan.overlay_mtu(625)
    assert "626 or more" in caught.value.hint


def test_pods_with_ipv6_need_1280_bytes() -> None:
    assert vxlan.uplink_mtu_min(ipv6_pods=True) == 1330
    assert vxlan.overlay_mtu(1330, ipv6_pods=True) == 1280
    with pytest.raises(InputError, match="pods need 1280 for IPv6"):
        vxlan.overlay_mtu(1329, ipv6_pods=True)


def test_an_mtu_that_cannot_exist_is_refused() -> None:
    with pytest.raises(InputError, match="at most 65535"):
        vxlan.overlay_mtu(65536)
