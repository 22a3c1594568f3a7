"""Checksums of what lies in pieces: CRC-32, as zlib has it.

The sum of a whole follows from the sums of its pieces, so that pieces are read and summed at the same
time, and no byte is summed twice. As in zlib's ``crc32_combine``: bytes are the coefficients of a
polynomial over GF(2), and a piece of k bytes that follows multiplies what was before by x^8k.
"""

from __future__ import annotations

from functools import cache

POLYNOMIAL = 0xEDB88320  # of CRC-32, the coefficient of x^0 in the highest bit
ONE = 1 << 31  # the polynomial 1
BYTE = 1 << 23  # x^8


def spell_crc32(value: int) -> str:
    """Write a checksum as the files have it.

    Args:
        value: The checksum.

    Returns:
        Its text.

    Examples:
        >>> spell_crc32(255)
        'crc32:000000ff'
    """
    return f"crc32:{value:08x}"


def joined_crc32(first: int, second: int, length: int) -> int:
    """Find the checksum of two pieces, one behind the other.

    Args:
        first: Of the piece before.
        second: Of the piece that follows.
        length: Bytes of the piece that follows.

    Returns:
        That of both.

    Examples:
        >>> import zlib
        >>> joined_crc32(zlib.crc32(b"ab"), zlib.crc32(b"cde"), 3) == zlib.crc32(b"abcde")
        True
    """
    return _product(_shift(length), first) ^ second


@cache
def _shift(length: int) -> int:
    """x^(8 length), by squares."""
    power, square = ONE, BYTE
    while length:
        if length & 1:
            power = _product(power, square)
        square, length = _product(square, square), length >> 1
    return power


def _product(a: int, b: int) -> int:
    """Multiply two polynomials modulo that of CRC-32."""
    product = 0
    while a:
        if a & ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (POLYNOMIAL if b & 1 else 0)
    return product
