"""Train and evaluate networks, keep runs and checkpoints, and segment whole tomograms."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "config": ["BatchNorm", "Config", "SCALES", "Scale", "SegmentOptions"],
    "devices": ["choose_device"],
    "domains": ["load_domains", "load_target"],
    "evaluation": ["evaluate_run", "iou_and_dice", "predict", "scores"],
    "features": ["deep_features", "domain_features", "separability"],
    "loop": ["train"],
    "peaks": [],
    "provenance": [],
    "run_folder": ["RESULTS", "find_model", "load_network", "read_config"],
    "segment_inputs": [],
    "segmentation": ["Segmented", "segment_files"],
    "signs": ["Signs", "read_signs"],
    "tomograms": [],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
