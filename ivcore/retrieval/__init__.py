"""A checkpoint and features go in; scores, ranks, their intervals and what a query costs come out."""
