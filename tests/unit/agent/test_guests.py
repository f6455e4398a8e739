"""Callers on TCP: strangers never take the places of members."""

from ipaddress import IPv4Address

from plugin.agent.guests import PER_ADDRESS_MAX, SERVED_MAX, STRANGERS_BYTES_MAX, STRANGERS_MAX, Guest, Guests

FIRST_MEMBER, FIRST_STRANGER = IPv4Address("192.168.56.11"), IPv4Address("10.32.0.2")


def guests() -> Guests:
    return Guests(lambda address: address >= FIRST_MEMBER)


def filled(guests: Guests, first: IPv4Address, count: int) -> list[Guest]:
    entered = (guests.enter(first + number) for number in range(count))
    return [guest for guest in entered if guest is not None]


def test_one_address_has_so_many_places() -> None:
    held = guests()
    first = [held.enter(FIRST_MEMBER) for _ in range(PER_ADDRESS_MAX + 1)]
    assert first.index(None) == PER_ADDRESS_MAX
    assert held.enter(FIRST_MEMBER + 1) is not None
    guest = first[0]
    assert guest is not None
    guest.leaves()
    assert held.enter(FIRST_MEMBER) is not None


def test_strangers_with_many_addresses_leave_room_for_members() -> None:
    held = guests()
    assert len(filled(held, FIRST_STRANGER, 1000)) == STRANGERS_MAX
    assert len(filled(held, FIRST_MEMBER, 1000)) == SERVED_MAX - STRANGERS_MAX
    assert held.is_full


def test_who_leaves_leaves_no_trace() -> None:
    held = guests()
    for guest in filled(held, FIRST_STRANGER, 1000) + filled(held, FIRST_MEMBER, 1000):
        assert guest.announces(1000)
        guest.leaves()
    assert (held.count, held._strangers, held._strangers_bytes, dict(held._by_address)) == (0, 0, 0, {})


def test_what_strangers_announce_together_is_bounded_and_members_may_send_all_the_same() -> None:
    held = guests()
    first, second = filled(held, FIRST_STRANGER, 2)
    (member,) = filled(held, FIRST_MEMBER, 1)
    assert first.announces(STRANGERS_BYTES_MAX)
    assert not second.announces(1)
    assert member.announces(8 << 20)
    first.leaves()
    assert second.announces(1)
