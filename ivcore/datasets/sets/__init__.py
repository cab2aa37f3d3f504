"""One data set a file; the file's name is the name in the config.

A data set has CARD (ivcore/datasets/cards.py), `recipe(store, data)` (what enters the manifest's key), `root(store,
data)` (the folder that manifest paths are below) and `rows(data, root)` (clips and captions as dicts). A published one
states its CARD and how its annotation is read, and has the three functions from ivcore/datasets/published.py.
"""
