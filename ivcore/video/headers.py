"""What the bytes of a container say beside what FFmpeg tells: whether the file is whole, and how it is to be shown.

mp4 is a tree of boxes (length, name, content), Matroska of elements (id, length, content), AVI of RIFF chunks. An MPEG
transport stream has no length and no end: whether one was cut cannot be known.
"""

import codecs
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
POSE = re.compile(rb"\x76[\x73-\x75][\x84\x88]")  # Matroska: yaw, pitch or roll as a float
HEAD = 1 << 16  # bytes in which Matroska's tracks stand
OTHERS = {b"%PDF": "a PDF", b"PK\x03\x04": "a zip archive", b"\x1f\x8b": "a gzip archive", b"\x89PNG": "a PNG picture"}
OTHERS |= {b"\xff\xd8\xff": "a JPEG picture", b"Rar!": "a rar archive", b"\x7fELF": "a program"}
UNCLOSED = (0, 0xFFFFFFFF)  # lengths of an AVI whose writer did not come back to fill them in

Box = tuple[bytes, int, int]  # name, first byte of the content, first byte after it


def cut_short(path: Path, size: int) -> str:
    """Why the file of `size` bytes is not whole, "" when nothing says so."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] == b"ftyp":
            return _mp4_cut(file, size)
        if head[:4] == EBML:
            return _matroska_cut(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _avi_cut(file, size)
    return ""


def no_video(path: Path) -> str:
    """What the file is instead, where FFmpeg finds no container in it; "" where nothing says so."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    found = next((kind for magic, kind in OTHERS.items() if head.startswith(magic)), "")
    if found or not head.strip(b"\0"):
        return found or "zeros, as of a file that was never filled"
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return ""
    return "" if any(c < " " and not c.isspace() for c in text) else f"a text, which begins with {text.strip()[:40]!r}"


def turned(path: Path, size: int) -> str:
    """How it is to be shown, where decord does not know: mirrored, or turned in Matroska; "" else."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head[:4] == EBML:
            found = POSE.search(head, 0, head.find(CLUSTER) % (len(head) + 1))
            return "turned in Matroska" if found else ""
        if head[4:8] == b"ftyp":
            return "mirrored" if any(_mirrored(file, track) for track in _tracks(file, size)) else ""
    return ""


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[Box]:
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        length, name, begin = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if length == 1:  # the true length follows
            length, begin = int.from_bytes(head[8:], "big"), at + 16
        if length == 0:  # to the end of the file
            length = end - at
        if length < begin - at:  # damaged
            return
        yield name, begin, at + length
        at += length


def _mp4_cut(file: BinaryIO, size: int) -> str:
    boxes = list(_boxes(file, 0, size))
    if any(name in (b"moov", b"moof", b"mdat") and end > size for name, _, end in boxes):
        return f"its boxes reach to byte {max(end for _, _, end in boxes)}, the file has {size}"
    whole = any(name == b"moov" for name, _, _ in boxes)
    return "" if whole else "an mp4 without its index: cut short, or never closed"


def _tracks(file: BinaryIO, size: int) -> Iterator[Box]:
    for name, begin, end in _boxes(file, 0, size):
        if name == b"moov":
            yield from (box for box in _boxes(file, begin, end) if box[0] == b"trak")


def _mirrored(file: BinaryIO, track: Box) -> bool:
    for name, begin, _ in _boxes(file, *track[1:]):
        if name == b"tkhd":
            file.seek(begin)
            content = file.read(96)
            at = 52 if content[0] == 1 else 40  # times of 8 or of 4 bytes stand before the matrix
            a, b, _, c, d = struct.unpack_from(">5i", content, at)
            return bool(a * d < b * c)
    return False


def _matroska_cut(file: BinaryIO, size: int) -> str:
    at = 0
    for wanted in (EBML, SEGMENT):
        file.seek(at)
        head = file.read(12)
        if head[:4] != wanted or len(head) < 5 or head[4] == 0:
            return ""
        width = 9 - head[4].bit_length()  # of the length, whose first set bit says so
        length = int.from_bytes(head[4 : 4 + width], "big") - (1 << 7 * width)
        if length == (1 << 7 * width) - 1:  # not known when it was written: a live stream
            return ""
        at += 4 + width + length
    return f"its segment reaches to byte {at}, the file has {size}" if at > size else ""


def _avi_cut(file: BinaryIO, size: int) -> str:
    at = 0
    while at + 12 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF" or length in UNCLOSED:
            return ""
        at += 8 + length
        if at > size:
            return f"its chunks reach to byte {at}, the file has {size}"
        at += length % 2
    return ""
