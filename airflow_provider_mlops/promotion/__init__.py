"""Which version serves: the registry port and the promotion protocol."""
