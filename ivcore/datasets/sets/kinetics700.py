"""Kinetics-700, the validation part: as kinetics400, with 700 human actions."""

import dataclasses

from ivcore.datasets.published import published
from ivcore.datasets.sets import kinetics400

CARD = dataclasses.replace(
    kinetics400.CARD,
    name="Kinetics-700",
    num_captions=700,
    citation="Carreira et al.: A Short Note on the Kinetics-700 Human Action Dataset, arXiv:1907.06987, 2019",
)
read = kinetics400.read
recipe, root, rows = published(__name__, CARD, read)
