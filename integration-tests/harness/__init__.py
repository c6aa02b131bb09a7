"""What the integration tests share: real clusters, clients, and a receiver of traces."""
