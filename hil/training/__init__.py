"""How a physical network learns in place."""
