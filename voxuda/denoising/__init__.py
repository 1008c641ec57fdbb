"""Noise generation module, bilateral filter and improved bilateral filter, the paper's section III."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "bilateral": ["bilateral_filter", "improved_bilateral_filter"],
    "choices": ["Average", "Gradient", "Kind", "Reading"],
    "noise": ["PAPER_RATES", "generate_noise", "highpass", "ngm_denoise", "noise_level"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
