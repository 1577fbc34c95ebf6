"""open_clip's own trainer, 3 or 4, with the asymmetry loss in place of `ClipLoss`.

    python examples/open_clip_training.py --model ViT-B-32 --train-data pairs.csv \
        --csv-separator , --batch-size 256 --precision amp_bf16 --epochs 5

Flags are open_clip's: `--local-loss` and `--gather-with-grad` act as they do there, checkpoints and
logs are where it puts them. On several GPUs give both: gradients are then those of one process with
the whole batch. Needs `pip install "open_clip_torch[training]"`.
"""

import sys

from open_clip_train import main as trainer

from ascl_plugin.adapters.losses.open_clip import install

install(trainer)

if __name__ == "__main__":
    trainer.main(sys.argv[1:])
