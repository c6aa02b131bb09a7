"""Text into typed objects: settings, manifests, JSON Schema."""
