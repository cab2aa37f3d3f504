"""Training: one loop for s2 and clip, phase by phase."""
