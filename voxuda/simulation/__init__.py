"""Simulate subtomograms with masks, from bead models of molecules to the tilt series of a specimen."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "beads": [],
    "imaging": ["image_source", "image_target"],
    "microscope": ["Series"],
    "molecules": ["MASK_THRESHOLD", "Molecule", "density"],
    "names": ["IN_CELLS", "NINE", "PAPER_SOURCE_SETS", "STAND_INS", "TARGET_MOLECULES"],
    "packing": ["random_rotations"],
    "quick": ["Subtomograms", "render", "simulate_source", "simulate_target"],
    "rendering": ["render_beads"],
    "samples": ["from_simulation", "save_samples"],
    "specimen": ["Specimen", "build_specimen"],
    "tilt_series": ["simulate_tilt_series"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
