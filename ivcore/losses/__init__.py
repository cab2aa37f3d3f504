"""Embeddings, states and logits go in, a loss comes out; one loss a file."""
