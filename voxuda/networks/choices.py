"""How a network is normalised, by name; without torch, for configurations and the command line."""

from typing import Literal

Normalisation = Literal["batch", "group", "renorm"]
