"""The review queue: durable, bounded, shared by the replicas of a machine."""
