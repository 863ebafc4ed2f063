"""Training of M3 encoders. The door is :func:`m3connect.training.loop.train`, which runs a recipe.

    recipe -> examples -> samples in batches -> model -> representations -> scores -> losses -> a step

what to do         recipe.py       the TOML file, validated
the loop           loop.py         plan, step, log, measure, checkpoint: read this first
                   contrastive.py  the task of queries against passages
                   retromae.py     the task of masked texts (pre-training)
data               examples.py     files and folders of training examples, by row
                   sampling.py     which examples meet in which step
                   collate.py      samples to tensors
the loss           criterion.py    scores of all pairs, and who is whose negative
                   losses.py       the paper's objective, as functions of scores
                   gradcache.py    its gradient in the memory of one sub-batch
                   distributed.py  devices and processes, and gradients across them
the model          trainable.py    a checkpoint that can learn, and back
                   surgery.py      heads that start anew, more positions
                   frozen.py       what frozen layers make of a text, computed once
                   lora.py         low-rank adapters
                   optimizer.py    AdamW and its schedule
what is left       checkpoints.py  where a run stands
                   log.py          its figures, and the page of curves
                   measuring.py    development figures during the run
before a run       estimate.py     steps, tokens, memory, time

``m3connect.train`` (``m3connect/trainer.py``) and the command ``m3connect train`` run the loop together with
what measures a recipe's development sets; ``torchrun -m m3connect.training`` is the same in many processes.
"""
