"""A trained model as serialized functions and named arrays, which run with JAX alone."""
