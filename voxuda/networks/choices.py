"""Names of the ways to normalise a network, for configurations and the command line; needs no torch."""

from typing import Literal

Normalisation = Literal["batch", "group", "renorm"]
