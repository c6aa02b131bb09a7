"""Carries Conveyor between processes: servers, clients, interceptors, one error table."""
