"""Video files go in, frames come out: probe, sample, decode, resize, keep in shards, read back."""
