"""Retrieval metrics, matching as a second look, and how sure a difference is."""
