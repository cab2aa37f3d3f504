"""Frames and a frozen vision tower go in, its tokens and pooled vectors come out, on disk."""
