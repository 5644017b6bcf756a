"""What the entries of a config have to agree on, by concept, for :mod:`danseg.engine.config.agreement`."""
