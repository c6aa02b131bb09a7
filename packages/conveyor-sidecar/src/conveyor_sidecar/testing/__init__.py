"""A seeded world around the delivery engine: fake network, services and routers, and its laws."""
