"""Services, leases, health, consumer groups, load balancing and planning on a replicated log."""
