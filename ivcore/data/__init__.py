"""From video files and captions to tensors: data sets, ingest, decoding, loading, tokenizing."""
