"""python -m orchestrator."""

from orchestrator.cli import main

if __name__ == "__main__":  # a process that validates batches imports the main module of its parent
    main()
