"""What the nodes of one bus share beside the exchanges: leases, budgets, places at core systems, and one clock."""
