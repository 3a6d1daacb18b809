"""TinyLIC's networks, which POLC and MPA share."""
