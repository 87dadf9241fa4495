"""Editing of pictures with a trained model: known pixels, and canvases larger than the model's images."""
