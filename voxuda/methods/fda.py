"""FDA (Yang and Soatto 2020), a source with the target's low frequencies, and confident predictions on the target."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.methods.losses import self_information
from voxuda.signal.normalise import zscore
from voxuda.signal.spectra import swap_amplitude


class FDA(Method):
    """Take amplitudes below ``BAND`` cycles per box from a target sample, and minimise a power of the target's entropy.

    The power weights voxels of high entropy most. One network is trained; the original averages three, of different bands, into
    pseudo-labels and trains again.
    """

    BAND = 2
    WEIGHT = 0.005
    POWER = 2

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        translated = zscore(swap_amplitude(batch.source, batch.target, self.BAND))
        _, seg = supervised_pass(self.student, translated, batch.source_labels)
        entropy = self_information(self.student(batch.target)).sum(1)
        robust = (entropy.square() + 1e-8).pow(self.POWER).mean()
        return {"seg": seg, "ent": self.WEIGHT * robust}
