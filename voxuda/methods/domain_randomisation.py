"""Domain randomisation (Tobin et al. 2017), a source so varied that the target is one more variation."""

import torch

from voxuda.methods.base import Batch, Method, supervised_pass
from voxuda.signal.fourier import apply_filter
from voxuda.signal.normalise import zscore
from voxuda.signal.spectra import last_shell, shells


class DomainRandomisation(Method):
    """Colour the spectrum of every source sample at random, blur it at random, and add white noise of random level.

    No target data are used. The ranges were set before any target was seen: amplitudes of a shell vary by a factor of
    e^0.5 (one standard deviation), the Gaussian blur up to 1.5 voxels, the noise up to twice the sample's standard deviation.
    """

    COLOUR = 0.5
    BLUR = 1.5
    NOISE = 2.0

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        return {"seg": supervised_pass(self.student, self.randomise(batch), batch.source_labels)[1]}

    def randomise(self, batch: Batch) -> torch.Tensor:
        """Randomise each source sample ``(B, 1, D, D, D)`` independently, and return it with mean 0 and variance 1."""
        samples, size, device = len(batch.source), batch.source.shape[-1], batch.source.device
        radius = shells(size, device)
        last = last_shell(size)
        normal = torch.randn(samples, last + 1, generator=batch.generator, device=device)
        # A random walk over the shells, so that neighbouring frequencies change alike.
        walk = normal.cumsum(1) / torch.arange(1, last + 2, device=device).sqrt()
        colour = (self.COLOUR * walk).exp()[:, radius][:, None]
        blur, level = torch.rand(samples, 2, 1, 1, 1, 1, generator=batch.generator, device=device).unbind(1)
        smooth = torch.exp(-2 * (torch.pi * self.BLUR * blur * radius / size).square())
        changed = zscore(apply_filter(batch.source, colour * smooth))
        white = torch.randn(batch.source.shape, generator=batch.generator, device=device)
        return zscore(changed + self.NOISE * level * white)
