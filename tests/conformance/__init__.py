"""Conformance of the metrics: fixtures whose values come from definitions, never from our own output.

`fixtures/*.json` hold inputs, expected values and a `why` for each; `formulas.py` holds BLEU, ROUGE-L, CIDEr-D,
leave-one-out accuracy and intersection over union a second time, written from the papers.

Known traps of these metrics and where they are tested:

- whitespace that crashes METEOR or misplaces captions: `test_java.py`, "tokens" and "hostile" of `captions.json`;
- CIDEr of one image, metrics that are unavailable: `captions.json`, `test_java.py`;
- normalising only where people differ: `vqa.json`;
- boxes without their last digit, IoU strictly above one half, unparsed boxes: `grounding.json`, `test_properties.py`;
- weighted means that carry state from one key to the next: `test_properties.py`;
- images that are cropped instead of padded, adapter keys that fit nowhere: `tests/backbone/test_backbone.py`;
- trainable tensors without a gradient: `tests/federation/test_client.py`.
"""
