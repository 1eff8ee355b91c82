from daf_common.migrations import run_environment
from daf_evaluation.store import METADATA

run_environment(METADATA)
