"""A real tomogram crop with one microtubule, and a label of its wall.

The crop is a test file of cylindra (hanjinliu/cylindra, BSD-3-Clause): a microtubule of 13 protofilaments, acquired at the
University of Tokyo, reconstructed by SIRT, binned by 4, protein bright. Its label is fitted, not drawn: it ignores the
missing wedge, which thins the wall at top and bottom, and leaves out gold beads.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from scipy import ndimage, optimize

from voxuda.data.download import check_published, checkout, sha256
from voxuda.data.files import new_folder
from voxuda.data.mrc import write_mrc

URL = "https://github.com/hanjinliu/cylindra"
COMMIT = "578f2a30e340ccf5eb082c39ee39db3b6e475380"
FILE = "tests/13pf_MT.tif"
CHECKSUM = "d6f4a167db615dfeb4fbab846137e6ea84cc11a1167cc64c534902847e67b0df"
"""SHA-256 of the file."""

LICENCE = Path(__file__).with_name("LICENSE-cylindra")
"""Licence of the file, stored beside every copy."""

VOXEL_SIZE = 10.52
"""Edge of a voxel in angstrom."""

MARKED = np.array([(18.97, 190.0, 28.99), (18.97, 107.8, 51.48), (18.97, 35.2, 79.90)])
"""Three points near the axis, z, y, x in nm from the corner, marked by hand in cylindra's tests."""

REACH = 25.0
"""Distance in nm from the marked axis up to which voxels are used in the fit."""

WALL = 8.5, 13.2
"""Inner and outer radius of the wall in nm; the measured radial profile is at half its height at 8.9 and 13.4."""


def fetch(out: str | Path) -> Path:
    """Download the crop, check it, and write ``microtubule.mrc``, ``wall.mrc`` and the licence into a new folder.

    Raises
    ------
    InputError
        git is missing, the repository cannot be reached, the file is not the one published, or the folder is not new.
    """
    with new_folder(out) as work:
        clone = work / "clone"
        checkout(URL, COMMIT, [FILE], clone)
        prepare(clone / FILE, work)
        shutil.rmtree(clone)
    return Path(out)


def prepare(tiff: str | Path, folder: str | Path) -> None:
    """Write the published TIFF as ``microtubule.mrc`` into a folder, with ``wall.mrc`` and the licence beside it.

    Raises
    ------
    InputError
        The file is not the one published.
    """
    check_published(Path(tiff).name, sha256(tiff), CHECKSUM)
    with Image.open(tiff) as pages:
        volume = np.stack([np.asarray(page) for page in ImageSequence.Iterator(pages)])
    write_mrc(Path(folder) / "microtubule.mrc", volume, VOXEL_SIZE)
    write_mrc(Path(folder) / "wall.mrc", find_wall(volume), VOXEL_SIZE)
    shutil.copyfile(LICENCE, Path(folder) / LICENCE.name)


def find_wall(volume: np.ndarray) -> np.ndarray:
    """Label the wall of the microtubule, all voxels whose distance from its axis lies between the radii :data:`WALL`.

    The axis is a parabola in y, and its fit starts from :data:`MARKED`. Its six parameters maximise the correlation of
    the volume, blurred by one voxel, with its own radial profile.

    Parameters
    ----------
    volume : ndarray
        ``(D, H, W)``, protein bright, voxels of :data:`VOXEL_SIZE`.

    Returns
    -------
    ndarray
        ``(D, H, W)`` bool.
    """
    edge = VOXEL_SIZE / 10
    places = (np.indices(volume.shape) + 0.5) * edge
    near = axis_distance(MARKED, places) < REACH
    places_near, values = places[:, near], ndimage.gaussian_filter(volume.astype(float), 1)[near]

    def moved(shifts: np.ndarray) -> np.ndarray:
        """Return the marked points, shifted in z and x."""
        z, x = shifts.reshape(2, 3)
        return MARKED + np.stack([z, np.zeros(3), x], 1)

    def badness(shifts: np.ndarray) -> float:
        distance = axis_distance(moved(shifts), places_near) / edge
        profile = radial_profile(distance, values)
        return -np.corrcoef(np.interp(distance, np.arange(len(profile)), profile), values)[0, 1]

    fitted = optimize.minimize(badness, np.zeros(6), method="Powell", options={"xtol": 0.01})
    distance = axis_distance(moved(fitted.x), places)
    return (distance > WALL[0]) & (distance < WALL[1])


def axis_distance(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the distance of places ``(3, ...)`` from the parabola through points ``(3, 3)``, both z, y, x.

    It is the distance from the tangent at the same y.
    """
    along_z, along_x = (np.polyfit(points[:, 1], points[:, axis], 2) for axis in (0, 2))
    z, y, x = places
    off_z, off_x = z - np.polyval(along_z, y), x - np.polyval(along_x, y)
    slope_z, slope_x = np.polyval(np.polyder(along_z), y), np.polyval(np.polyder(along_x), y)
    along = (off_z * slope_z + off_x * slope_x) ** 2 / (1 + slope_z**2 + slope_x**2)
    return np.sqrt(np.maximum(off_z**2 + off_x**2 - along, 0))


def radial_profile(distance: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean of ``values`` ``(n,)`` at ``distance`` 0, 1, 2, …

    For a smooth profile, each value is shared linearly between the two integers nearest to its distance.
    """
    below = distance.astype(int)
    bins, weights = np.concatenate([below, below + 1]), np.concatenate([below + 1 - distance, distance - below])
    return np.bincount(bins, weights * np.tile(values, 2)) / np.maximum(np.bincount(bins, weights), 1e-9)
