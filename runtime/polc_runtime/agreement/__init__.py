"""How far apart two ways to run one model are, and which files that costs."""
