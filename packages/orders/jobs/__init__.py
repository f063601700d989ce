"""Every module in here with a JOB becomes a DAG."""
