"""What is minimised, one file a method; ``build`` makes one by its name."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "base": ["Batch", "Method"],
    "losses": ["adversarial_loss", "consistency_loss", "segmentation_loss", "self_information"],
    "options": ["VoxUDAOptions"],
    "pseudo_labels": ["IGNORE", "balanced_labels", "confident_labels"],
    "registry": ["METHODS", "build", "method_class"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
