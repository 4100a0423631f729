"""Training: the loop, its schedules, the order of samples, checkpoints that survive a kill at any moment.

    train(recipe, "ternary", data=Path("runs/quickstart/data"), out=Path("runs/quickstart/train-ternary"))
"""

from tritwise.train.checkpoint import latest_checkpoint, load_checkpoint_model
from tritwise.train.evaluate import held_out_bits_per_byte
from tritwise.train.loop import train
from tritwise.train.samples import SampleOrder
from tritwise.train.schedule import learning_rate, weight_decay

__all__ = [
    "SampleOrder", "held_out_bits_per_byte", "latest_checkpoint", "learning_rate", "load_checkpoint_model", "train",
    "weight_decay",
]
