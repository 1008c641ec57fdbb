"""What is minimised, one file a method; ``build`` makes one by its name."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "advent": ["ADVENT"],
    "asc": ["ASC", "ASCSlices"],
    "base": ["Batch", "Method"],
    "cbst": ["CBST"],
    "dann": ["DANN"],
    "domain_randomisation": ["DomainRandomisation"],
    "fda": ["FDA"],
    "le_uda": ["LEUDA", "LEUDASlices"],
    "losses": ["adversarial_loss", "consistency_loss", "prediction_distance", "segmentation_loss", "self_information"],
    "mean_teacher": ["MeanTeacher"],
    "mic": ["MIC"],
    "minent": ["MinEnt"],
    "options": ["VoxUDAOptions"],
    "pdam": ["PDAM"],
    "pseudo_labels": ["IGNORE", "balanced_labels", "class_balanced_labels", "confident_labels"],
    "registry": ["METHODS", "build", "method_class"],
    "source_only": ["SourceOnly"],
    "supervised": ["Supervised"],
    "tent": ["TENT"],
    "vox_uda": ["VoxUDA", "denoise"],
    "zero_shot": ["ZeroShot"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
