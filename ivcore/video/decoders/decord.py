"""Frames by decord, which numbers frames by packets: only for files whose packet table is clean."""

import decord

from ivcore.video.decoders import Pictures, Wanted
from ivcore.video.probe import Unusable, Video

VERSION = f"decord {decord.__version__}"
TOLERANCE_S = 1e-3  # decord keeps times as 32-bit floats
decord.logging.set_level(decord.logging.QUIET)


def decode(video: Video, wanted: Wanted) -> Pictures:
    """The wanted frames.

    Raises:
        Unusable: decord counts other frames than the packet table, or gives them other times.
        decord.DECORDError, RuntimeError: decord's own.
    """
    times = video.table.pts_s
    reader = decord.VideoReader(str(video.path), ctx=decord.cpu(0), num_threads=1)
    if len(reader) != len(times):
        raise Unusable("wrong_frames", f"decord counts {len(reader)} frames, the packet table {len(times)}")
    index = wanted(times)
    begins = reader.get_frame_timestamp([0, *index])[:, 0]  # [1 + T], from a beginning of its own
    for i, after_s in zip(index, begins[1:] - begins[0]):
        true_s = times[i] - times[0]
        if abs(after_s - true_s) > max(TOLERANCE_S, 1e-6 * true_s):
            raise Unusable("wrong_frames", f"decord shows frame {i} after {after_s:.3f} s, not {true_s:.3f} s")
    return Pictures(list(reader.get_batch(index).asnumpy()), index, times)
