"""A phase of s2 or clip: frames or features and the checkpoint before go in, the next checkpoint comes out."""
