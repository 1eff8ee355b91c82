from daf_common.migrations import run_environment
from daf_deployment.store import TABLES

run_environment(TABLES)
