"""`python -m tests.peak_memory OPTIONS` runs the builder and prints its peak resident memory in kilobytes."""

import resource

from data_pipelines.builder import main

if __name__ == "__main__":
    main()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
