"""``gsb adapter``: begin an adapter, try it, record and replay its calls, and grade it against its contract."""
