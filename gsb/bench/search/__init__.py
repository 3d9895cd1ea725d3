"""How long it takes to find exchanges among very many."""
