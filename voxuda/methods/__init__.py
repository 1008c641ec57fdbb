"""The losses that each method minimises, one file per method; ``build`` creates a method by name."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "base": ["Batch", "Method"],
    "losses": ["adversarial_loss", "consistency_loss", "segmentation_loss", "self_information"],
    "options": ["VoxUDAOptions"],
    "pseudo_labels": ["IGNORE", "balanced_labels", "confident_labels"],
    "registry": ["METHODS", "build", "method_class"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when one of its names is used
