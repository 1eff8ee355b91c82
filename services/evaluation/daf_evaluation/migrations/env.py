from daf_common.migrations import run_environment
from daf_evaluation.tables import METADATA

run_environment(METADATA)
