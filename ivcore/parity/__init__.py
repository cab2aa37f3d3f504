"""Numbers recorded from upstream's code and our models go in, the largest differences come out."""
