"""The step versions: raise a number when the step's bytes change for the same recipe."""

VERSIONS = {
    "videos": 2,
    "manifest": 6,
    "frame_shard": 4,
    "frames": 4,
    "features": 4,
    "s2": 11,
    "clip": 9,
    "scores": 5,
    "report": 22,
}
