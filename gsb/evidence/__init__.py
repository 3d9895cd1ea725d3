"""What the bus can prove: entries now; the Merkle log, its checkpoints and receipts on top of them."""
