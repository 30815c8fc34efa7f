"""How good a picture is: scorers, their calibration, and what counts as the same picture."""
