"""Whether an H.264 stream may hold fields: half pictures of interlaced video, two of which are one frame.

Containers give each field a packet of its own, so packets do not tell where frames begin. The sequence parameter set
(ITU-T H.264, 7.3.2.1.1) says it in one bit, which stands behind fields of variable length.
"""

START = b"\0\0\1"
SPS = 7  # type of the unit, low five bits of its first byte
CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # that tell of colour and scaling


class _Bits:
    """Reads numbers from the bytes of a unit, from the first bit on."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")  # a 3 keeps the start code out of the data
        self.bits, self.at = "".join(f"{byte:08b}" for byte in plain), 0

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        if self.at + count > len(self.bits):
            raise ValueError("the parameter set ends early")
        self.at += count
        return int(self.bits[self.at - count : self.at] or "0", 2)

    def golomb(self) -> int:
        """A number in Exp-Golomb code; signed ones are as long."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -code // 2


def may_hold_fields(extradata: bytes | None) -> bool:
    """What the parameter set in a stream's extradata says; True where there is none that can be read.

    >>> may_hold_fields(None)
    True
    """
    try:
        return not _frames_only(_Bits(_parameter_set(extradata or b"")))
    except ValueError:
        return True


def _parameter_set(extradata: bytes) -> bytes:
    """The first sequence parameter set, without its type: of an mp4 or Matroska header, or behind a start code."""
    if extradata[:1] == b"\1" and len(extradata) > 8:
        size = int.from_bytes(extradata[6:8], "big")
        return extradata[9 : 8 + size]
    for unit in extradata.split(START)[1:]:
        if unit and unit[0] & 31 == SPS:
            return unit[1:]
    raise ValueError("no parameter set")


def _frames_only(bits: _Bits) -> bool:
    """frame_mbs_only_flag."""
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # its number
    if profile in CHROMA_PROFILES:
        chroma = bits.golomb()
        bits.take(1 if chroma == 3 else 0)
        bits.golomb(), bits.golomb()  # bit depths
        bits.take(1)
        for n in range((12 if chroma == 3 else 8) if bits.take(1) else 0):
            if bits.take(1):
                _skip_scaling(bits, 16 if n < 6 else 64)
    bits.golomb()  # bits of frame_num
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.signed(), bits.signed()
        for _ in range(bits.golomb()):
            bits.signed()
    bits.golomb()  # reference frames
    bits.take(1)
    bits.golomb(), bits.golomb()  # width, height
    return bool(bits.take(1))


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = after = 8
    for _ in range(size):
        if after:
            after = (last + bits.signed()) % 256
        last = after or last
