"""The experiment: a whole model under TP, PP and replicas of each, and what it says of TP against PP."""
