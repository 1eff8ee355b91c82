from daf_common.migrations import run_environment
from daf_statistics.store import TABLES

run_environment(TABLES)
