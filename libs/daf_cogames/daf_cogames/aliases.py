"""Names that are not cogames' own: of our corrected policies, and those that older documents of the game use."""

from __future__ import annotations

# In no release that can be installed; both of today's missions build on a small machine with their own number of cogs.
MISSION_ALIASES = {
    "training_facility_1": "cogsguard_machina_1.miner_tutorial",
    "assembler_2": "cogsguard_arena.basic",
}

POLICY_ALIASES = {
    "baseline": "starter",
    "cogames.policy.scripted_agent.baseline_agent.BaselinePolicy": "starter",
    "cogames.policy.lstm.LSTMPolicy": "lstm_corrected",
}

CORRECTED_MODULE = "daf_cogames.corrected"

# Short names of its classes.
CORRECTED_POLICIES = {
    "lstm_corrected": f"{CORRECTED_MODULE}.LSTMPolicy",
    "puffer_corrected": f"{CORRECTED_MODULE}.PufferDefaultPolicy",
    "pufferlib_cogs_corrected": f"{CORRECTED_MODULE}.PufferlibCogsPolicy",
    "stateless_corrected": f"{CORRECTED_MODULE}.StatelessPolicy",
}
