"""Trains on COCO, or on drawn scenes without a download; the same as `ascl train`.

    accelerate launch recipes/ascl_coco.py                       # drawn scenes
    accelerate launch recipes/ascl_coco.py --data_root DIR       # a small model on DIR
    accelerate launch recipes/ascl_coco.py --data_root DIR --config coco_acf   # the papers' setup

DIR holds COCO (2014 or 2017 images and a Karpathy JSON, or COCO's own captions JSON), or anything
else that `ascl_plugin.data.readers` reads. Options: `--help`; configurations: recipes/configs.
"""

from __future__ import annotations

import sys

from ascl_plugin.training.recipe import main

if __name__ == "__main__":
    sys.exit(main(name="ascl_coco"))
