"""How fast the evidence log is written and verified, and how long it takes to prove that an entry stands in it."""
