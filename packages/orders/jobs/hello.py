"""The smallest job: a function and a line that says what it is."""


def main(argv):
    """Say hello."""
    print("hello from a job")


JOB = (main, "Say hello")
