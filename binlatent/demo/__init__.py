"""`binlatent demo`: a page in the browser over a trained model."""
