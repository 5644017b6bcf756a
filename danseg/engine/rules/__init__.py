"""What the entries of a config have to agree on, by concept; :mod:`danseg.engine.agreement` asks them all."""
