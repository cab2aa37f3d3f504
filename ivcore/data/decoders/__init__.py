"""One decoder a file, each with `VERSION` and `decode(path, table, wanted)`: full-size RGB frames of a file."""
