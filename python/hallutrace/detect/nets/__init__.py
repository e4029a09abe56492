"""Parts of detectors that are neural networks; importing them needs torch.

Files, in the order of imports: ``training_options``, ``checkpoints`` (safetensors), ``history``
(epochs as files, diagnosis), ``history_log`` (a log that can be followed), ``task`` (what is
trained), ``training`` (the loop), ``graph_batches`` (batches of graphs), ``message`` (message
passing), ``encoders`` and ``vae`` (networks), ``vae_tasks`` and ``anomaly`` (of the graph VAE),
``detector`` and ``graph_detector`` (bases of detectors).
"""
