"""One data set a file; the file's name is the name in the config.

A data set has CARD (name, licence, citation, splits, main_score), `recipe(data)` (what enters the manifest's key),
`root(store, data)` (the folder that manifest paths are below) and `rows(data, root)` (clips and captions as dicts).
"""
