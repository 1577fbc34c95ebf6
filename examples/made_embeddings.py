"""Made embeddings of the re-ranking examples, and the recall of lists."""

from __future__ import annotations

import numpy as np


def made_embeddings(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of images (I, 64) and of texts (5 I, 64), five about each image.

    Image and texts share what they are about, and each adds something of its own; some images are
    found by too many texts. So the texts of an image are nearer to each other than to the image,
    and neighbours help: on data where they are not, they hurt.

    Returns:
        image vectors, text vectors, and (5 I,) the image of each text: no re-ranker sees it.
    """
    rng = np.random.default_rng(seed)
    owner = np.arange(5 * images) // 5
    about = rng.normal(size=(images, 64))
    popular = rng.normal(size=(images, 1)) * rng.normal(size=64)
    of_images = about + popular + 1.2 * rng.normal(size=(images, 64))
    of_texts = about[owner] + rng.normal(size=(5 * images, 64))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (of_images, of_texts)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32), owner


def recall(i2t_ids: np.ndarray, t2i_ids: np.ndarray, owner: np.ndarray) -> str:
    """Return R@1, R@5, R@10 of both directions in percent; -1 marks an empty slot."""
    found = np.where(i2t_ids >= 0, owner[i2t_ids], -1) == np.arange(len(i2t_ids))[:, None]
    hits = [found, t2i_ids == owner[:, None]]
    return "  ".join(f"{100 * h[:, :k].any(1).mean():5.1f}" for h in hits for k in (1, 5, 10))
