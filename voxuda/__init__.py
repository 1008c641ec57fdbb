"""Vox-UDA: voxel-wise unsupervised domain adaptation for cryo-ET subtomogram segmentation.

Data flows downwards through the modules, in this order: ``lanes``, ``memory``, ``volumes``, ``options``, ``folders``,
``molecules``, ``derivation``, ``optics``, ``packing``, ``rendering``, ``tilts``, ``imaging``, ``simulate``, ``specimen``,
``microscope``, ``tiltseries``, ``data``, ``maps``, ``particles``, ``evidence``, ``ribosomes``, ``noise``, ``style``,
``bilateral_loops``, ``bilateral``, ``_bilateral_triton``, ``voxresnet``, ``adversary``, ``parallel``, ``teacher``,
``losses``, ``methods``, ``runs``, ``training``, ``evaluation``, ``embedding``, ``tiles``, ``tables``, ``experiments``,
``intervals``, ``published``, ``report``, ``ladder``, ``plots``, ``commands``, ``cli``. A batch of volumes is
``(B, 1, D, H, W)`` float32 with axes z, y, x; the beam runs along z, the tilt axis is y.
"""

__version__ = "0.1.0"
