"""Vox-UDA, voxel-wise unsupervised domain adaptation for cryo-ET subtomogram segmentation.

The package has nine rooms, and each imports only from those listed before it: ``signal``, ``data``, ``simulation``,
``denoising``, ``networks``, ``methods``, ``training``, ``experiments``, ``commands``. All of them may import ``errors``.

A batch of volumes is ``(B, 1, D, H, W)`` float32 with axes z, y, x; the beam runs along z, the tilt axis is y.
"""

from lazy_loader import attach

__version__ = "0.1.0"

_NAMES: dict[str, list[str]] = {
    "errors": ["InputError"],
    "signal": ["zscore"],
    "data": ["Domain", "load_domain", "read_mrc", "write_mrc"],
    "simulation": ["from_simulation", "save_samples", "simulate_source", "simulate_target", "simulate_tilt_series"],
    "denoising": ["bilateral_filter", "generate_noise", "improved_bilateral_filter", "noise_level"],
    "networks": ["VoxResNet"],
    "methods": ["METHODS", "Method", "VoxUDAOptions", "build"],
    "training": [
        "RESULTS",
        "SCALES",
        "Config",
        "SegmentOptions",
        "evaluate_run",
        "load_network",
        "predict",
        "segment_files",
        "train",
    ],
    "experiments": ["PUBLISHED", "plots", "reproduce"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a room is imported when one of its names is used
