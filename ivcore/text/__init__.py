"""Captions go in, token ids come out."""
