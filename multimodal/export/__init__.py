"""Exports: a trained model as a box that opens by itself. `card` is read without torch; `model` loads the network.

Import from the modules themselves (`multimodal.export.card`, `multimodal.export.model`): this file stays empty so that reading
a card never loads torch.
"""
