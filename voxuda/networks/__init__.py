"""VoxResNet, discriminators, the EMA teacher."""

from lazy_loader import attach

_NAMES: dict[str, list[str]] = {
    "choices": ["Normalisation"],
    "discriminators": ["Discriminator", "EntropyDiscriminator", "reversal_strength", "reverse_gradient"],
    "normalisation": ["BatchRenorm3d", "mixed_batch_norm"],
    "teacher": ["Teacher"],
    "voxresnet": ["TAPS", "VoxRes", "VoxResNet", "target_batch_norm"],
}
__getattr__, __dir__, __all__ = attach(__name__, _NAMES, _NAMES)  # a module is imported when a name of it is used
