"""`voxuda segment` of a tomogram beside a plain sliding-window loop of MONAI with the same network."""

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from voxuda.data.mrc import read_mrc, write_mrc
from voxuda.signal.normalise import zscore
from voxuda.training.config import SegmentOptions
from voxuda.training.run_folder import find_model, load_network
from voxuda.training.segmentation import segment_files

SIDE = 128


@pytest.mark.parametrize("flips", [False, True])
def test_segment(against, tmp_path, flips):
    """From file to mask; MONAI's loop has the whole volume in memory, normalises it once, and writes no picture either."""
    volume = np.random.default_rng(0).normal(size=(SIDE,) * 3).astype(np.float32)
    path = write_mrc(tmp_path / "t.mrc", volume, 10.0)
    options, count = SegmentOptions(picture=False, flips=flips, device="cpu"), iter(range(1000))

    def ours():
        segment_files([path], tmp_path / f"ours-{next(count)}", options, progress=False)

    @torch.no_grad()
    def monai():
        network = load_network(find_model("balanced")).to(memory_format=torch.channels_last_3d)
        tomogram = zscore(torch.from_numpy(read_mrc(path).data)[None, None])
        turned = [[], [2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4]] if flips else [[]]
        found = [
            sliding_window_inference(tomogram.flip(axes), (32,) * 3, 8, network, 0.5, "gaussian")
            .softmax(1)[0, 1]
            .flip([a - 2 for a in axes])
            for axes in turned
        ]
        write_mrc(tmp_path / f"monai-{next(count)}.mrc", torch.stack(found).mean(0) > 0.5, 10.0)

    name = f"segment-{SIDE}{'-flips' * flips}"
    against(name, "megavoxels", SIDE**3 / 1e6, ours, monai, "MONAI sliding_window_inference", rounds=1 if flips else 3)
