"""Generated protobuf modules: the contract with services, and the frames between sidecars."""
