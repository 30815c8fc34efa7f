"""The modes an operator offers: which models, with which defaults and LoRAs."""
