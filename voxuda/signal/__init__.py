"""Normalise, resize, filter and rotate arrays; compute contrast transfer, tilt geometry and spectra."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "fourier": ["apply_filter", "frequencies", "radius_grid", "soft_lowpass", "spectral_variance", "spectrum", "volume_of"],
    "normalise": ["unit_range", "zscore"],
    "optics": ["contrast_transfer", "critical_exposure", "ctf", "missing_wedge", "wavelength"],
    "resize": ["fourier_resize"],
    "rotation": ["fourier_shell_correlation"],
    "spectra": ["match_power", "radial_power", "shells", "swap_amplitude"],
    "tilts": ["backproject", "project", "tilt_angles", "weighting"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
