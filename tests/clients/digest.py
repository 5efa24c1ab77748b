"""What a client should hold, as one number: docs/protocol.md, Digest. Written from that page alone."""

from collections.abc import Iterable
from decimal import Context, Decimal
from functools import lru_cache

POLYNOMIAL = 0x82F63B78  # Castagnoli's, its bits reversed
EXACT = Context(prec=60)  # no decimal of the gateway has as many digits
CODES = {"state", "phase"}


def remainder(byte: int) -> int:
    """Of one byte, divided bit by bit."""
    for _ in range(8):
        byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
    return byte


TABLE = [remainder(byte) for byte in range(256)]


@lru_cache(maxsize=1 << 14)
def crc32c(data: bytes) -> int:
    """RFC 3720, appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def plain(value: object) -> str:
    """A decimal without exponent and without zeros at its end."""
    return f"{Decimal(value).normalize(EXACT):f}"


def value_text(name: str, value: object) -> str:
    """One field's value."""
    if value is None:
        return ""
    if name in CODES:
        return value
    return value.replace("-", "") if name == "trading_date" else plain(value)


def image(topic: str, row: dict, fields: Iterable[str]) -> str:
    """The text of an image; the fields in the order of a whole row."""
    return topic + "".join(f";{name}={value_text(name, row[name])}" for name in fields)


def book(topic: str, row: dict) -> str:
    """The text of a book."""
    bids, asks = ("".join(f"{plain(price)}:{plain(size)}," for price, size in row[side]) for side in ("bids", "asks"))
    return f"{topic};state={row['state']};bids={bids};asks={asks}"


def digest(texts: Iterable[str]) -> int:
    """The sum over all images and books."""
    return sum(crc32c(text.encode()) for text in texts) % (1 << 32)
