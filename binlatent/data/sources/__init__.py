"""Where images come from: one kind of storage a file, all read by random access.

    base.py     what every source gives: `source[i]`, the answer to unreadable examples, the rule that holds some out
    folder.py   image files, in class folders or not      ── index.py lists the folder, once
    shards.py   tar files as WebDataset lays them out     ── their headers are read once
    tfds.py     TensorFlow Datasets in array_record files
    arrays.py   an npz file, and scikit-learn's digits

The way of an image: `splits.open_splits` opens the source that `data.source` names and divides it; `loader` shuffles,
reads and batches; `decode.py` turns the bytes of a file into pixels, `transforms.py` into a square; `captions.py` reads
what was written about it. The codes of images are a source too: `codes.py`, with `manifest.py` and `tables.py`.
"""
