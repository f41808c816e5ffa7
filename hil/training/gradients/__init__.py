"""How the gradient of a mini-batch is measured on a network: one file per method."""
