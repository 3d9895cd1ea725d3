"""The parts of the manuals that are made from the code; ``python -m gsb.manual`` renews them all."""
