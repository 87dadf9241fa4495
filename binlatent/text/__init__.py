"""Captions to features.

One protocol (`encoder`) and encoders by name (`named`): words for a text tower that is trained with the prior (`words`), CLIP
and T5 (`pretrained`), and a user's function (`user`).
"""
