"""The truth about exchanges. ``contract`` says what every store promises; each store is native to its database."""
