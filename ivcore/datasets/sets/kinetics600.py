"""Kinetics-600, the validation part: as kinetics400, with 600 human actions."""

import dataclasses

from ivcore.datasets.published import published
from ivcore.datasets.sets import kinetics400

CARD = dataclasses.replace(
    kinetics400.CARD,
    name="Kinetics-600",
    num_captions=600,
    citation="Carreira et al.: A Short Note about Kinetics-600, arXiv:1808.01340, 2018",
)
read = kinetics400.read
recipe, root, rows = published(__name__, CARD, read)
