"""The eight stages, one module each; each is one function behind the verb of the same name."""
