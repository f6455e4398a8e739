"""What a frame is made of: a layer, its fields, and the layers that are no header (payload, trailer, damage, a cut).

`plugin.core.packet.frame` makes layers from bytes. Every layer knows where it begins (`offset`, counted from the first
byte of the whole frame, inner layers too), how many captured bytes are its own (`header_bytes`), and its `fields`,
whose bytes a viewer can mark. MAC addresses are lower-case text, IP addresses are `ipaddress` values. No parsing here.
"""

from dataclasses import dataclass
from typing import ClassVar

from plugin.core.packet.names import some


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a header, so that a viewer can show it and mark its bytes.

    Attributes:
        name: As the RFC calls it, in lower case.
        offset: First byte, counted from the start of the whole frame.
        width: Number of bytes that hold it.
        value: Raw value: a number, or the text of an address or of bytes in hexadecimal.
        text: For people.
        mask: Which bits of those bytes are the field's; 0 means all.
    """

    name: str
    offset: int
    width: int
    value: int | str
    text: str
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """What all layers have: the place of their bytes in the frame, a name, a summary and fields.

    Attributes:
        offset: First byte, counted from the start of the whole frame.
        header_bytes: Its own captured bytes, without what it carries.
    """

    name: ClassVar[str] = "layer"

    offset: int
    header_bytes: int

    @property
    def order(self) -> tuple[int, int]:
        """Sorts layers as they lie in the frame; one of no bytes (a header that is absent) before what follows it."""
        return self.offset, self.header_bytes

    @property
    def summary(self) -> str:
        """One line that says what this layer says."""
        return self.name

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        return ()


@dataclass(frozen=True, slots=True)
class Payload(Layer):
    """Bytes that no header of ours explains: an application's data, or a protocol that we do not read.

    `header_bytes` is what was captured of it, `wire_bytes` what was sent.
    """

    name: ClassVar[str] = "payload"

    wire_bytes: int

    @property
    def summary(self) -> str:
        """Its size."""
        kept = "" if self.header_bytes == self.wire_bytes else f", {self.header_bytes} of them here"
        return f"{some(self.wire_bytes, 'byte')} of data{kept}"


@dataclass(frozen=True, slots=True)
class Trailer(Layer):
    """Bytes behind the end that the headers state: Ethernet padding to 60 bytes, usually."""

    name: ClassVar[str] = "trailer"

    @property
    def summary(self) -> str:
        """Its size."""
        return f"{some(self.header_bytes, 'byte')} of padding"


@dataclass(frozen=True, slots=True)
class Malformed(Layer):
    """Where the frame contradicts itself. Covers what is left of the part concerned."""

    name: ClassVar[str] = "malformed"

    protocol: str
    reason: str

    @property
    def summary(self) -> str:
        """What is wrong."""
        return f"malformed {self.protocol}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Cut(Layer):
    """A header that exists but is not here: the capture kept less, or it is in another IP fragment."""

    name: ClassVar[str] = "cut"

    protocol: str
    reason: str

    @property
    def summary(self) -> str:
        """What is missing."""
        return f"{self.protocol} not here: {self.reason}"
