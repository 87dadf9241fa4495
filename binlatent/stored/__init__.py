"""Trained models on disk: a work directory, or one file packed from it."""
