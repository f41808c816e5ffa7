"""What plays the far end of the wire, and rigs that are computed; `hil` never imports it."""
