"""Where rollouts happen: adapters of the port `rollout.target.Target`."""
