"""Read files into samples (MRC, star files, folders, tilt stacks, domains, real data sets) and check your own data."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "checks": ["Report"],
    "domain": ["Domain"],
    "download": [],
    "files": [],
    "listing": ["Entry", "list_entries"],
    "microtubule": [],
    "mrc": ["Volume", "read_mrc", "write_mrc"],
    "ribosomes": [],
    "subtomograms": ["SubtomogramFolder", "load_domain", "read_folder"],
    "tilt_stacks": ["Particle", "read_particles"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when one of its names is used
