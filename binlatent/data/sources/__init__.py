"""Where images come from: one file per kind of storage, all with random access.

    base.py               common to all: `source[i]`, replacement of unreadable examples, the rule of held-out examples
    folder.py             image files, in class folders or not      ── index.py lists the folder, once
    shards.py             tar files in WebDataset's layout          ── their headers are read once
    tfds.py               TensorFlow Datasets in array_record files
    arrays.py             an npz file, and scikit-learn's digits
    captioned_digits.py   several digits on a canvas, with sentences
    emoji.py              OpenMoji's pictures, with their names

`splits.open_splits` opens and splits the source that `data.source` names; `loader.py` shuffles, reads and batches;
`decode.py` turns the bytes of a file into pixels, `transforms.py` pixels into a square; `captions.py` reads captions. The
codes of images are a source too: `codes.py`, with `manifest.py` and `tables.py`.
"""
