from daf_common.migrations import run_environment
from daf_training.tables import TABLES

run_environment(TABLES)
