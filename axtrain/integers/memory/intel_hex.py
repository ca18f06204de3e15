"""Intel HEX: bytes with addresses and checksums as text, for programmers and loaders of memories."""

from __future__ import annotations

_IN_A_RECORD = 16  # bytes, as most programmers write and all read
_DATA, _END, _UPPER_ADDRESS = 0, 1, 4


def intel_hex(data: bytes) -> str:
    """Text of the records ``:LLAAAATT DATA CC``, at byte addresses from 0.

    LL is the number of data bytes, AAAA the low half of the address, TT the kind (data; the upper half of the address,
    before every 64 KiB but the first; the end), CC what makes the sum of all bytes of a record 0 modulo 256.
    Source: Intel, Hexadecimal Object File Format Specification, revision A, 1988 (its I32HEX form).

    Raises:
        ValueError: more bytes than 32 bits of address.

    >>> print(intel_hex(bytes.fromhex("0f10ff")), end="")
    :030000000F10FFDF
    :00000001FF
    """
    if len(data) > 1 << 32:
        raise ValueError(f"Intel HEX has addresses of 32 bits. Received: {len(data)} bytes")
    records = []
    for start in range(0, len(data), _IN_A_RECORD):
        if start and start % (1 << 16) == 0:
            records.append(_record(0, _UPPER_ADDRESS, (start >> 16).to_bytes(2, "big")))
        records.append(_record(start % (1 << 16), _DATA, data[start : start + _IN_A_RECORD]))
    return "\n".join([*records, _record(0, _END, b"")]) + "\n"


def _record(address: int, kind: int, data: bytes) -> str:
    content = bytes([len(data), address >> 8, address & 0xFF, kind]) + data
    return f":{content.hex().upper()}{-sum(content) % 256:02X}"
