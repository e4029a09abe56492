"""Loading models, building prompts, generating answers."""
