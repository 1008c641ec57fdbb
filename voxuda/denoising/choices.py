"""Names of the choices that the paper's section III leaves open, for configurations and the command line; needs no torch."""

from typing import Literal

Gradient = Literal["sobel", "sobel_magnitude"]
Reading = Literal["cube_removed", "cube_kept"]
Average = Literal["variances", "volumes"]
Kind = Literal["gaussian", "poisson", "speckle"]
