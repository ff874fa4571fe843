"""What an optimizer remembers: read and change it by name, carry it over, describe it, watch it."""
