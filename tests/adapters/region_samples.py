"""Region features written as their publishers write them, with none of the code under test."""

from __future__ import annotations

import base64

import numpy as np


def features(ids, counts, dim=6, boxes=True, dtype=np.float32, seed=0):
    """{id: (features (K, D), boxes (K, 4) or None)}."""
    draw = np.random.default_rng(seed)
    made = {}
    for image_id, count in zip(ids, counts, strict=True):
        box = draw.uniform(0, 600, (count, 4)).astype(np.float32) if boxes else None
        made[image_id] = draw.normal(size=(count, dim)).astype(dtype), box
    return made


def tsv_line(image_id, values, boxes, lxmert=False):
    """A line as bottom-up attention or LXMERT writes it."""
    columns = [image_id, "640", "480"]
    columns += ["AA==", "AA==", "AA==", "AA=="] if lxmert else []
    encoded = [base64.b64encode(a.astype("<f4").tobytes()).decode() for a in (boxes, values)]
    return "\t".join([*columns, str(len(values)), *encoded]) + "\n"


def write_tsv(path, images, lxmert=False):
    path.write_text("".join(tsv_line(i, *both, lxmert) for i, both in images.items()))


def write_scan(folder, name, images, ids=True, repeat=1, captions=5):
    """`X_ims.npy` of equal counts, `X_caps.txt`, `X_ids.txt` (one line an image)."""
    folder.mkdir(exist_ok=True)
    array = np.stack([values for values, _ in images.values()]).repeat(repeat, axis=0)
    np.save(folder / f"{name}_ims.npy", array)
    lines = [f"caption {k} of {image_id}\n" for image_id in images for k in range(captions)]
    (folder / f"{name}_caps.txt").write_text("".join(lines))
    if ids:
        (folder / f"{name}_ids.txt").write_text("".join(f"{i}\n" for i in images))


def write_hdf5(path, images, ids=True):
    """`features`, `bbox`, `num_bbx`."""
    import h5py

    counts = [len(values) for values, _ in images.values()]
    dim = next(iter(images.values()))[0].shape[1]
    with h5py.File(path, "w") as file:
        file["num_bbx"] = counts
        whole = np.zeros((len(images), max(counts), dim), np.float32)
        boxes = np.zeros((len(images), max(counts), 4), np.float32)
        for row, (values, box) in enumerate(images.values()):
            whole[row, : len(values)] = values
            boxes[row, : len(values)] = box
        file.create_dataset("features", data=whole, chunks=(1, *whole.shape[1:]))
        file["bbox"] = boxes
        if ids:
            file["image_ids"] = list(images)


def write_hdf5_images(path, images):
    """One data set an image, with boxes two."""
    import h5py

    with h5py.File(path, "w") as file:
        for image_id, (values, boxes) in images.items():
            if boxes is None:
                file[image_id] = values
            else:
                file[f"{image_id}_features"], file[f"{image_id}_boxes"] = values, boxes


def write_folder(folder, images):
    """One .npz an image, without boxes one .npy."""
    folder.mkdir()
    for image_id, (values, boxes) in images.items():
        if boxes is None:
            np.save(folder / f"{image_id}.npy", values)
        else:
            info = np.array({"an": "object"}, dtype=object)  # as published extractors add
            np.savez_compressed(folder / f"{image_id}.npz", x=values, bbox=boxes, info=info)
