"""What each decoder takes, on the same clips."""

from pathlib import Path

from ivcore.video import decoder_cost
from tests.ivcore.video.made_up import numbered, task


def test_what_each_decoder_takes_is_measured_on_the_same_clips(tmp_path: Path) -> None:
    numbered(tmp_path / "long.mp4", 240)
    numbered(tmp_path / "short.mp4", 24)
    numbered(tmp_path / "stream.ts", 24)  # decord cannot be trusted with it
    tasks = [task(tmp_path / name) for name in ("long.mp4", "short.mp4", "stream.ts", "missing.mp4")]
    took = decoder_cost.decoder_ms(tasks)
    assert took.pop("clips") == 2 and took.pop("only_pyav") == 1
    assert took.keys() == {"decord", "pyav"} and all(0.1 < ms < 10_000 for ms in took.values()), took
    assert decoder_cost.decoder_ms(tasks[2:]) == {}
    assert decoder_cost.drawn(range(49)) == [] and len(decoder_cost.drawn(range(10_000))) == 8
    assert decoder_cost.drawn(range(120)) == decoder_cost.drawn(range(120)) and len(decoder_cost.drawn(range(120))) == 2
