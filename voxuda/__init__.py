"""Vox-UDA: voxel-wise unsupervised domain adaptation for cryo-ET subtomogram segmentation.

Nine rooms; each imports only from those named before it: ``signal``, ``data``, ``simulation``, ``denoising``, ``networks``,
``methods``, ``training``, ``experiments``, ``commands``. Below them all stands ``errors``.

A batch of volumes is ``(B, 1, D, H, W)`` float32 with axes z, y, x; the beam runs along z, the tilt axis is y.
"""

__version__ = "0.1.0"
