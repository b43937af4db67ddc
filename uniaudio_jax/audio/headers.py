"""What an audio file says of its own length, held against the bytes that are there.

libsndfile takes a file that was cut off for a shorter one. So the containers that state a length are looked at here:
RIFF and RF64 (EBU Tech 3306), AIFF (Apple, 1989), Wave64 (Sony), AU (Sun), NIST Sphere and Ogg (RFC 3533). FLAC and MP3
need no such look, as libsndfile tells the length that they state.
"""

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

UNSTATED_BYTES = (
    range(0x7EFFFF00, 0x7F000009),  # sox, AIFF
    range(0x7FFF0000, 0x80000001),  # sox, espeak-ng and arecord, less a header or the part of a sample
    range(0xFFFF0000, 0x100000000),  # ffmpeg and GStreamer, likewise; AU's word for an unknown length
    range(2**63 - 2**16, 2**63),  # ffmpeg, Wave64
)
"""Lengths of samples that a program writes which cannot go back to its header, as into a pipe."""
OGG_HEADER_BYTES = 27
OGG_LAST_PAGE = 4
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Header(NamedTuple):
    """What a container says beside what libsndfile reads in it."""

    frames: int = 0
    """The number of samples of each channel that it states in words of its own; 0 where it has none."""
    patch: tuple[int, bytes] | None = None
    """A place and the bytes that belong there, where libsndfile would read no sample."""


class Chunks(NamedTuple):
    """How the chunks of a container are laid out: each is a name, a length and its contents."""

    first: int
    name_bytes: int
    length_bytes: int
    order: Literal["little", "big"]
    alignment: int
    samples: bytes
    """The name of the chunk of samples."""
    counts_header: bool = False
    """Whether a length includes the name and the length."""


WAV = Chunks(12, 4, 4, "little", 2, b"data")
AIFF = Chunks(12, 4, 4, "big", 2, b"SSND")
WAVE64 = Chunks(40, 16, 8, "little", 8, b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", counts_header=True)
CHUNKED = {
    b"RIFFWAVE": WAV,
    b"RF64WAVE": WAV,
    b"RIFXWAVE": WAV._replace(order="big"),
    b"FORMAIFF": AIFF,
    b"FORMAIFC": AIFF,
    b"riff\xa5\xd6\x28\xdb": WAVE64,
}
"""The bytes 0 to 3 and 8 to 11 of a file → the layout of its chunks."""


def read_header(file: BinaryIO, size: int, where: str) -> Header:
    """What the header of a file of `size` bytes says.

    Raises ValueError, with `where`, for a file that ends before its samples do, and for a broken page of Ogg.
    """
    start = file.read(12)
    if layout := CHUNKED.get(start[:4] + start[8:]):
        return _read_chunks(file, size, where, layout, start)
    if start[:4] == b".snd":
        _check_length(where, int.from_bytes(start[8:], "big"), size - int.from_bytes(start[4:8], "big"))
    if start[:8] == b"NIST_1A\n":
        stated = re.search(rb"sample_count -i (\d+)", file.read(1024))
        return Header(frames=int(stated[1]) if stated else 0)
    if start[:4] == b"OggS":
        _check_pages(file, size, where)
    return Header()


def _is_unstated(length: int) -> bool:
    return any(length in lengths for lengths in UNSTATED_BYTES)


def _check_length(where: str, stated: int, left: int) -> None:
    if left < stated and not _is_unstated(stated):
        raise ValueError(
            f"{where}: got a truncated file with {max(left, 0)} bytes of samples, wanted the {stated} that its header "
            "promises; copy or record it again"
        )


def _read_chunks(file: BinaryIO, size: int, where: str, layout: Chunks, start: bytes) -> Header:
    """The header of a file of chunks, up to the chunk of samples."""
    frames, long_length = 0, None
    for name, begin, length in _chunks(file, size, layout):
        if name == b"ds64":
            long_length = int.from_bytes(file.read(16)[8:], "little")
        if name == b"COMM" and layout is AIFF:
            frames = int.from_bytes(file.read(6)[2:], "big")
        if name == layout.samples:
            if long_length is not None and length == 0xFFFFFFFF:
                length = long_length
            _check_length(where, length, size - begin)
            # A wav file that states no length is told from an empty one by its size, which it has wrong too.
            ends = int.from_bytes(start[4:8], layout.order) + 8
            if layout.samples == WAV.samples and not length and size > begin and abs(ends - size) > 1:
                return Header(patch=(begin - 4, min(size - begin, 2**32 - 1).to_bytes(4, layout.order)))
            return Header(0 if _is_unstated(length) else frames)
    raise ValueError(f"{where}: got a file without a data chunk (truncated?), wanted samples; write the file again")


def _chunks(file: BinaryIO, size: int, layout: Chunks) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte of the contents, their length) of each chunk, with the file at its contents."""
    head, begin = layout.name_bytes + layout.length_bytes, layout.first
    while begin + head <= size:
        file.seek(begin)
        name, length = file.read(layout.name_bytes), int.from_bytes(file.read(layout.length_bytes), layout.order)
        length = max(0, length - head * layout.counts_header)
        begin += head
        yield name, begin, length
        begin += -(-length // layout.alignment) * layout.alignment


def _check_pages(file: BinaryIO, size: int, where: str) -> None:
    """Raises ValueError for a page whose checksum is wrong, and where the last page does not end the stream."""
    begin, header = 0, b""
    while begin < size:
        file.seek(begin)
        header = file.read(OGG_HEADER_BYTES)
        lengths = file.read(header[-1]) if len(header) == OGG_HEADER_BYTES else b""
        page = header + lengths + file.read(sum(lengths))
        if header[:4] != b"OggS" or page[22:26] != _ogg_checksum(page):
            raise ValueError(
                f"{where}: got a truncated or damaged file, whose Ogg pages are whole up to byte {begin} of {size}, "
                "wanted all of them; copy or record it again"
            )
        begin += len(page)
    if not header[5] & OGG_LAST_PAGE:
        samples = int.from_bytes(header[6:14], "little", signed=True)
        raise ValueError(
            f"{where}: got a truncated file, {size} bytes of Ogg whose last page (sample {samples}) does not end the "
            "stream, wanted one that does; copy or record it again"
        )


def _ogg_checksum(page: bytes) -> bytes:
    """The four bytes that Ogg keeps of a page's checksum: zlib's polynomial over bits in the other order."""
    blank = page[:22] + bytes(4) + page[26:]
    remainder = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return remainder.to_bytes(4, "big").translate(REVERSED_BITS)
