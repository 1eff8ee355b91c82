"""Names that older documents of the game use, and what they mean with the cogames of today."""

from __future__ import annotations

# In no release that can be installed; both of today's missions build on a small machine with their own number of cogs.
MISSION_ALIASES = {
    "training_facility_1": "cogsguard_machina_1.miner_tutorial",
    "assembler_2": "cogsguard_arena.basic",
}

POLICY_ALIASES = {
    "baseline": "starter",
    "cogames.policy.scripted_agent.baseline_agent.BaselinePolicy": "starter",
    "cogames.policy.lstm.LSTMPolicy": "lstm",
}
