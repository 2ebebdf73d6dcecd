"""Find a file's encoding from its bytes, and read its lines: UTF-8, GB18030 as Excel writes it in mainland China, Big5
as it does in Taiwan and Hong Kong, UTF-16.

All but UTF-16 are cut by bytes: no byte of their characters is a line break, a comma or a quote. Lines of UTF-16 come
as UTF-8, and offsets count in that.
"""

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import BinaryIO

UTF_8, GB18030, BIG5 = "utf-8", "gb18030", "big5"
TAIWAN, HONG_KONG = "cp950", "big5-hkscs"  # Big5 as Windows writes it, with a euro sign; with more characters, without
UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)  # the first begins as UTF-16 does
MARKS = {
    codecs.BOM_UTF8: UTF_8, codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
    b"\x84\x31\x95\x33": GB18030,
}  # fmt: skip
WIDE = ("utf-16-le", "utf-16-be")
LOOKED_AT = 10**6  # bytes at the beginning of a file that decide its encoding
BIG5_LOOKED_AT = 10_000  # characters that decide between Big5 and GB18030
CHUNK = 2**20  # bytes of UTF-16 that are transcoded at a time
# a character of two or four bytes, or the euro sign of Windows' GBK, which Excel writes and Python's codecs do not know
EURO = re.compile(rb"([\x81-\xfe](?:[\x30-\x39][\x81-\xfe][\x30-\x39]|[\x40-\x7e\x80-\xfe]))|\x80")


def encoding_of(file: str | BinaryIO) -> str:
    """The encoding of a file, by its byte order mark or else by a vote of its lines; UTF-8 for what is read only once.

    Lines that are not ASCII and valid UTF-8 vote for it, lines that are only valid GB18030 for that. Almost all Big5 is
    valid GB18030, so these lines are also looked at as Big5. ValueError for UTF-32, which would be taken for UTF-16.
    """
    if not isinstance(file, str) or not os.path.isfile(file):
        return UTF_8  # a pipe: what is looked at would be gone
    with open(file, "rb") as source:
        begin = source.read(LOOKED_AT)
    if begin.startswith(UTF_32):
        raise ValueError(f"{file} is UTF-32: save it as UTF-8")
    for mark, encoding in MARKS.items():
        if begin.startswith(mark):
            return encoding
    return vote(begin, whole=len(begin) < LOOKED_AT)


def vote(begin: bytes, whole: bool) -> str:
    """The encoding most lines speak for; UTF-8 if as many, or none, speak for it. The last line may be cut."""
    *lines, last = begin.split(b"\n")
    ends = whole or bool(lines)
    lines += [last] if whole or not lines else []
    votes: dict[str, list[bytes]] = {UTF_8: [], GB18030: []}
    for line in lines:
        if not line.isascii():
            for encoding in votes:  # UTF-8 first: most of it is valid GB18030 too
                if is_valid(line, encoding, ends):
                    votes[encoding].append(line)
                    break
    if len(votes[GB18030]) <= len(votes[UTF_8]):
        return UTF_8
    return BIG5 if is_big5([line for line in votes[GB18030] if is_valid(line, HONG_KONG, ends)]) else GB18030


def is_big5(lines: Iterable[bytes]) -> bool:
    """Whether lines that are valid Big5 and GB18030 hold more common characters if they are read as Big5.

    Both standards put the common characters together: Big5 those whose first byte is A4 to C6, GB18030 those whose
    first byte is B0 to D7 and whose second is A1 or more.
    """
    pairs = (found[1] for line in lines for found in EURO.finditer(line) if found[1])
    ahead = 0
    for first, second, *_ in islice(pairs, BIG5_LOOKED_AT):
        ahead += (0xA4 <= first <= 0xC6) - (0xB0 <= first <= 0xD7 and second >= 0xA1)
    return ahead > 0


def is_valid(line: bytes, encoding: str, ends: bool = True) -> bool:
    """Whether the bytes are of this encoding; if it does not end there, the last character may be cut."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(line, ends)
        return True
    except UnicodeDecodeError:
        return False


def decoded(raw: bytes, encoding: str) -> str:
    """The text of bytes that `lines_from` gave; else a ValueError that names the encoding they are likely to have."""
    try:
        if encoding == GB18030:
            return with_euros(raw)
        if encoding == BIG5:
            return raw.decode(TAIWAN if is_valid(raw, TAIWAN) else HONG_KONG)
        return raw.decode(UTF_8)
    except UnicodeDecodeError as error:
        if encoding in WIDE:
            raise ValueError("half a character: this is no whole UTF-16, so the file is damaged here") from error
        raise ValueError(f"{error}; {likely(raw, encoding)}") from error


def likely(raw: bytes, encoding: str) -> str:
    """What bytes are likely to be that are not of the file's encoding."""
    if b"\0" in raw:
        return "its zero bytes look like UTF-16 without a byte order mark: save the file as UTF-8"
    for other in (UTF_8, GB18030):  # UTF-8 that is cut may be valid GB18030, but not the other way round
        if is_valid(raw, other):
            return f"it is likely {other.upper()}, in a file that is read as {encoding.upper()}"
        if not begin_of(raw.rstrip(b"\r\n"), other).isascii():
            return f"it is likely {other.upper()}, cut inside its last character"
    return f"it is neither UTF-8 nor GB18030{' nor Big5' if encoding == BIG5 else ''}: save the file as UTF-8"


def begin_of(raw: bytes, encoding: str) -> str:
    """The text of bytes of this encoding whose last character may be cut; else nothing."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(raw)
    except UnicodeDecodeError:
        return ""
    return "" if decoder.getstate()[0][:1] in (b"\x80", b"\xff") else text  # which begin no character


def with_euros(raw: bytes) -> str:
    """The text of GB18030 in which a lone 0x80 is the euro sign."""
    if b"\x80" in raw:
        raw = EURO.sub(lambda match: match[1] or "€".encode(GB18030), raw)
    return raw.decode(GB18030)


@contextmanager
def lines_from(file: str | BinaryIO, encoding: str, start: int = 0) -> Iterator[Iterable[bytes]]:
    """Yield the lines of a file as bytes, from an offset on at which a line begins; UTF-16 comes as UTF-8."""
    if not isinstance(file, str):
        yield file
        return
    with open(file, "rb") as source:
        if encoding not in WIDE:
            if start:
                source.seek(start)
            yield source
            return
        lines, passed = transcoded(source, encoding), 0
        while passed < start:
            passed += len(next(lines))
        yield lines


def transcoded(source: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield the lines of UTF-16 as UTF-8. Half a character becomes bytes that are no UTF-8: its line alone is bad."""
    decoder, rest = codecs.getincrementaldecoder(encoding)("surrogatepass"), b""
    while chunk := source.read(CHUNK):
        *lines, rest = (rest + decoder.decode(chunk).encode(UTF_8, "surrogatepass")).split(b"\n")
        yield from (line + b"\n" for line in lines)
    left, _ = decoder.getstate()
    if left:
        rest += b"\xff"
    if rest:
        yield rest
