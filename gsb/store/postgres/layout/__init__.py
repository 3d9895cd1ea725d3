"""The tables of the PostgreSQL store: what they are, how they are brought up to date, and which are let go whole."""
