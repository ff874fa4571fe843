"""How a value reads: as code, and as mathematics."""
