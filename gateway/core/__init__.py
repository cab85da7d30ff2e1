"""The decision: verdicts, outcomes, and the pipeline that gives every row exactly one."""
