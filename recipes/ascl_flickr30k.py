"""Trains on Flickr30K, Flickr8k or the like: `ascl_coco.py` under another name.

    accelerate launch recipes/ascl_flickr30k.py --data_root DIR \\
        --config recipes/configs/flickr30k_acf.yaml

DIR holds `dataset_flickr30k.json` (Karpathy) and the images. Everything else: see `ascl_coco.py`.
"""

from __future__ import annotations

import sys

from ascl_plugin.training.recipe import main

if __name__ == "__main__":
    sys.exit(main(name="ascl_flickr30k"))
